package webrtc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"srsx/proxy"
	"srsx/proxy/webrtc/sdp"
)

// Why a request comes to no session.
var (
	errTooLong    = fmt.Errorf("body of more than %d bytes", maxBody)
	errBody       = errors.New("body not read")
	errJSON       = errors.New("not a JSON object with streamurl and sdp")
	errNoResource = errors.New("no such resource")
)

// readBody reads what a client sends, which it has to do in time.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > maxBody {
		w.Header().Set("Connection", "close") // and do not read it
		return nil, errTooLong
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.config.BodyTimeout)) // of a real connection
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		w.Header().Set("Connection", "close")
		return nil, fmt.Errorf("%w: %w", errBody, err)
	}
	if len(body) > maxBody {
		w.Header().Set("Connection", "close")
		return nil, errTooLong
	}
	return body, nil
}

// refuse answers with a reason, and when to try again where that may help.
func refuse(w http.ResponseWriter, r proxy.Refusal) {
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

// refusalOf adds to the router's refusals those that only signalling has.
func refusalOf(err error) proxy.Refusal {
	for known, status := range map[error]int{
		errTooLong: http.StatusRequestEntityTooLarge, errBody: http.StatusBadRequest, errJSON: http.StatusBadRequest,
		sdp.ErrNotSDP: http.StatusBadRequest, errNoResource: http.StatusNotFound, errMethod: http.StatusMethodNotAllowed,
		errAnswer: http.StatusBadGateway,
	} {
		if errors.Is(err, known) {
			return proxy.Refusal{Status: status, Reason: known.Error()}
		}
	}
	switch {
	case errors.Is(err, errSilent):
		return proxy.Refusal{Status: http.StatusGatewayTimeout, Retryable: true, Reason: errSilent.Error()}
	case errors.Is(err, errCandidates):
		return proxy.Refusal{Status: http.StatusServiceUnavailable, Retryable: true, Reason: errCandidates.Error()}
	default:
		return proxy.RefusalOf(err)
	}
}

// pass sends an origin's answer on.
func pass(w http.ResponseWriter, a *answer, body []byte) {
	passHeader(w.Header(), a)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	_, _ = w.Write(body)
}

// passError sends an origin's refusal on: its status as it is, its page unless
// that tells where the origin is.
func passError(w http.ResponseWriter, a *answer) {
	reason := "the origin refused: " + http.StatusText(a.status)
	switch {
	case a.status < http.StatusBadRequest: // a redirect leads past us
		refuse(w, proxy.Refusal{Status: http.StatusBadGateway, Reason: reason})
	case proxy.TellsAddress(string(a.body), a.request.URL.Host):
		refuse(w, proxy.Refusal{Status: a.status, Reason: reason})
	default:
		pass(w, a, a.body)
	}
}
