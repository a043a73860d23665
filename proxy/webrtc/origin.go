package webrtc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/webrtc/relay"
)

// What an origin may do wrong once it is connected.
var (
	errAnswer = errors.New("origin's answer is not usable")
	errSilent = errors.New("origin does not answer in time")
)

const (
	maxHeader = 64 << 10  // bytes of an origin's response header
	maxBody   = 256 << 10 // bytes of an offer or answer, of which most have ten
)

func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        30 * time.Second,
		DisableCompression:     true,
	}
}

// answer is what an origin says, whole.
type answer struct {
	request *http.Request
	status  int
	header  http.Header
	body    []byte
}

func (a *answer) ok() bool { return a.status >= 200 && a.status < 300 }

// ask sends a client's request, with another target and body, to an origin. The
// error wraps a dial error where the origin has not heard of it.
func (s *Server) ask(ctx context.Context, r *http.Request, o lb.Origin, path, query string, body []byte) (*answer, error) {
	if len(o.Endpoints.API) == 0 {
		return nil, proxy.ErrNotServed
	}
	ctx, cancel := context.WithTimeout(ctx, s.config.AnswerTimeout)
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, r.Method, "/", bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask origin: %w", err)
	}
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", proxy.ErrStreamName, err)
	}
	// Not by way of a URL's text: to parse it again would change the query.
	out.URL = &url.URL{Scheme: "http", Host: o.Endpoints.API[0], Path: plain, RawPath: path, RawQuery: query}
	out.Host = r.Host
	out.Header = r.Header.Clone()
	proxy.DropHopByHop(out.Header)
	out.Header.Del("Content-Length")
	out.Header.Del("Expect")
	s.config.Trusted.TellClient(out.Header, r)
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", "") // else net/http names itself
	}
	out.Header.Set("Accept-Encoding", "identity")
	out.Header.Set(proxy.HopHeader, proxy.AppendHop(r.Header.Get(proxy.HopHeader), s.config.NodeID))
	return s.exchange(out)
}

func (s *Server) exchange(out *http.Request) (*answer, error) {
	response, err := s.transport.RoundTrip(out)
	if err != nil {
		return nil, silentIfTimeout(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAnswer, silentIfTimeout(err))
	}
	if len(body) > maxBody || response.StatusCode < 200 || response.StatusCode > 599 {
		return nil, fmt.Errorf("%w: status %d, %d bytes", errAnswer, response.StatusCode, len(body))
	}
	return &answer{request: out, status: response.StatusCode, header: response.Header, body: body}, nil
}

// askOf asks the origin of a session. A refused connection is tried again where
// the session says, by a request that build makes for that origin.
func (s *Server) askOf(r *http.Request, session proxy.Session, build func(lb.Origin) (path, query string, body []byte, err error)) (*answer, lb.Origin, error) {
	const tries = 3
	for try := 1; ; try++ {
		origin := session.Origin()
		path, query, body, err := build(origin)
		if err != nil {
			return nil, origin, err
		}
		a, err := s.ask(r.Context(), r, origin, path, query, body)
		if err == nil || errors.Is(err, proxy.ErrNotServed) {
			return a, origin, err
		}
		if !isDialError(err) || try == tries || r.Context().Err() != nil {
			return nil, origin, err
		}
		if err = session.Unreachable(r.Context(), err); err != nil {
			return nil, origin, err
		}
	}
}

func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func silentIfTimeout(err error) error {
	var timeout interface{ Timeout() bool }
	if !isDialError(err) && errors.As(err, &timeout) && timeout.Timeout() {
		return errSilent
	}
	if !isDialError(err) {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	return err
}

// passHeader copies an origin's answer for the client, without what concerns our
// connection or tells where the origin is. Location is the caller's.
func passHeader(to http.Header, a *answer) {
	from := a.header.Clone()
	proxy.DropHopByHop(from)
	for _, name := range []string{"Server", "Via", "X-Powered-By", "Alt-Svc", "Content-Length", "Location", "Content-Location"} {
		from.Del(name)
	}
	for name, values := range from {
		if strings.HasPrefix(name, "Access-Control-") {
			continue // ours say the same for every origin
		}
		// A TURN server may well live where the origin does.
		if name != "Link" && tells(values, a.request.URL.Host) {
			continue
		}
		to[name] = values
	}
}

func tells(values []string, origin string) bool {
	for _, value := range values {
		if proxy.TellsAddress(value, origin) {
			return true
		}
	}
	return false
}

// tellOrigin ends a session at its origin that ended here first. Whether the
// origin does is its own affair.
func (s *Server) tellOrigin(t relay.Ticket) {
	o, known := s.config.Finder.Origin(t.Origin)
	if !known || t.Resource == "" || len(o.Endpoints.API) == 0 || proxy.FingerprintOf(o.ID, o.Incarnation) != t.Incarnation {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.config.AnswerTimeout)
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, http.MethodDelete, "http://"+o.Endpoints.API[0]+t.Resource, http.NoBody)
	if err == nil {
		_, err = s.exchange(out)
	}
	if err != nil {
		s.config.Log.InfoContext(ctx, "origin not told of the end of a session", "origin", t.Origin, "stream", t.Stream, "err", err)
	}
}
