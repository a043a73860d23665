package admin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"testing"

	"srsx/lb"
)

// What a header says of the client's address is not who connected: a load
// balancer elsewhere that names loopback is not this host.
func TestClaimedLoopbackIsBelievedOnlyFromLoopback(t *testing.T) {
	for peer, want := range map[string]bool{"127.0.0.1": true, "::1": true, "10.0.0.9": false} {
		r := httptest.NewRequest(http.MethodGet, "/api/v1/origins", nil)
		r.RemoteAddr = "127.0.0.1:5000"
		r = r.WithContext(context.WithValue(r.Context(), peerKey{}, netip.MustParseAddr(peer)))
		if got := fromThisHost(r); got != want {
			t.Errorf("connected from %s, said to be 127.0.0.1: this host = %v; want %v", peer, got, want)
		}
	}
}

func TestTableOfRatesIsBounded(t *testing.T) {
	limits := newRates()
	addr := netip.MustParseAddr("2001:db8::")
	busy := netip.MustParseAddr("192.0.2.1")
	for range registerBurst / 2 {
		limits.allow(busy)
	}
	for range 3 * ratesKept {
		addr = addr.Next()
		limits.allow(addr)
	}
	if n := len(limits.known); n > ratesKept {
		t.Errorf("table has %d addresses; want at most %d", n, ratesKept)
	}
	used := 0
	for limits.allow(netip.MustParseAddr("192.0.2.2")) {
		if used++; used > 2*registerBurst {
			t.Fatal("no limit for one address")
		}
	}
}

func TestOnlyCallersOfKnownOriginsAreRemembered(t *testing.T) {
	var c callers
	addr := netip.MustParseAddr("192.0.2.1")
	known := func(id lb.OriginID) bool { return id == "stays" }
	c.remember("stays", addr, known)
	for i := range 10_000 {
		c.remember(lb.OriginID(strconv.Itoa(i)), addr, known)
	}
	if n := len(c.known); n > 1000 || c.of("stays") != addr {
		t.Errorf("%d callers are remembered; want those of origins that are known", n)
	}
}
