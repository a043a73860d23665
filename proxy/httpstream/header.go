package httpstream

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"srsx/lb"
	"srsx/proxy"
)

// passHeader copies an origin's answer for the client, without what concerns
// our connection or tells where the origin is.
func (s *Server) passHeader(to http.Header, response *http.Response) {
	origin := response.Request.URL.Host
	from := response.Header.Clone()
	proxy.DropHopByHop(from)
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
		if slices.ContainsFunc(values, func(v string) bool { return proxy.TellsAddress(v, origin) }) {
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
