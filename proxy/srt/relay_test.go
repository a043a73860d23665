package srt_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/srt"
	"srsx/proxy/srt/wire"
	"srsx/test/proxytest"
)

// Whatever a packet holds, ciphertext or what no version of SRT has yet.
func TestPacketsPassByteForByte(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	c := call(t, s.addr, 7).connect("#!::r=live/cam,m=publish")
	from := o.conclusion().from
	random := rand.NewChaCha8([32]byte{1})
	for n := range uint32(300) {
		size := 16 + int(n)*5
		for to, id := range map[string]uint32{"origin": c.peer, "client": c.id} {
			p := make([]byte, size)
			_, _ = random.Read(p)
			binary.BigEndian.PutUint32(p[12:], id)
			if wire.IsA(p, wire.ControlShutdown) || wire.IsA(p, wire.ControlHandshake) {
				p[1] = 0xFF
			}
			var got []byte
			if to == "origin" {
				c.send(p)
				got = o.packet().p
			} else {
				o.send(p, from)
				got, _ = c.next(proxytest.Patience)
			}
			if !bytes.Equal(got, p) {
				t.Fatalf("%s got %x; want %x", to, got, p)
			}
		}
	}
}

func TestHandshakePassesButForCookieAddressAndTime(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	c := call(t, s.addr, 7)
	cookie := c.induce()
	said := c.conclusion(cookie, "#!::r=live/cam,m=publish,token=t0")
	c.send(said)
	_, answer := c.await()

	heard := o.conclusion().p
	h, err := wire.ParseHandshake(heard)
	if err != nil || h.Cookie != originCookie || h.Told != wire.Told(o.addr().Addr()) || h.SocketID != 7 {
		t.Errorf("conclusion = %+v, %v; want the origin's cookie and address, the caller's id", h, err)
	}
	if h, _ := wire.ParseHandshake(answer); h.Cookie != cookie || h.Told != wire.Told(c.addr().Addr()) || h.SocketID != firstOriginID+1 {
		t.Errorf("answer = %+v; want the peer's cookie, the client's address, the origin's id", h)
	}
	// The origin answers with the extensions that it got.
	for what, p := range map[string][]byte{"conclusion": heard, "answer": answer} {
		same := slices.Concat(p[16:16+28], p[wire.HandshakeSize:])
		want := slices.Concat(said[16:16+28], said[wire.HandshakeSize:])
		if what == "answer" {
			copy(same[24:28], want[24:28]) // whose socket it is
		}
		if !bytes.Equal(same, want) {
			t.Errorf("%s =\n%x; want\n%x", what, same, want)
		}
	}
}

// A receiver takes the start of its sender's clock from when the conclusion
// comes: what it waited for an origin must not become latency.
func TestConclusionThatWaitedSaysSo(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{})
	c := call(t, s.addr, 7)
	cookie := c.induce()
	sent := time.Now()
	c.send(c.conclusion(cookie, "live/cam"))
	proxytest.Eventually(t, "the handshake waits", func() bool { return s.count(t, "srsx_srt_half_open", "") == 1 })
	time.Sleep(300 * time.Millisecond) // that it waits is what is tested
	if err := s.Balancer.Register(t.Context(), lb.Registration{Origin: o.origin()}); err != nil {
		t.Fatal(err)
	}
	asked := o.conclusion()
	h, err := wire.ParseHandshake(asked.p)
	if err != nil {
		t.Fatal(err)
	}
	told := time.Duration(h.Timestamp-500) * time.Microsecond
	if real := asked.at.Sub(sent); told < 300*time.Millisecond || told > real {
		t.Errorf("the timestamp was moved by %v; it took %v", told, real)
	}
}

func TestEveryFormOfStreamIDFindsItsStream(t *testing.T) {
	vhosts, err := proxy.NewVHosts("own.example.com")
	if err != nil {
		t.Fatal(err)
	}
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{VHosts: vhosts}, o)
	for i, test := range []struct {
		id, stream string
		publish    bool
	}{
		{"live/a", "__defaultVhost__/live/a", false},
		{"b", "__defaultVhost__/live/b", false},
		{"#!::r=live/c", "__defaultVhost__/live/c", false},
		{"#!::r=live/d,m=publish", "__defaultVhost__/live/d", true},
		{"#!::h=live/e,m=publish", "__defaultVhost__/live/e", true},
		{"#!::h=own.example.com,r=live/f,m=publish", "own.example.com/live/f", true},
		{"#!::h=other.example.com,r=live/g,m=request", "__defaultVhost__/live/g", false},
		{"#!::h=own.example.com/live/h,m=publish", "own.example.com/live/h", true},
		{"#!::h=10.0.0.1,r=live/i,m=publish,token=secret", "__defaultVhost__/live/i", true},
		{"#!::r=live/j?vhost=own.example.com&token=secret", "own.example.com/live/j", false},
		{"#!::r=a/b/c,m=publish", "__defaultVhost__/a%2Fb/c", true},
		{"/live/k?k=v", "__defaultVhost__/live/k", false},
	} {
		c := call(t, s.addr, uint32(100+i)).connect(test.id)
		sessions := s.Router.Sessions()
		if len(sessions) != 1 {
			t.Fatalf("%s: %d sessions; want 1", test.id, len(sessions))
		}
		got := sessions[0]
		if got.Stream.String() != test.stream || got.Publish != test.publish || got.Kind != "srt" || got.Client != c.addr() {
			t.Errorf("%s is %+v; want %s, publish %v, from %s", test.id, got, test.stream, test.publish, c.addr())
		}
		if heard, err := wire.StreamIDOf(o.conclusion().p); err != nil || heard != test.id {
			t.Errorf("origin heard %q, %v; want %q", heard, err, test.id)
		}
		c.send(wire.AppendShutdown(nil, c.peer))
		proxytest.Eventually(t, "the session ends", func() bool { return s.Sessions() == 0 })
	}
	if strings.Contains(s.Log.String(), "secret") {
		t.Error("the log tells a token")
	}
}

func TestBytesAreCountedInTheirDirection(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	c := call(t, s.addr, 7).connect("live/cam")
	requirePasses(t, c, o) // "up" and "down"
	c.send(append(wire.AppendControl(nil, 2, 0, c.peer), 1, 2, 3, 4))
	o.packet()
	if got := s.Router.Sessions()[0]; got.BytesIn != 2 || got.BytesOut != 4 {
		t.Errorf("counted %d in, %d out; want 2 and 4, of media only", got.BytesIn, got.BytesOut)
	}
}

// Media that follows the origin's consent at once must reach the client, and
// behind it.
func TestMediaRightBehindTheConsentPasses(t *testing.T) {
	first, second := data(0, 1, 'a'), data(0, 2, 'b')
	o := startOrigin(t, script{greets: [][]byte{first, second}})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	for id := range uint32(50) {
		c := call(t, s.addr, 100+id).connect("live/cam")
		for n, payload := range []byte("ab") {
			if p, _ := c.next(proxytest.Patience); len(p) != 17 || p[16] != payload {
				t.Fatalf("packet %d behind the consent = %x; want %q", n+1, p, payload)
			}
		}
	}
}

func TestFlowsShareASocketUnlessTheirIDsCollide(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	var flows []*testCaller
	sockets := make(map[netip.AddrPort]int)
	for _, id := range []uint32{1, 2, 3, 3, 3} {
		flows = append(flows, call(t, s.addr, id).connect("live/cam"))
		sockets[o.conclusion().from]++
	}
	if len(sockets) != 3 {
		t.Errorf("5 flows, of which 3 have one id, use %d sockets; want 3", len(sockets))
	}
	for _, c := range flows {
		requirePasses(t, c, o)
	}
}

func TestOriginsThatChooseTheSameID(t *testing.T) {
	a, b := startOrigin(t, script{id: 99}), startOrigin(t, script{id: 99})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, a, b)
	flows := make(map[lb.OriginID]*testCaller)
	for n := range uint32(8) {
		c := call(t, s.addr, 10+n).connect("live/s" + string('a'+rune(n)))
		flows[s.Router.Sessions()[n].Origin] = c
	}
	if len(flows) != 2 {
		t.Fatalf("streams are on %d origins; want 2", len(flows))
	}
	requirePasses(t, flows[a.id()], a)
	requirePasses(t, flows[b.id()], b)
}

// Two flows of one address to sockets of one id could not be told apart.
func TestOneAddressAndOneIDTwiceIsRefused(t *testing.T) {
	a, b := startOrigin(t, script{id: 99}), startOrigin(t, script{id: 99})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, a)
	c := call(t, s.addr, 1).connect("live/a")
	if err := s.Balancer.Register(t.Context(), lb.Registration{Origin: b.origin()}); err != nil {
		t.Fatal(err)
	}
	second := c.other(2)
	if reason := second.rejected(second.ask("live/b")); reason != wire.BadGateway {
		t.Errorf("second flow was refused for %s; want %s", reason, wire.BadGateway)
	}
	if asked := len(b.asked); asked != 4 {
		t.Errorf("the origin was asked %d times; want 4", asked)
	}
	second.peer = 99
	for range 4 { // it learns that its consent came to nothing
		b.requireShutdown(second)
	}
	if s.Sessions() != 1 {
		t.Errorf("%d sessions; want the first", s.Sessions())
	}
	requirePasses(t, c, a)
}

func TestIPv6OnBothSides(t *testing.T) {
	o := startOriginAt(t, "::1", script{})
	s := serve(t, "[::1]:0", proxy.RouterConfig{}, srt.Config{}, o)
	c := call(t, s.addr, 7).connect("live/cam")
	if h, _ := wire.ParseHandshake(o.conclusion().p); h.Told != wire.Told(netip.IPv6Loopback()) {
		t.Errorf("the origin was told the address %x", h.Told)
	}
	requirePasses(t, c, o)
}

// A host with several addresses answers from the one that was asked, over IPv4
// and IPv6 at one port.
func TestAnswersComeFromTheAddressThatWasAsked(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, ":0", proxy.RouterConfig{}, srt.Config{}, o)
	for i, ip := range []string{"127.0.0.1", "127.0.0.2", "127.9.9.9", "::1"} {
		// The socket is connected: it takes nothing from another address.
		c := call(t, netip.AddrPortFrom(netip.MustParseAddr(ip), s.addr.Port()), uint32(10+i)).connect("live/cam")
		requirePasses(t, c, o)
	}
	for _, session := range s.Router.Sessions() {
		if session.Client.Addr().Is4In6() {
			t.Errorf("client = %s; want an address of IPv4", session.Client)
		}
	}
}
