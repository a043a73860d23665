package httpstream

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"srsx/lb"
)

// hopByHop are the headers of one connection (RFC 9110 section 7.6.1).
var hopByHop = []string{ //nolint:gochecknoglobals // a constant list
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

// passHeader copies an origin's answer for the client, without what concerns
// our connection or tells where the origin is.
func (s *Server) passHeader(to http.Header, response *http.Response) {
	origin := response.Request.URL.Host
	from := response.Header.Clone()
	dropHopByHop(from)
	for _, name := range []string{"Server", "Via", "X-Powered-By", "Alt-Svc"} {
		from.Del(name)
	}
	for _, name := range []string{"Location", "Content-Location"} {
		u, err := url.Parse(from.Get(name))
		if err == nil && u.Host != "" && (strings.EqualFold(u.Host, response.Request.Host) || s.isOrigin(u, origin)) {
			u.Scheme, u.Host, u.User = "", "", nil
			from.Set(name, u.String())
		}
	}
	for name, values := range from {
		if strings.HasPrefix(name, "Access-Control-") {
			continue // ours say the same for every origin
		}
		if slices.ContainsFunc(values, func(v string) bool { return tells(v, origin) }) {
			continue
		}
		to[name] = slices.Clone(values)
	}
}

// isOrigin reports whether a URL leads to the origin that was asked, or to
// another that is registered.
func (s *Server) isOrigin(u *url.URL, asked string) bool {
	if sameHost(u, asked) {
		return true
	}
	return slices.ContainsFunc(s.config.Finder.Origins(), func(o lb.OriginStatus) bool {
		return slices.ContainsFunc(o.Endpoints.HTTP, func(endpoint string) bool { return sameHost(u, endpoint) })
	})
}

// sameHost reports whether a URL leads to host, given as host or host:port. The
// port of the URL's scheme need not be written.
func sameHost(u *url.URL, host string) bool {
	port := "80"
	switch u.Scheme {
	case "", "http":
	case "https":
		port = "443"
	default:
		return false
	}
	if strings.EqualFold(u.Host, host) {
		return true
	}
	name, hostPort, err := net.SplitHostPort(host)
	if err != nil {
		name, hostPort = strings.Trim(host, "[]"), port
	}
	urlPort := u.Port()
	if urlPort == "" {
		urlPort = port
	}
	return strings.EqualFold(u.Hostname(), name) && urlPort == hostPort
}

// tells reports whether a text holds the address of an origin, host:port. Its
// bare host counts as well, unless it is a loopback address or a plain word,
// which tell nothing.
func tells(text, origin string) bool {
	if strings.Contains(text, origin) {
		return true
	}
	host, _, err := net.SplitHostPort(origin)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	if err != nil && !strings.Contains(host, ".") || addr.IsLoopback() {
		return false
	}
	return strings.Contains(text, host)
}
