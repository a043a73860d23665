package httpstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// serveLive serves one viewer of a live body: FLV, TS, MP3 or AAC.
func (s *Server) serveLive(w http.ResponseWriter, r *http.Request) {
	target, err := s.config.VHosts.IdentifyHTTP(r.Host, r.URL)
	if err != nil {
		refuse(w, proxy.RefusalOf(err))
		return
	}
	session, err := s.config.Opener.Open(r.Context(), proxy.Request{
		Stream: target.Stream, Protocol: lb.HTTP, Kind: strings.TrimPrefix(target.Ext, "."), Client: s.client(r),
	})
	if err != nil {
		refuse(w, proxy.RefusalOf(err))
		return
	}
	err = s.relayLive(w, r, session)
	session.End(err)
	if errors.Is(err, errCutShort) {
		panic(http.ErrAbortHandler) // the client has to see that the body is not whole
	}
}

// errCutShort means that the origin's body ended before its own framing said.
var errCutShort = errors.New("origin's body is cut short")

// relayLive asks the origin and passes its answer on until one side ends.
func (s *Server) relayLive(w http.ResponseWriter, r *http.Request, session proxy.Session) error {
	ctx := session.Context()
	response, conn, err := s.openLive(ctx, r, session) //nolint:bodyclose,contextcheck // the session's context comes from the request's; the body is closed with the connection, its own
	if err != nil {
		refuse(w, refusalOf(err))
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })() //nolint:contextcheck // see above
	if response.StatusCode >= http.StatusBadRequest {
		s.passError(w, response)
		return nil
	}
	passHeader(w.Header(), response.Header, response.Request.URL.Host)
	w.Header().Del("Content-Length") // net/http frames the body anew
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(s.config.WriteTimeout))
	w.WriteHeader(response.StatusCode)
	if r.Method == http.MethodHead {
		return nil
	}
	// The header goes out now: the origin may have no media yet, and a player
	// that hears nothing gives up.
	if err = control.Flush(); err != nil {
		return writeFailed(err)
	}
	err = s.copyLive(w, response.Body, session)
	if ctx.Err() == nil {
		return err
	}
	if r.Context().Err() != nil {
		return nil // the player left
	}
	return context.Cause(ctx) //nolint:contextcheck // see above
}

func (s *Server) openLive(ctx context.Context, r *http.Request, session proxy.Session) (*http.Response, net.Conn, error) {
	conn, err := session.Dial(ctx)
	if err != nil {
		return nil, nil, err //nolint:wrapcheck // says what it dialed
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

// copyLive passes a live body on as it comes: what one read brings is written
// and flushed at once. Nothing is kept for a client that does not read.
func (s *Server) copyLive(w http.ResponseWriter, body io.Reader, session proxy.Session) error {
	control := http.NewResponseController(w)
	buffer := make([]byte, 32<<10)
	for {
		n, err := body.Read(buffer)
		if n > 0 {
			_ = control.SetWriteDeadline(time.Now().Add(s.config.WriteTimeout))
			if _, failed := w.Write(buffer[:n]); failed != nil {
				return writeFailed(failed)
			}
			if failed := control.Flush(); failed != nil {
				return writeFailed(failed)
			}
			session.Count(0, int64(n))
		}
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errCutShort, err)
		}
	}
}

// writeFailed tells a client that left from one that stopped reading.
func writeFailed(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return proxy.ErrSlow
	}
	return nil
}

// refusalOf adds to the router's refusals those of an origin's bad answers.
func refusalOf(err error) proxy.Refusal {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errAnswer) && errors.As(err, &timeout) && timeout.Timeout():
		return proxy.Refusal{Status: http.StatusGatewayTimeout, Retryable: true, Reason: "the origin does not answer"}
	case errors.Is(err, errAnswer), errors.Is(err, errPlaylist):
		return proxy.Refusal{Status: http.StatusBadGateway, Reason: "the origin's answer is not usable"}
	default:
		return proxy.RefusalOf(err)
	}
}
