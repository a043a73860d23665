package httpstream

import (
	"bufio"
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
)

// What an origin may do wrong once it is connected.
var (
	errAnswer   = errors.New("origin's answer is not usable")
	errSilent   = errors.New("origin does not answer in time")
	errCutShort = errors.New("origin's body is cut short")
)

const (
	maxHeader = 64 << 10 // bytes of an origin's response header
	// steadyPiece is how many bytes of a body an origin has to send in the time
	// that it has for a header. That is no rate to speak of, but it ends.
	steadyPiece = 16 << 10
)

func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        30 * time.Second,
		DisableCompression:     true, // bytes pass as they are
	}
}

// ask returns the request for an origin that a client's request becomes: its
// own path, query and Host, without the hint, with the client's real address.
func (s *Server) ask(ctx context.Context, r *http.Request, o lb.Origin) (*http.Request, error) {
	if len(o.Endpoints.HTTP) == 0 {
		return nil, proxy.ErrNotServed
	}
	out, err := http.NewRequestWithContext(ctx, r.Method, "/", http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask origin: %w", err)
	}
	// Not by way of a URL's text: to parse it again would change the query.
	out.URL = &url.URL{
		Scheme: "http", Host: o.Endpoints.HTTP[0], Path: r.URL.Path, RawPath: r.URL.RawPath,
		RawQuery: withoutHint(r.URL.RawQuery),
	}
	out.Host = r.Host
	out.Header = r.Header.Clone()
	proxy.DropHopByHop(out.Header)
	s.config.Trusted.TellClient(out.Header, r)
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", "") // else net/http names itself
	}
	out.Header.Set("Accept-Encoding", "identity") // playlists are rewritten, media is compressed
	out.Header.Set(proxy.HopHeader, proxy.AppendHop(r.Header.Get(proxy.HopHeader), s.config.NodeID))
	return out, nil
}

// withoutHint removes our parameter from a query and leaves the rest, order and
// spelling included: it may be signed.
func withoutHint(query string) string {
	if !strings.Contains(query, hintParameter+"=") {
		return query
	}
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		if !strings.HasPrefix(part, hintParameter+"=") {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}

// fetch asks the hinted origin, else that of the session. A refused connection
// is tried again where the session says: a GET may be repeated. The origin has
// wait for its header, and for each further piece of the body.
func (s *Server) fetch(r *http.Request, session proxy.Session, hinted *lb.Origin, wait time.Duration) (*http.Response, lb.Origin, error) {
	const tries = 3
	for try := 1; ; try++ {
		origin := session.Origin()
		if hinted != nil {
			origin = *hinted
		}
		request, err := s.ask(r.Context(), r, origin)
		if err != nil {
			return nil, origin, err
		}
		response, err := s.roundTrip(request, wait)
		if err == nil {
			return response, origin, nil
		}
		if !isDialError(err) || try == tries || r.Context().Err() != nil {
			return nil, origin, fmt.Errorf("%w: %w", errAnswer, err)
		}
		if hinted != nil {
			hinted = nil // it is gone: the stream may be elsewhere
			continue
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

// roundTrip sends a request by a connection of the pool. An origin that lets
// wait pass before its header, or before the next piece of the body, ends the
// exchange with errSilent.
func (s *Server) roundTrip(request *http.Request, wait time.Duration) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(request.Context())
	alarm := time.AfterFunc(wait, func() { cancel(errSilent) })
	response, err := s.transport.RoundTrip(request.WithContext(ctx))
	alarm.Stop()
	silent := func() bool { return errors.Is(context.Cause(ctx), errSilent) }
	if err != nil {
		if silent() {
			err = errSilent
		}
		cancel(nil)
		return nil, err
	}
	response.Body = &steadyBody{ReadCloser: response.Body, cancel: cancel, silent: silent, alarm: alarm, each: wait, left: wait}
	if !isFinal(response.StatusCode) {
		_ = response.Body.Close()
		return nil, fmt.Errorf("%w: status %d", errAnswer, response.StatusCode)
	}
	return response, nil
}

// isFinal reports whether a status may be passed on as an answer: net/http
// reads some that it does not write.
func isFinal(status int) bool { return status >= http.StatusOK && status <= 599 }

// steadyBody is a body that its origin has to keep sending. Only the time spent
// in Read counts: the client may be the slow one.
type steadyBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
	silent func() bool
	alarm  *time.Timer
	each   time.Duration // for a piece
	left   time.Duration // of the time for the current piece
	got    int           // bytes of the current piece
}

func (b *steadyBody) Read(p []byte) (int, error) {
	started := time.Now()
	b.alarm.Reset(b.left)
	n, err := b.ReadCloser.Read(p)
	b.alarm.Stop()
	b.left -= time.Since(started)
	if b.got += n; b.got >= steadyPiece {
		b.got, b.left = 0, b.each
	}
	if err != nil && !errors.Is(err, io.EOF) && b.silent() {
		err = errSilent
	}
	return n, err
}

func (b *steadyBody) Close() error {
	b.alarm.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// exchange sends a request on a connection of its own and reads the response
// header. Live bodies have no use for a pool, and their connection is what a
// relay will take over. The deadline stays on the connection.
func exchange(conn net.Conn, request *http.Request, timeout time.Duration) (*http.Response, error) {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, fmt.Errorf("ask origin: %w", err)
	}
	if err := request.Write(conn); err != nil {
		return nil, fmt.Errorf("ask origin: %w", silentIfTimeout(err))
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	reader := bufio.NewReaderSize(limited, 16<<10)
	for range 5 { // an origin may say 100 or 103 first
		response, err := http.ReadResponse(reader, request)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errAnswer, silentIfTimeout(err))
		}
		if isFinal(response.StatusCode) {
			limited.N = 1<<63 - 1
			return response, nil
		}
	}
	return nil, errAnswer
}

func silentIfTimeout(err error) error {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errSilent
	}
	return err
}
