package webrtc

import (
	"net/http"
	"strings"
	"time"

	"srsx/proxy"
	"srsx/proxy/webrtc/sdp"
)

// serveResource changes or ends a session that any peer has signalled.
func (s *Server) serveResource(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodPatch && r.Method != http.MethodDelete {
		w.Header().Set("Allow", "PATCH, DELETE, OPTIONS")
		return errMethod
	}
	now := time.Now()
	target, hint := splitHint(r.URL)
	res, ok := s.config.Secret().verify(hint, target, now)
	if !ok {
		return errNoResource
	}
	body, err := s.readBody(w, r)
	if err != nil {
		return err
	}
	origin, known := s.prints.Find(res.origin, s.config.Finder, now)
	if !known {
		s.End(res.id) // it went with its origin
		return errNoResource
	}
	path, query, _ := strings.Cut(target, "?")
	a, err := s.ask(r.Context(), r, origin, path, query, sdp.WithoutAddresses(body))
	if err != nil {
		if isDialError(err) {
			return proxy.ErrUnreachable
		}
		return err
	}
	if r.Method == http.MethodDelete && (a.ok() || a.status == http.StatusNotFound || a.status == http.StatusGone) {
		s.End(res.id)
	}
	if !a.ok() {
		passError(w, a)
		return nil
	}
	if r.Method == http.MethodPatch {
		if a.body, err = s.restarted(r, a.body, res, call{publish: res.publish}); err != nil {
			return err
		}
	}
	pass(w, a, a.body)
	return nil
}

// restarted changes the fragment by which an origin answers a PATCH, and takes
// the credentials of an ICE restart (RFC 9725 section 4.3.3).
func (s *Server) restarted(r *http.Request, fragment []byte, res resource, c call) ([]byte, error) {
	credentials, ok := sdp.CredentialsOf(fragment)
	if !ok {
		return sdp.WithoutAddresses(fragment), nil
	}
	ours, err := s.candidates.list(r.Context())
	if err != nil {
		return nil, err
	}
	origin, known := s.prints.Find(res.origin, s.config.Finder, time.Now())
	if !known {
		return nil, errNoResource
	}
	t := ticketOf(credentials, res.stream, c, origin)
	t.ID = res.id
	t.Client = s.config.Trusted.ClientOf(r)
	t.Resource, _ = splitHint(r.URL)
	s.Restarted(t)
	return sdp.WithCandidates(fragment, ours), nil
}
