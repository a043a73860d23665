package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"maps"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"

	"golang.org/x/time/rate"

	"srsx/proxy"
)

// Access says who may use the API.
type Access struct {
	Token         string   // bearer of everything; empty: none
	RegisterToken string   // that origins have in their path; empty: none needed
	Hosts         []string // names by which the API may be addressed, beside localhost and addresses
}

// admit lets in a caller on this host, or one with the token. It refuses what a
// browser was made to send: a page of another site, also one whose name was
// pointed at this address.
func (a Access) admit(r *http.Request) error {
	token := bearer(r)
	switch {
	case token != "" && !equal(token, a.Token):
		return &apiError{http.StatusUnauthorized, "wrong token"}
	case token != "":
	case !fromThisHost(r):
		return &apiError{http.StatusUnauthorized, "a token is needed from another host (Authorization: Bearer)"}
	case !a.knownHost(r.Host):
		return &apiError{http.StatusForbidden, "Host is not a name of this peer"}
	}
	if !a.ownOrigin(r) {
		return &apiError{http.StatusForbidden, "request comes from a page of another site"}
	}
	if r.Method == http.MethodPut || r.Method == http.MethodPost {
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" && kind != snapshotType {
			return &apiError{http.StatusUnsupportedMediaType, "Content-Type must be application/json"}
		}
	}
	return nil
}

func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// equal compares secrets in the same time whatever they are. No secret: never.
func equal(given, want string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(want))
	return want != "" && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// fromThisHost reports whether the caller itself is on this host. What a proxy
// on this host forwards is not, whatever its headers claim.
func fromThisHost(r *http.Request) bool {
	for _, header := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "X-Forwarded-Host"} {
		if r.Header.Get(header) != "" {
			return false
		}
	}
	peer, known := r.Context().Value(peerKey{}).(netip.Addr)
	return addrOf(r).IsLoopback() && (!known || peer.IsLoopback())
}

// peerKey is where [withPeer] keeps the address that connected.
type peerKey struct{}

// withPeer keeps who connected, whatever a PROXY protocol header says: one that
// claims loopback is believed only from loopback.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	if tcp, ok := proxy.TCPConn(conn); ok {
		return context.WithValue(ctx, peerKey{}, proxy.AddrPortOf(tcp.RemoteAddr()).Addr())
	}
	return ctx
}

func (a Access) knownHost(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if _, err := netip.ParseAddr(name); err == nil {
		return true
	}
	return strings.EqualFold(name, "localhost") || slices.ContainsFunc(a.Hosts, func(h string) bool { return strings.EqualFold(h, name) })
}

func (a Access) ownOrigin(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true // no browser, or its own page's GET
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host) && a.knownHost(u.Host)
}

// rates limits registrations by address: each one may cost a probe.
type rates struct {
	mu    sync.Mutex
	known map[netip.Addr]*rate.Limiter // guarded by mu
}

const (
	registerRate  = 100  // a second from one address
	registerBurst = 1000 // a host may run many origins
	ratesKept     = 4096 // addresses
)

func newRates() *rates { return &rates{known: make(map[netip.Addr]*rate.Limiter)} }

func (l *rates) allow(addr netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter, ok := l.known[addr]
	if !ok {
		if len(l.known) >= ratesKept {
			l.forgetQuiet()
		}
		limiter = rate.NewLimiter(registerRate, registerBurst)
		l.known[addr] = limiter
	}
	return limiter.Allow()
}

// forgetQuiet drops the addresses whose bucket is full again: they lose
// nothing by it. When all are busy, all are dropped, so that the table is
// bounded whoever calls.
func (l *rates) forgetQuiet() {
	maps.DeleteFunc(l.known, func(_ netip.Addr, limiter *rate.Limiter) bool { return limiter.Tokens() >= registerBurst })
	if len(l.known) >= ratesKept {
		clear(l.known)
	}
}
