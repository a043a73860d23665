package httpstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// maxHeader bounds an origin's response header.
const maxHeader = 64 << 10 // bytes

func newTransport(answerTimeout time.Duration) *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		ResponseHeaderTimeout:  answerTimeout,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        30 * time.Second,
		DisableCompression:     true, // bytes pass as they are
	}
}

// hopByHop are the headers of one connection (RFC 9110 section 7.6.1).
var hopByHop = []string{ //nolint:gochecknoglobals // constant
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func dropHopByHop(h http.Header) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}

// ask returns the request for an origin that a client's request becomes: its
// own path, query and Host, without the hint, with the client's real address.
func (s *Server) ask(ctx context.Context, r *http.Request, o lb.Origin) (*http.Request, error) {
	if len(o.Endpoints.HTTP) == 0 {
		return nil, proxy.ErrNotServed
	}
	u := &url.URL{
		Scheme: "http", Host: o.Endpoints.HTTP[0], Path: r.URL.Path, RawPath: r.URL.RawPath,
		RawQuery: withoutHint(r.URL.RawQuery),
	}
	out, err := http.NewRequestWithContext(ctx, r.Method, u.String(), http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask origin: %w", err)
	}
	out.Host = r.Host
	out.Header = r.Header.Clone()
	dropHopByHop(out.Header)
	s.setClient(out.Header, r)
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", "") // else net/http names itself
	}
	out.Header.Set("Accept-Encoding", "identity") // playlists are rewritten, media is compressed
	out.Header.Set(proxy.HopHeader, proxy.AppendHop(r.Header.Get(proxy.HopHeader), s.config.NodeID))
	return out, nil
}

// setClient tells the origin the client's address. What a stranger claims is
// replaced; a trusted proxy's list is continued.
func (s *Server) setClient(h http.Header, r *http.Request) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	client := s.client(r).Addr().String()
	list := host
	if told := h.Values("X-Forwarded-For"); len(told) > 0 && client != host {
		list = strings.Join(told, ", ") + ", " + host
	}
	h.Del("Forwarded")
	h.Set("X-Forwarded-For", list)
	h.Set("X-Real-Ip", client)
	h.Set("X-Forwarded-Host", r.Host)
	h.Set("X-Forwarded-Proto", "http")
	if r.TLS != nil {
		h.Set("X-Forwarded-Proto", "https")
	}
}

// passHeader copies an origin's answer for the client, without what concerns
// our connection or tells where the origin is.
func passHeader(to, from http.Header, origin string) {
	from = from.Clone()
	dropHopByHop(from)
	for _, name := range []string{"Server", "Via", "X-Powered-By"} {
		from.Del(name)
	}
	for _, name := range []string{"Location", "Content-Location"} {
		if u, err := url.Parse(from.Get(name)); err == nil && u.Host == origin {
			u.Scheme, u.Host = "", ""
			from.Set(name, u.String())
		}
	}
	for name, values := range from {
		if strings.HasPrefix(name, "Access-Control-") {
			continue // ours say the same for every origin
		}
		if name != "Location" && slices.ContainsFunc(values, func(v string) bool { return tells(v, origin) }) {
			continue
		}
		to[name] = slices.Clone(values)
	}
}

// tells reports whether a text holds the address of an origin, host:port. Its
// bare address counts as well, unless it is loopback, which tells nothing.
func tells(text, origin string) bool {
	if strings.Contains(text, origin) {
		return true
	}
	host, _, err := net.SplitHostPort(origin)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && !addr.IsLoopback() && strings.Contains(text, host)
}

// withoutHint removes our parameter from a query and leaves the rest, order and
// spelling included: it may be signed.
func withoutHint(query string) string {
	if !strings.Contains(query, hintParameter+"=") {
		return query
	}
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		if part != "" && !strings.HasPrefix(part, hintParameter+"=") {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}

// errAnswer means that an origin's answer was no HTTP, cut short or too large.
var errAnswer = errors.New("origin's answer is not usable")

// exchange sends a request on a connection of its own and reads the response
// header. Live bodies have no use for a pool, and their connection is what a
// relay will take over.
func exchange(conn net.Conn, request *http.Request, timeout time.Duration) (*http.Response, error) {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, fmt.Errorf("ask origin: %w", err)
	}
	if err := request.Write(conn); err != nil {
		return nil, fmt.Errorf("ask origin: %w", err)
	}
	limited := &io.LimitedReader{R: conn, N: maxHeader}
	reader := bufio.NewReaderSize(limited, 16<<10)
	for range 5 { // an origin may say 100 or 103 first
		response, err := http.ReadResponse(reader, request)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errAnswer, err)
		}
		if response.StatusCode >= 200 {
			limited.N = 1<<63 - 1
			return response, conn.SetDeadline(time.Time{})
		}
	}
	return nil, errAnswer
}

func isDialError(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
