package srt_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"srsx/proxy"
	"srsx/proxy/srt"
	"srsx/proxy/srt/wire"
	"srsx/test/proxytest"
)

// Sockets and ports that are made up cost nothing that stays.
func TestStrangersLeaveNothingBehind(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	c := call(t, s.addr, 7).connect("live/cam")
	before := proxytest.Measure(t)
	const sockets, ids = 200, 500
	for n := range uint32(sockets) {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.addr))
		if err != nil {
			t.Fatal(err)
		}
		stranger := &testCaller{udp: udp{t, conn}, id: 1000 * n}
		for range ids { // 100k of them
			stranger.id++
			stranger.send(stranger.hello(wire.Induction, 0).Inducing().Append(nil))
			stranger.send(stranger.conclusion(rand.Uint32(), "live/cam"))
		}
		stranger.send(data(c.peer, 1, 'x'))
		_ = conn.Close()
		requirePasses(t, c, o)
	}
	if got := s.count(t, "srsx_srt_half_open", ""); got != 0 || s.Sessions() != 1 {
		t.Errorf("%v half-open, %d sessions; want none but one's own", got, s.Sessions())
	}
	before.Require(t)
}

func TestCallersThatComeAndGoLeaveNothingBehind(t *testing.T) {
	good := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{Limits: proxy.Limits{SessionRate: -1, SessionRatePerClient: -1, PlacementRate: -1, PlacementRatePerClient: -1}}, srt.Config{}, good)
	c := call(t, s.addr, 7)
	c.connect("live/cam")
	before := proxytest.Measure(t)
	for id := range uint32(2000) {
		guest := c.other(1000 + id)
		streamID := "live/cam"
		if id%3 == 0 {
			streamID = "live/../x" // refused
		}
		h := guest.ask(streamID)
		if guest.peer == 0 {
			if guest.rejected(h) != wire.BadRequest {
				t.Fatalf("%s was refused by %+v", streamID, h)
			}
			continue
		}
		if id%2 == 0 {
			guest.send(wire.AppendShutdown(nil, guest.peer))
			continue
		}
		good.send(wire.AppendShutdown(nil, guest.id), good.lastFrom())
		guest.requireShutdown()
	}
	proxytest.Eventually(t, "all sessions but one end", func() bool { return s.Sessions() == 1 })
	before.Require(t)
	if ends := good.drain(); ends == 0 {
		t.Error("the origin heard of no end")
	}
}

// lastFrom is where the last conclusion came from.
func (o *testOrigin) lastFrom() (from netip.AddrPort) {
	o.tb.Helper()
	from = o.conclusion().from
	for len(o.asked) > 0 {
		from = o.conclusion().from
	}
	return from
}

// drain takes all packets that have come and returns how many shut down.
func (o *testOrigin) drain() (shutdowns int) {
	for len(o.packets) > 0 {
		if wire.IsA((<-o.packets).p, wire.ControlShutdown) {
			shutdowns++
		}
	}
	return shutdowns
}

// A client that floods its own flow with garbage, and an origin that does.
func TestGarbageWithinAFlowHarmsNobody(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	noisy, other := call(t, s.addr, 1).connect("live/a"), call(t, s.addr, 2).connect("live/b")
	from := o.conclusion().from
	random := rand.NewChaCha8([32]byte{2})
	for n := range 5000 {
		p := make([]byte, n%1400)
		_, _ = random.Read(p)
		for _, id := range []uint32{noisy.peer, noisy.id, other.id, 0} {
			if len(p) >= 16 {
				binary.BigEndian.PutUint32(p[12:], id)
				if wire.IsA(p, wire.ControlShutdown) {
					continue
				}
			}
			noisy.send(p)
			if id != other.id {
				o.send(p, from)
			}
		}
	}
	o.send(nil, from)
	o.drain()
	proxytest.Eventually(t, "the other flow goes on", func() bool {
		o.drain()
		other.send(data(other.peer, 1, 'x'))
		for range len(o.packets) {
			if p := o.packet().p; len(p) == 17 && wire.Destination(p) == other.peer && p[16] == 'x' {
				return true
			}
		}
		return false
	})
	if s.Sessions() != 2 {
		t.Errorf("%d sessions; want both", s.Sessions())
	}
}
