package httpstream

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"

	"srsx/proxy"
)

// reply is what a client gets. It knows whether it has begun: until then an
// error can still be told by a status.
type reply struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (w *reply) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *reply) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *reply) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// fail tells the client that it will not get all: by a status, or by breaking
// off, so that half a body is seen to be half.
func (w *reply) fail(r proxy.Refusal) {
	if w.begun {
		panic(http.ErrAbortHandler)
	}
	w.refuse(r)
}

// refuse answers with a reason, and when to try again where that may help.
func (w *reply) refuse(r proxy.Refusal) {
	body, err := json.Marshal(map[string]any{"code": r.Status, "error": r.Reason})
	if err != nil {
		body = nil // two plain values always marshal
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Retryable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(body)
}

// refusalOf adds to the router's refusals those that only HTTP has.
func refusalOf(err error) proxy.Refusal {
	switch {
	case errors.Is(err, errBody):
		return proxy.Refusal{Status: http.StatusBadRequest, Reason: errBody.Error()}
	case errors.Is(err, errNoSegment):
		return proxy.Refusal{Status: http.StatusNotFound, Reason: errNoSegment.Error()}
	case errors.Is(err, errSilent):
		return proxy.Refusal{Status: http.StatusGatewayTimeout, Retryable: true, Reason: errSilent.Error()}
	case errors.Is(err, errAnswer), errors.Is(err, errPlaylist), errors.Is(err, errCutShort):
		return proxy.Refusal{Status: http.StatusBadGateway, Reason: errAnswer.Error()}
	default:
		return proxy.RefusalOf(err)
	}
}

// passOn sends an origin's answer as it is, its bytes as they come.
func (s *Server) passOn(w *reply, response *http.Response, session proxy.Session) error {
	s.passHeader(w.Header(), response)
	w.WriteHeader(response.StatusCode)
	if response.Request.Method == http.MethodHead {
		return nil
	}
	// The header goes out now: the origin may have no media yet, and a player
	// that hears nothing gives up.
	if err := http.NewResponseController(w).Flush(); err != nil {
		return writeFailed(err)
	}
	return s.copyBody(w, response.Body, session)
}

// copyBody passes a body on as it comes: what one read brings is written and
// flushed at once. Nothing is kept for a client that does not read. Errors are
// errCutShort, errSilent and proxy.ErrSlow; a client that leaves is none.
func (s *Server) copyBody(w *reply, body io.Reader, session proxy.Session) error {
	control := http.NewResponseController(w)
	buffer := s.pools.buffer()
	defer s.pools.putBuffer(buffer)
	for {
		n, err := body.Read(*buffer)
		if n > 0 {
			if _, failed := w.Write((*buffer)[:n]); failed != nil {
				return writeFailed(failed)
			}
			if failed := control.Flush(); failed != nil {
				return writeFailed(failed)
			}
			session.Count(0, int64(n))
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errSilent):
			return err
		default:
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

// passError sends an origin's refusal on: its status as it is, its page unless
// that tells where the origin is.
func (s *Server) passError(w *reply, response *http.Response) {
	const longest = 64 << 10 // bytes of an error page
	body, err := io.ReadAll(io.LimitReader(response.Body, longest+1))
	if err != nil || len(body) > longest || proxy.TellsAddress(string(body), response.Request.URL.Host) {
		w.refuse(proxy.Refusal{Status: response.StatusCode, Reason: "the origin refused: " + http.StatusText(response.StatusCode)})
		return
	}
	s.passHeader(w.Header(), response)
	if response.Request.Method != http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	w.WriteHeader(response.StatusCode)
	_, _ = w.Write(body)
}

// refusedBy is the reason of a session that ends with an origin's error page.
func refusedBy(response *http.Response) error {
	return fmt.Errorf("origin answers %d", response.StatusCode)
}
