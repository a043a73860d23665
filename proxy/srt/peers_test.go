package srt_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/srt"
	"srsx/proxy/srt/wire"
	"srsx/test/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// soon is the 2.5 s that a caller is made to wait at most, on a busy machine.
const soon = 5 * time.Second

// stand is a server of SRT in front of origins.
type stand struct {
	*proxytest.Fixture

	addr     netip.AddrPort
	registry *prometheus.Registry
	stop     func() // ends Serve and waits
}

// serve runs a server until the test ends. The port is that of loopback unless
// listen says otherwise.
func serve(tb testing.TB, listen string, router proxy.RouterConfig, config srt.Config, origins ...*testOrigin) *stand {
	tb.Helper()
	s := &stand{registry: prometheus.NewRegistry()}
	list := make([]lb.Origin, 0, len(origins))
	for _, o := range origins {
		list = append(list, o.origin())
	}
	s.Fixture = proxytest.New(tb, router, list...)
	if listen == "" {
		listen = "127.0.0.1:0"
	}
	port, err := datagram.Listen(context.Background(), listen, "srt")
	if err != nil {
		tb.Fatal(err)
	}
	s.addr = port.Addr()
	config.Opener, config.Log, config.Metrics = s.Router, s.Logger, srt.NewMetrics(s.registry)
	server := srt.NewServer(port, config)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			tb.Errorf("Serve: %v", err)
		}
	})
	tb.Cleanup(s.stop)
	return s
}

// count returns a counter or gauge of the server, the sum over its labels or of
// those series that have the label value.
func (s *stand) count(tb testing.TB, name, label string) float64 {
	tb.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			if label == "" || len(metric.GetLabel()) > 0 && metric.GetLabel()[0].GetValue() == label {
				sum += metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func (s *stand) dropped(tb testing.TB, reason string) int {
	tb.Helper()
	return int(s.count(tb, "srsx_srt_packets_dropped_total", reason))
}

// udp is a socket that reads within a deadline.
type udp struct {
	tb   testing.TB
	conn *net.UDPConn
}

func (u udp) addr() netip.AddrPort { return proxy.AddrPortOf(u.conn.LocalAddr()) }

// next returns the next datagram, nil when there is none in time.
func (u udp) next(within time.Duration) ([]byte, netip.AddrPort) {
	u.tb.Helper()
	b := make([]byte, 1<<16)
	if err := u.conn.SetReadDeadline(time.Now().Add(within)); err != nil {
		u.tb.Fatal(err)
	}
	n, from, err := u.conn.ReadFromUDPAddrPort(b)
	if err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			u.tb.Fatal(err)
		}
		return nil, from
	}
	return b[:n], from
}

// testCaller is a client's socket, with one SRT socket in it.
type testCaller struct {
	udp

	id    uint32
	first uint32 // sequence number
	peer  uint32 // the id of the origin's socket, once connected
}

// quiet is how long a test waits for what must not come.
const quiet = 150 * time.Millisecond

// call opens a client's socket towards a server.
func call(tb testing.TB, to netip.AddrPort, id uint32) *testCaller {
	tb.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return &testCaller{udp: udp{tb, conn}, id: id, first: 1000 + id}
}

// other is another SRT socket at the same address.
func (c *testCaller) other(id uint32) *testCaller {
	return &testCaller{udp: c.udp, id: id, first: 1000 + id}
}

func (c *testCaller) send(p []byte) {
	c.tb.Helper()
	if _, err := c.conn.Write(p); err != nil {
		c.tb.Fatal(err)
	}
}

func (c *testCaller) hello(kind wire.Kind, cookie uint32) wire.Handshake {
	return wire.Handshake{
		Timestamp: 500, Version: 5, Extension: 5, FirstPacket: c.first, MTU: 1500, Window: 8192,
		Kind: kind, SocketID: c.id, Cookie: cookie, Told: wire.Told(netip.MustParseAddr("192.0.2.1")),
	}
}

// await returns the next handshake that is for the caller.
func (c *testCaller) await() (wire.Handshake, []byte) {
	c.tb.Helper()
	for {
		p, _ := c.next(proxytest.Patience)
		if p == nil {
			c.tb.Fatal("no answer to the handshake")
		}
		h, err := wire.ParseHandshake(p)
		if err != nil {
			c.tb.Fatalf("answer %x: %v", p, err)
		}
		if h.Destination == c.id {
			return h, p
		}
	}
}

// induce returns the cookie.
func (c *testCaller) induce() uint32 {
	c.tb.Helper()
	c.send(c.hello(wire.Induction, 0).Inducing().Append(nil))
	h, _ := c.await()
	if !h.Induces() {
		c.tb.Fatalf("answer to the induction = %+v; want one of version 5 with the magic number", h)
	}
	return h.Cookie
}

// conclusion is a conclusion with a stream id, a request for latency, and an
// extension that nobody knows.
func (c *testCaller) conclusion(cookie uint32, streamID string) []byte {
	p := c.hello(wire.Conclusion, cookie).Append(nil)
	p = append(p, 0, 1, 0, 3, 0, 1, 5, 1, 0, 0, 0, 0xbf, 0, 120, 0, 120)
	p = append(p, 0x77, 0x77, 0, 1, 1, 2, 3, 4)
	id := append([]byte(streamID), make([]byte, 3)...)
	id = id[:len(id)/4*4]
	p = append(p, 0, 5, 0, byte(len(id)/4))
	for ; len(id) > 0; id = id[4:] {
		p = append(p, id[3], id[2], id[1], id[0])
	}
	return p
}

// ask does the whole handshake and returns the answer.
func (c *testCaller) ask(streamID string) wire.Handshake {
	c.tb.Helper()
	c.send(c.conclusion(c.induce(), streamID))
	h, _ := c.await()
	if h.Kind == wire.Conclusion {
		c.peer = h.SocketID
	}
	return h
}

// connect does the whole handshake, which has to succeed.
func (c *testCaller) connect(streamID string) *testCaller {
	c.tb.Helper()
	if h := c.ask(streamID); h.Kind != wire.Conclusion {
		c.tb.Fatalf("answer = %+v; want consent", h)
	}
	return c
}

// rejected returns the reason of a rejection.
func (c *testCaller) rejected(h wire.Handshake) wire.Reason {
	c.tb.Helper()
	reason, ok := h.Kind.Rejects()
	if !ok {
		c.tb.Fatalf("answer = %+v; want a rejection", h)
	}
	return reason
}

// data is a data packet.
func data(to uint32, n uint32, payload ...byte) []byte {
	p := binary.BigEndian.AppendUint32(nil, n&^(1<<31))
	p = binary.BigEndian.AppendUint32(p, 0xE0000000|n)
	p = binary.BigEndian.AppendUint32(p, 1000*n)
	p = binary.BigEndian.AppendUint32(p, to)
	return append(p, payload...)
}

// requirePasses sends packets both ways.
func requirePasses(tb testing.TB, c *testCaller, o *testOrigin) {
	tb.Helper()
	up, down := data(c.peer, 1, []byte("up")...), data(c.id, 2, []byte("down")...)
	c.send(up)
	got := o.packet()
	if !bytes.Equal(got.p, up) {
		tb.Fatalf("origin got %x; want %x", got.p, up)
	}
	o.send(down, got.from)
	if p, _ := c.next(proxytest.Patience); !bytes.Equal(p, down) {
		tb.Fatalf("client got %x; want %x", p, down)
	}
}

// requireQuiet checks that nothing comes.
func (c *testCaller) requireQuiet(what string) {
	c.tb.Helper()
	if p, _ := c.next(quiet); p != nil {
		c.tb.Errorf("%s was answered by %x", what, p)
	}
}

// testOrigin speaks as much of SRT as a test needs, and misbehaves on demand.
type testOrigin struct {
	udp

	tcp     net.Listener
	packets chan arrival // all but handshakes
	asked   chan arrival // conclusions

	mu     sync.Mutex
	script script // guarded by mu
	lastID uint32 // guarded by mu
}

type arrival struct {
	p    []byte
	from netip.AddrPort
	at   time.Time
}

// script is how an origin answers; the zero value consents.
type script struct {
	silent    bool      // says nothing at all
	hangs     bool      // answers the induction only
	reject    wire.Kind // refuses, by this kind
	garbage   []byte    // answers this
	id        uint32    // gives its sockets this id; 0: new ones
	greets    [][]byte  // follows its consent at once; for the client's socket
	whenAsked func()    // runs before the answer to a conclusion
}

const firstOriginID = 0x40000000

// startOrigin runs an origin on loopback until the test ends.
func startOrigin(tb testing.TB, s script) *testOrigin {
	tb.Helper()
	return startOriginAt(tb, "127.0.0.1", s)
}

func startOriginAt(tb testing.TB, ip string, s script) *testOrigin {
	tb.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		tb.Fatal(err)
	}
	_ = conn.SetReadBuffer(4 << 20)
	o := &testOrigin{
		udp: udp{tb, conn}, script: s, lastID: firstOriginID,
		packets: make(chan arrival, 1<<16), asked: make(chan arrival, 1<<12),
	}
	// Liveness is probed over TCP.
	if o.tcp, err = net.Listen("tcp", net.JoinHostPort(ip, "0")); err != nil {
		tb.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(o.run)
	running.Go(func() {
		for {
			accepted, err := o.tcp.Accept()
			if err != nil {
				return
			}
			_ = accepted.Close()
		}
	})
	tb.Cleanup(func() {
		_ = conn.Close()
		_ = o.tcp.Close()
		running.Wait()
	})
	return o
}

func (o *testOrigin) origin() lb.Origin {
	origin := proxytest.StaticOrigin(lb.OriginID("o"+o.addr().String()), o.tcp.Addr().String(), "")
	origin.Endpoints.SRT = []string{"udp://" + o.addr().String()}
	return origin
}

func (o *testOrigin) id() lb.OriginID { return o.origin().ID }

// behave replaces the script.
func (o *testOrigin) behave(s script) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.script = s
}

func (o *testOrigin) send(p []byte, to netip.AddrPort) {
	o.tb.Helper()
	if _, err := o.conn.WriteToUDPAddrPort(p, to); err != nil && !errors.Is(err, net.ErrClosed) { // the test is over
		o.tb.Error(err)
	}
}

// packet returns the next packet that is no handshake.
func (o *testOrigin) packet() arrival {
	o.tb.Helper()
	return receive(o.tb, o.packets, "a packet at the origin")
}

// conclusion returns the next conclusion.
func (o *testOrigin) conclusion() arrival {
	o.tb.Helper()
	return receive(o.tb, o.asked, "a conclusion at the origin")
}

func receive(tb testing.TB, from chan arrival, what string) arrival {
	tb.Helper()
	select {
	case a := <-from:
		return a
	case <-time.After(proxytest.Patience):
		tb.Fatalf("%s has not come", what)
		return arrival{}
	}
}

func (o *testOrigin) run() {
	b := make([]byte, 1<<16)
	for {
		n, from, err := o.conn.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if h, err := wire.ParseHandshake(b[:n]); err == nil {
			o.answer(h, arrival{slices.Clone(b[:n]), from, time.Now()})
			continue
		}
		select {
		case o.packets <- arrival{slices.Clone(b[:n]), from, time.Now()}:
		default: // nobody counts
		}
	}
}

const originCookie = 0x0C00C1E5

func (o *testOrigin) answer(h wire.Handshake, a arrival) {
	o.mu.Lock()
	s := o.script
	o.mu.Unlock()
	switch {
	case s.silent:
		return
	case s.garbage != nil:
		answer := slices.Clone(s.garbage)
		if len(answer) >= wire.HeaderSize {
			binary.BigEndian.PutUint32(answer[12:], h.SocketID)
		}
		o.send(answer, a.from)
	case h.Kind == wire.Induction:
		o.send(h.Induced(originCookie).Append(nil), a.from)
	case h.Kind == wire.Conclusion:
		o.asked <- a
		o.conclude(s, h, a)
	}
}

func (o *testOrigin) conclude(s script, h wire.Handshake, a arrival) {
	if s.whenAsked != nil {
		s.whenAsked()
	}
	h.Destination = h.SocketID
	switch {
	case s.hangs:
	case s.reject != 0:
		h.Kind = s.reject
		o.send(h.Append(nil), a.from)
	default:
		caller := h.SocketID
		h.Timestamp, h.SocketID = 900, s.id
		if s.id == 0 {
			o.lastID++
			h.SocketID = o.lastID
		}
		o.send(append(h.Append(nil), a.p[wire.HandshakeSize:]...), a.from)
		for _, greeting := range s.greets {
			binary.BigEndian.PutUint32(greeting[12:], caller)
			o.send(greeting, a.from)
		}
	}
}
