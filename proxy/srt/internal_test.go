package srt

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/srt/wire"
)

func callerAt(n uint32) caller {
	addr := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	return caller{netip.AddrPortFrom(addr, 5000), 7}
}

func TestCookieProvesOneSocketForAWhile(t *testing.T) {
	c, now := newCookies(), time.Unix(1_800_000_000, 0)
	who := callerAt(1)
	cookie := c.of(who, period(now))
	for _, later := range []time.Duration{0, cookiePeriod / 2, cookiePeriod} {
		if !c.valid(cookie, who, now.Add(later)) {
			t.Errorf("not valid after %v", later)
		}
	}
	if c.valid(cookie, who, now.Add(2*cookiePeriod)) || c.valid(cookie, who, now.Add(-cookiePeriod)) {
		t.Error("valid in another time")
	}
	for name, other := range map[string]caller{
		"address": callerAt(2),
		"port":    {netip.AddrPortFrom(who.addr.Addr(), 5001), who.id},
		"socket":  {who.addr, 8},
	} {
		if c.valid(cookie, other, now) {
			t.Errorf("valid for another %s", name)
		}
	}
	if other := newCookies(); other.valid(cookie, who, now) {
		t.Error("valid at another peer")
	}
}

// As long as a cookie is valid it is known what became of its caller.
func TestAnswersAreRememberedAsLongAsCookiesHold(t *testing.T) {
	c, now := newCookies(), time.Unix(1_800_000_000, 0).Truncate(cookiePeriod)
	for _, from := range []time.Duration{0, cookiePeriod / 2, cookiePeriod - 1} {
		var a answered
		who, induced := callerAt(1), now.Add(from)
		cookie := c.of(who, period(induced))
		a.put(who, refusal{rejected: true, reason: wire.Down}, induced)
		for later := time.Duration(0); later < 3*cookiePeriod; later += time.Second {
			at := induced.Add(later)
			how, known := a.get(who, at)
			if c.valid(cookie, who, at) && (!known || how.reason != wire.Down) {
				t.Errorf("%v after it was answered: %+v, %v; want it known as its cookie is valid", later, how, known)
			}
			if later > 2*cookiePeriod && known {
				t.Errorf("%v after it was answered it is still known", later)
			}
		}
	}
}

func TestMemoryOfAnswersIsBounded(t *testing.T) {
	var a answered
	now := time.Unix(1_800_000_000, 0)
	for n := range uint32(3 * maxAnswered) {
		a.put(callerAt(n), refusal{}, now)
	}
	if len(a.now) != maxAnswered {
		t.Errorf("%d are remembered; want %d", len(a.now), maxAnswered)
	}
	if a.turn(now.Add(10 * cookiePeriod)); len(a.now)+len(a.earlier) != 0 {
		t.Errorf("%d are remembered later; want none", len(a.now)+len(a.earlier))
	}
}

func TestTableChainsFlowsOfOneID(t *testing.T) {
	table := newTable(100, 100, prometheus.NewGauge(prometheus.GaugeOpts{}))
	flows := make([]*flow, 4)
	for n := range flows {
		flows[n] = &flow{who: callerAt(uint32(n)), originID: 99}
		if !table.begin(flows[n]) || !table.join(flows[n]) {
			t.Fatalf("flow %d was not taken", n)
		}
	}
	if table.join(&flow{who: callerAt(2), originID: 99}) {
		t.Error("two flows of one address have one id")
	}
	for _, n := range []int{1, 3, 0, 2} { // middle, first, last, only
		for m, f := range flows {
			if got, known := table.find(99, callerAt(uint32(m)).addr); f != nil && (got != f || !known) || f == nil && got != nil {
				t.Errorf("find of flow %d = %p, %v; want %p", m, got, known, f)
			}
		}
		table.remove(flows[n], refusal{}, time.Now())
		table.settle(flows[n])
		flows[n] = nil
	}
	if _, known := table.find(99, callerAt(0).addr); known || len(table.byID)+len(table.byCaller)+len(table.openedBy)+table.opening != 0 {
		t.Errorf("left in the table: %+v", table)
	}
}

// Whatever comes to the port, from a stranger or in a flow, ends nothing and is
// answered by no more than itself.
func FuzzPort(f *testing.F) {
	port, err := datagram.Listen(f.Context(), "127.0.0.1:0", "srt")
	if err != nil {
		f.Fatal(err)
	}
	heard, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		_ = port.Close()
		_ = heard.Close()
	})
	from := datagram.Way{Remote: proxy.AddrPortOf(heard.LocalAddr())}
	s := NewServer(port, Config{})
	hello := wire.Handshake{Version: 5, Extension: 5, FirstPacket: 1, MTU: 1500, Window: 8192, Kind: wire.Conclusion, SocketID: 7}
	valid := s.cookies.of(caller{from.Remote, 7}, period(time.Now()))
	hello.Cookie = 1
	for _, p := range [][]byte{
		hello.Inducing().Append(nil), hello.Append(nil), hello.Rejected(wire.Down).Append(nil), hello.Induced(3).Append(nil),
		wire.AppendShutdown(nil, 0), wire.AppendShutdown(nil, 99), make([]byte, 16),
		{0x80},
		{},
		append(hello.Append(nil), 0, 5, 0, 1, 'd', 'c', 'b', 'a'),
	} {
		f.Add(p, false)
		f.Add(p, true)
	}
	const last = 'x'
	b := make([]byte, 1<<16)
	f.Fuzz(func(t *testing.T, p []byte, proven bool) {
		if proven && len(p) >= wire.HandshakeSize && wire.IsA(p, wire.ControlHandshake) {
			// Behind the cookie: what a conclusion says. Only what is refused
			// there is tried; the rest would need an origin.
			p = slices.Clone(p)
			wire.SetCookie(p, valid)
			if h, bad := wire.ParseHandshake(p); bad == nil {
				_, _ = s.newFlow(p, h, from, time.Now())
			}
			return
		}
		s.packet(t.Context(), p, from, nil)
		s.send([]byte{last}, from)
		for n := 0; n != 1; { // what else was sent is before it
			if n, err = heard.Read(b); err != nil {
				t.Fatal(err)
			}
			if n > 1 && n > len(p) {
				t.Errorf("%d bytes are answered by %d", len(p), n)
			}
		}
	})
}
