package proxy

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"srsx/lb"
)

// unlimited but for what a test sets.
func unlimited() Limits {
	return Limits{Sessions: -1, SessionsPerClient: -1, SessionRate: -1, SessionRatePerClient: -1, PlacementRate: -1, PlacementRatePerClient: -1}
}

func addr(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func requireLimit(t *testing.T, err error, name string) {
	t.Helper()
	limit := (*LimitError)(nil)
	if !errors.As(err, &limit) || limit.Limit != name || !errors.Is(err, lb.ErrLimit) {
		t.Errorf("err = %v; want the limit of %s", err, name)
	}
}

// A scanner that comes from everywhere fills no table, and neither does one who
// comes and goes.
func TestTablesOfClientsAreBounded(t *testing.T) {
	l := newLimiter(unlimited())
	for n := range uint32(3 * maxClients) {
		if err := l.admit(addr(n)); err != nil {
			t.Fatal(err)
		}
		if err := l.admitPlacement(addr(n)); err != nil {
			t.Fatal(err)
		}
		l.leave(addr(n))
	}
	if len(l.rates) != maxClients || l.order.Len() != maxClients {
		t.Errorf("%d clients are remembered, %d in order; want %d", len(l.rates), l.order.Len(), maxClients)
	}
	if len(l.count) != 0 || l.open != 0 {
		t.Errorf("%d clients have %d sessions open; want none", len(l.count), l.open)
	}
}

func TestSessionsAreLimitedAtOnceAndPerClient(t *testing.T) {
	limits := unlimited()
	limits.Sessions, limits.SessionsPerClient = 3, 2
	l := newLimiter(limits)
	for _, client := range []uint32{1, 1, 2} {
		if err := l.admit(addr(client)); err != nil {
			t.Fatal(err)
		}
	}
	requireLimit(t, l.admit(addr(3)), "sessions")
	l.leave(addr(2))
	requireLimit(t, l.admit(addr(1)), "sessions per address")
	if err := l.admit(addr(3)); err != nil {
		t.Errorf("another client: %v; want it admitted", err)
	}
}

// One address that floods uses up its own share and nobody else's.
func TestFloodFromOneAddressLeavesTheOthersTheirShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := unlimited()
		limits.SessionRate, limits.SessionRatePerClient = 10, 2 // bursts of 50 and 10
		limits.PlacementRate, limits.PlacementRatePerClient = 10, 1
		l := newLimiter(limits)
		admitted, placed := 0, 0
		for range 10_000 {
			if l.admit(addr(1)) == nil {
				admitted++
			}
			if l.admitPlacement(addr(1)) == nil {
				placed++
			}
		}
		if admitted != 10 || placed != 10 {
			t.Errorf("%d sessions and %d new streams of one address; want its bursts of 10", admitted, placed)
		}
		for range 5 {
			if err := errors.Join(l.admit(addr(2)), l.admitPlacement(addr(2))); err != nil {
				t.Errorf("another address: %v; want it admitted", err)
			}
		}
		time.Sleep(3 * time.Second)
		for range 6 {
			if err := l.admit(addr(1)); err != nil {
				t.Errorf("after 3 s: %v; want two a second again", err)
			}
		}
		requireLimit(t, l.admit(addr(1)), "rate of sessions per address")
	})
}

func TestRatesInTotal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := unlimited()
		limits.SessionRate, limits.PlacementRate = 2, 1 // bursts of ten each
		l := newLimiter(limits)
		for n := range uint32(10) {
			if err := errors.Join(l.admit(addr(n)), l.admitPlacement(addr(n))); err != nil {
				t.Fatal(err)
			}
		}
		requireLimit(t, l.admit(addr(11)), "rate of sessions")
		requireLimit(t, l.admitPlacement(addr(11)), "rate of new streams")
		if l.open != 10 {
			t.Errorf("%d sessions count as open; want the 10 admitted", l.open)
		}
	})
}

// A user of IPv6 has a /64 and could take a new address for each session.
func TestClientOfIPv6IsItsNetwork(t *testing.T) {
	limits := unlimited()
	limits.SessionsPerClient = 1
	l := newLimiter(limits)
	at := netip.MustParseAddr("2001:db8::1").As16()
	if err := l.admit(netip.AddrFrom16(at)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		at[15], at[8] = byte(rand.Uint32()), byte(rand.Uint32())
		requireLimit(t, l.admit(netip.AddrFrom16(at)), "sessions per address")
	}
	at[7] = 1
	if err := l.admit(netip.AddrFrom16(at)); err != nil {
		t.Errorf("another network: %v; want it admitted", err)
	}
	if err := l.admit(netip.MustParseAddr("192.0.2.1")); err != nil {
		t.Fatal(err)
	}
	requireLimit(t, l.admit(netip.MustParseAddr("::ffff:192.0.2.1")), "sessions per address")
}
