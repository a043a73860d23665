package webrtc

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/webrtc/relay"
	"srsx/proxy/webrtc/sdp"
	"srsx/proxy/webrtc/ufrag"
)

// serveOffer is WHIP's and WHEP's POST: an offer comes, the origin's answer goes.
func (s *Server) serveOffer(w http.ResponseWriter, r *http.Request, c call) error {
	offer, err := s.readBody(w, r)
	if err == nil {
		err = sdp.Check(offer)
	}
	if err != nil {
		return err
	}
	stream, err := s.streamOf(r, c)
	if err != nil {
		return err
	}
	ours, err := s.candidates.list(r.Context())
	if err != nil {
		return err
	}
	session, err := s.open(r, c, stream)
	if err != nil {
		return err
	}
	offer = sdp.WithoutAddresses(offer)
	a, origin, err := s.askOf(r, session, func(o lb.Origin) (path, query string, body []byte, err error) {
		path, query = s.targetOf(r, c, stream, o)
		if s.isSRS(o, c) {
			key := s.routeKey()
			name, password := key.Make(ufrag.Route{
				Origin: proxy.FingerprintOf(o.ID, o.Incarnation).Short(), Stream: ufrag.HashStream(stream), Publish: c.publish,
			}, time.Now().Add(sessionLife))
			query = join(query, "ice-ufrag="+name+"&ice-pwd="+password)
		}
		return path, query, offer, nil
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
	credentials, ok := sdp.CredentialsOf(a.body)
	if !ok {
		session.End(errAnswer)
		return errAnswer
	}
	t := ticketOf(credentials, stream, c, origin)
	t.Client = s.config.Trusted.ClientOf(r)
	location, target := s.locate(a.header.Get("Location"), a.request, resource{
		origin: t.Incarnation, id: t.ID, stream: stream, publish: c.publish,
	})
	t.Resource = target
	if err = s.Expect(t, session); err != nil { //nolint:contextcheck // the session outlives the request
		return err
	}
	if location != "" {
		w.Header().Set("Location", location)
	}
	pass(w, a, sdp.WithCandidates(a.body, ours))
	return nil
}

// open admits the client and finds the origin of its stream. The session outlives
// the request.
func (s *Server) open(r *http.Request, c call, stream lb.Stream) (proxy.Session, error) {
	return s.config.Opener.Open(context.WithoutCancel(r.Context()), proxy.Request{
		Stream: stream, Protocol: lb.RTC, Kind: c.kind(), Publish: c.publish, Client: s.config.Trusted.ClientOf(r),
	})
}

// ticketOf makes the ticket of an answer.
func ticketOf(credentials sdp.Credentials, stream lb.Stream, c call, o lb.Origin) relay.Ticket {
	return relay.Ticket{
		ID: credentials.Ufrag, Ufrag: credentials.Ufrag, Password: credentials.Password,
		Origin: o.ID, Incarnation: proxy.FingerprintOf(o.ID, o.Incarnation),
		Stream: stream, Publish: c.publish, Kind: c.kind(),
	}
}
