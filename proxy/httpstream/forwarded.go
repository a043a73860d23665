package httpstream

import (
	"net/http"
	"net/netip"
	"strings"
)

// peerOf is who connected to us: behind the PROXY protocol already the client.
func peerOf(r *http.Request) netip.AddrPort {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
}

// client returns the address that limits, logs and the origin see: behind a
// trusted proxy the first entry of X-Forwarded-For, else X-Real-IP, as SRS
// reads them. Its port is 0 then.
func (s *Server) client(r *http.Request) netip.AddrPort {
	peer := peerOf(r)
	if !s.config.Trusted.Contains(peer.Addr()) {
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

// setClient tells the origin the client's address in the header h of the
// request that r becomes. What a stranger claims is replaced; what a trusted
// proxy says is continued.
func (s *Server) setClient(h http.Header, r *http.Request) {
	peer, client := peerOf(r).Addr(), s.client(r).Addr()
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if s.config.Trusted.Contains(peer) {
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
