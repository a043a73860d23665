package webrtc

import (
	"encoding/json"
	"fmt"
	"net/http"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/webrtc/sdp"
)

// envelope is a message of SRS's JSON API. Fields that are not looked at pass as
// they are.
type envelope map[string]json.RawMessage

func (e envelope) text(name string) string {
	var text string
	_ = json.Unmarshal(e[name], &text) // what is no text is as if it were not there
	return text
}

func (e envelope) set(name, text string) {
	b, err := json.Marshal(text)
	if err == nil { // text always marshals
		e[name] = b
	}
}

// serveLegacy is SRS's older API: offer and answer in JSON, no resource to end.
func (s *Server) serveLegacy(w http.ResponseWriter, r *http.Request, c call) error {
	body, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	var asked envelope
	if json.Unmarshal(body, &asked) != nil {
		return errJSON
	}
	offer := []byte(asked.text("sdp"))
	if err = sdp.Check(offer); err != nil {
		return err
	}
	stream, err := s.streamOfURL(asked.text("streamurl"))
	if err != nil {
		return err
	}
	ours, err := s.candidates.list(r.Context())
	if err != nil {
		return err
	}
	if asked.text("clientip") == "" || !s.config.Trusted.Contains(proxy.PeerOf(r).Addr()) {
		asked.set("clientip", s.config.Trusted.ClientOf(r).Addr().String())
	}
	asked.set("sdp", string(sdp.WithoutAddresses(offer)))
	session, err := s.open(r, c, stream)
	if err != nil {
		return err
	}
	a, origin, err := s.askOf(r, session, func(lb.Origin) (path, query string, body []byte, err error) {
		body, err = json.Marshal(asked)
		return r.URL.EscapedPath(), without(r.URL.RawQuery, "ice-ufrag", "ice-pwd", hintParameter), body, err
	})
	if err != nil {
		session.End(err)
		return err
	}
	if !a.ok() {
		session.End(fmt.Errorf("origin answers %d", a.status))
		passError(w, a)
		return nil
	}
	var said envelope
	if json.Unmarshal(a.body, &said) != nil {
		session.End(errAnswer)
		return errAnswer
	}
	answer := []byte(said.text("sdp"))
	credentials, ok := sdp.CredentialsOf(answer)
	if !ok { // a refusal, whose code is in the envelope
		session.End(fmt.Errorf("origin answers code %s", said["code"]))
		pass(w, a, a.body)
		return nil
	}
	t := ticketOf(credentials, stream, c, origin)
	t.Client = s.config.Trusted.ClientOf(r)
	said.set("sdp", string(sdp.WithCandidates(answer, ours)))
	out, err := json.Marshal(said)
	if err != nil {
		session.End(errAnswer)
		return errAnswer
	}
	if err = s.Expect(t, session); err != nil { //nolint:contextcheck // the session outlives the request
		return err
	}
	pass(w, a, out)
	return nil
}
