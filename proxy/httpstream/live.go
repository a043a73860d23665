package httpstream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// serveLive serves one viewer of a live body: FLV, TS, MP3 or AAC.
func (s *Server) serveLive(w *reply, r *http.Request) {
	target, err := s.config.VHosts.IdentifyHTTP(r.Host, r.URL)
	if err != nil {
		s.turnAway(w, r, err)
		return
	}
	session, err := s.config.Opener.Open(r.Context(), proxy.Request{
		Stream: target.Stream, Protocol: lb.HTTP, Kind: strings.TrimPrefix(target.Ext, "."), Client: s.config.Trusted.ClientOf(r),
	})
	if err != nil {
		s.turnAway(w, r, err)
		return
	}
	err = s.relayLive(w, r, session)
	session.End(err)
	if errors.Is(err, errCutShort) || errors.Is(err, proxy.ErrSlow) {
		panic(http.ErrAbortHandler) // the client has to see that the body is not whole
	}
}

// relayLive asks the origin and passes its answer on until one side ends.
func (s *Server) relayLive(w *reply, r *http.Request, session proxy.Session) error {
	ctx := session.Context()
	response, conn, err := s.openLive(ctx, r, session) //nolint:bodyclose,contextcheck // the session's context comes from the request's; the body is closed with the connection, its own
	if err != nil {
		w.refuse(refusalOf(err))
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() //nolint:contextcheck // see above
	if response.StatusCode >= http.StatusBadRequest {
		s.passError(w, response)
		return refusedBy(response)
	}
	if err = conn.SetDeadline(time.Time{}); err != nil { // the stream may be silent for as long as it likes
		return err
	}
	response.Header.Del("Content-Length") // net/http frames the body anew
	err = s.passOn(w, response, session)
	switch {
	case errors.Is(err, proxy.ErrSlow), ctx.Err() == nil:
		return err
	case r.Context().Err() != nil:
		return nil // the player left
	default:
		return context.Cause(ctx) //nolint:contextcheck // see above
	}
}

// openLive connects to the stream's origin and returns its answer. The
// connection has a deadline, for reading a refusal's page.
func (s *Server) openLive(ctx context.Context, r *http.Request, session proxy.Session) (*http.Response, net.Conn, error) {
	conn, err := session.Dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	request, err := s.ask(ctx, r, session.Origin())
	if err == nil {
		request.Close = true
		var response *http.Response
		if response, err = exchange(conn, request, s.config.AnswerTimeout); err == nil {
			return response, conn, nil
		}
	}
	_ = conn.Close()
	return nil, nil, err
}
