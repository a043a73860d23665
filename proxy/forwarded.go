package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// PeerOf is who connected to us: behind the PROXY protocol already the client.
func PeerOf(r *http.Request) netip.AddrPort {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
}

// ClientOf returns the address that limits, logs and the origin see for a
// request of HTTP: behind a trusted proxy, one of these networks, the first
// entry of X-Forwarded-For, else X-Real-IP, as SRS reads them. Its port is 0 then.
func (n Networks) ClientOf(r *http.Request) netip.AddrPort {
	peer := PeerOf(r)
	if !n.Contains(peer.Addr()) {
		return peer
	}
	first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
	for _, told := range []string{first, r.Header.Get("X-Real-Ip")} {
		if addr, ok := parseNode(told); ok {
			return netip.AddrPortFrom(addr, 0)
		}
	}
	return peer
}

// parseNode reads an address as proxies write it: some add the port.
func parseNode(text string) (netip.Addr, bool) {
	text = strings.TrimSpace(text)
	if node, err := netip.ParseAddrPort(text); err == nil {
		return node.Addr().Unmap().WithZone(""), true
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return addr.Unmap().WithZone(""), err == nil
}

// TellClient tells the origin the client's address in the header h of the
// request that r becomes. What a stranger claims is replaced; what a trusted
// proxy, one of these networks, says is continued.
func (n Networks) TellClient(h http.Header, r *http.Request) {
	peer, client := PeerOf(r).Addr(), n.ClientOf(r).Addr()
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if n.Contains(peer) {
		if h.Get("X-Forwarded-For") == "" && client != peer {
			h.Set("X-Forwarded-For", client.String()) // it came in X-Real-IP, which origins read second
		}
		appendTo(h, "X-Forwarded-For", peer.String())
		if h.Get("Forwarded") != "" {
			appendTo(h, "Forwarded", "for="+forwardedNode(peer))
		}
		setDefault(h, "X-Forwarded-Host", r.Host)
		setDefault(h, "X-Forwarded-Proto", scheme)
	} else {
		h.Del("Forwarded")
		h.Set("X-Forwarded-For", peer.String())
		h.Set("X-Forwarded-Host", r.Host)
		h.Set("X-Forwarded-Proto", scheme)
	}
	h.Set("X-Real-Ip", client.String())
}

// appendTo adds to a header that is a list, as one line.
func appendTo(h http.Header, name, value string) {
	h.Set(name, strings.Join(append(h.Values(name), value), ", "))
}

func setDefault(h http.Header, name, value string) {
	if h.Get(name) == "" {
		h.Set(name, value)
	}
}

// forwardedNode is an address as RFC 7239 section 6 has it.
func forwardedNode(addr netip.Addr) string {
	if addr.Is4() {
		return addr.String()
	}
	return `"[` + addr.String() + `]"`
}

// hopByHop are the headers of one connection (RFC 9110 section 7.6.1).
var hopByHop = []string{ //nolint:gochecknoglobals // a constant list
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// DropHopByHop removes the headers that concern one connection only.
func DropHopByHop(h http.Header) {
	for _, list := range h["Connection"] {
		for name := range strings.SplitSeq(list, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}

// TellsAddress reports whether a text holds the address of an origin, host:port. Its
// bare host counts as well, unless it is a loopback address or a plain word,
// which tell nothing.
func TellsAddress(text, origin string) bool {
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
