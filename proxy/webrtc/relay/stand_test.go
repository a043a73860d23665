package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"iter"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	pion "github.com/pion/stun/v4"
	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/webrtc/ufrag"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

var (
	key    = ufrag.Key{1, 2, 3}
	stream = lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "cam"}
)

// bench is a relay between an origin, which is a plain socket, and clients. Its
// clock and its sweeps are the test's.
type bench struct {
	*Relay

	lb     *fakeLB
	front  netip.AddrPort
	origin *net.UDPConn
	asked  chan string // questions to peers
	told   chan Ticket // Ended

	answering sync.Mutex
	answer    func(q []byte) []byte // guarded by answering
}

// answers has the other peers answer questions.
func (b *bench) answers(answer func(q []byte) []byte) {
	b.answering.Lock()
	defer b.answering.Unlock()
	b.answer = answer
}

// fakeLB is a balancer with one origin and what a router makes of it.
type fakeLB struct {
	mu       sync.Mutex
	origin   lb.Origin          // guarded by mu
	placed   map[lb.Stream]bool // guarded by mu
	sessions []*fakeSession     // guarded by mu
	refusal  error              // guarded by mu
}

type fakeSession struct {
	request proxy.Request
	origin  lb.Origin
	ctx     context.Context //nolint:containedctx // what a session hands out
	cancel  context.CancelCauseFunc

	mu    sync.Mutex
	ended bool
	err   error
	in    int64
	out   int64
}

func (s *fakeSession) Context() context.Context               { return s.ctx }
func (s *fakeSession) Origin() lb.Origin                      { return s.origin }
func (*fakeSession) Dial(context.Context) (net.Conn, error)   { panic("no dial") }
func (*fakeSession) Unreachable(context.Context, error) error { panic("no dial") }
func (s *fakeSession) Count(in, out int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.in, s.out = s.in+in, s.out+out
}

func (s *fakeSession) End(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended, s.err = true, err
	}
	s.cancel(context.Canceled)
}

func (s *fakeSession) end() (ended bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended, s.err
}

func (f *fakeLB) Open(ctx context.Context, r proxy.Request) (proxy.Session, error) {
	s, err := f.open(ctx, r)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (f *fakeLB) open(ctx context.Context, r proxy.Request) (*fakeSession, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refusal != nil {
		return nil, f.refusal
	}
	s := &fakeSession{request: r, origin: f.origin}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	f.sessions = append(f.sessions, s)
	return s, nil
}

func (f *fakeLB) opened() []*fakeSession {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*fakeSession(nil), f.sessions...)
}

func (f *fakeLB) Origin(id lb.OriginID) (lb.OriginStatus, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return lb.OriginStatus{Origin: f.origin}, id == f.origin.ID
}

func (f *fakeLB) Origins() []lb.OriginStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	return []lb.OriginStatus{{Origin: f.origin}}
}

// place places a stream on the origin.
func (f *fakeLB) place(s lb.Stream) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.placed[s] = true
}

// serveAt changes where the origin takes media.
func (f *fakeLB) serveAt(endpoint string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.origin.Endpoints.RTC = []string{endpoint}
}

func (f *fakeLB) Lookup(s lb.Stream) (lb.Placement, lb.Origin, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return lb.Placement{Stream: s, Origin: f.origin.ID}, f.origin, f.placed[s]
}

func (f *fakeLB) Placements() iter.Seq[lb.PlacementStatus] {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []lb.PlacementStatus
	for s := range f.placed {
		list = append(list, lb.PlacementStatus{Placement: lb.Placement{Stream: s, Origin: f.origin.ID}})
	}
	return func(yield func(lb.PlacementStatus) bool) {
		for _, p := range list {
			if !yield(p) {
				return
			}
		}
	}
}

// newBench makes a relay whose front listens at addr until the test ends.
func newBench(tb testing.TB, addr string, config Config) *bench {
	tb.Helper()
	b := &bench{asked: make(chan string, 1000), told: make(chan Ticket, 10)}
	origin, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		tb.Fatal(err)
	}
	b.origin = origin
	b.lb = &fakeLB{placed: map[lb.Stream]bool{stream: true}, origin: lb.Origin{
		ID: "o", Incarnation: lb.Incarnation{Server: "o", Service: "s", PID: "1"},
		Endpoints: lb.Endpoints{RTC: []string{"udp://" + origin.LocalAddr().String()}},
	}}
	config.Opener, config.Finder = b.lb, b.lb
	config.Key = func() ufrag.Key { return key }
	config.Ask = func(_ context.Context, q []byte) []byte {
		b.asked <- string(q)
		b.answering.Lock()
		defer b.answering.Unlock()
		if b.answer == nil {
			return nil
		}
		return b.answer(q)
	}
	config.Ended = func(t Ticket) { b.told <- t }
	b.Relay = New(config)
	socket, err := datagram.Listen(context.Background(), addr, "rtc")
	if err != nil {
		tb.Fatal(err)
	}
	b.front = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), socket.Addr().Port())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := b.ServeUDP(socket); err != nil {
			tb.Errorf("ServeUDP: %v", err)
		}
	})
	tb.Cleanup(func() {
		_ = socket.Close()
		serving.Wait()
		b.shut()
		_ = origin.Close()
	})
	return b
}

// pass lets time pass by the relay's clock.
func (b *bench) pass(d time.Duration) { b.clock.Add(int64(d)) }

// look sweeps at the relay's time.
func (b *bench) look() { b.sweep(time.Unix(0, b.clock.Load())) }

// ticket makes a session with a routing ufrag.
func (b *bench) ticket(publish bool) Ticket {
	print := proxy.FingerprintOf(b.lb.origin.ID, b.lb.origin.Incarnation)
	name, password := key.Make(ufrag.Route{Origin: print.Short(), Stream: ufrag.HashStream(stream), Publish: publish}, time.Now().Add(time.Hour))
	return Ticket{
		ID: name, Ufrag: name, Password: password, Origin: "o", Incarnation: print,
		Stream: stream, Publish: publish, Kind: "whip", Resource: "/rtc/v1/whip/?session=x",
	}
}

// client is one address of a client.
type client struct {
	tb   testing.TB
	conn *net.UDPConn
	to   netip.AddrPort
}

func (b *bench) client(tb testing.TB) *client {
	tb.Helper()
	return newClient(tb, "127.0.0.1", b.front)
}

func newClient(tb testing.TB, ip string, to netip.AddrPort) *client {
	tb.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(ip)})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return &client{tb: tb, conn: conn, to: to}
}

func (c *client) send(b []byte) {
	c.tb.Helper()
	if _, err := c.conn.WriteToUDPAddrPort(b, c.to); err != nil {
		c.tb.Fatal(err)
	}
}

// receive returns the next datagram and who sent it.
func receive(tb testing.TB, conn *net.UDPConn) ([]byte, netip.AddrPort) {
	tb.Helper()
	b := make([]byte, 65536)
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	n, from, err := conn.ReadFromUDPAddrPort(b)
	if err != nil {
		tb.Fatalf("receive: %v", err)
	}
	return b[:n], netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
}

type useCandidate struct{}

func (useCandidate) AddTo(m *pion.Message) error {
	m.Add(pion.AttrUseCandidate, nil)
	return nil
}

// check is a client's connectivity check.
func check(tb testing.TB, t Ticket, more ...pion.Setter) []byte {
	tb.Helper()
	setters := append([]pion.Setter{pion.TransactionID, pion.BindingRequest, pion.NewUsername(t.Ufrag + ":client")}, more...)
	m, err := pion.Build(append(setters, pion.NewShortTermIntegrity(t.Password), pion.Fingerprint)...)
	if err != nil {
		tb.Fatal(err)
	}
	return m.Raw
}

// success is the origin's answer to a check.
func success(tb testing.TB, request []byte) []byte {
	tb.Helper()
	m := &pion.Message{Raw: request}
	if err := m.Decode(); err != nil {
		tb.Fatal(err)
	}
	answer, err := pion.Build(m, pion.BindingSuccess, pion.Fingerprint)
	if err != nil {
		tb.Fatal(err)
	}
	return answer.Raw
}

// media is something that looks like RTP.
func media(n int) []byte {
	b := make([]byte, 100)
	b[0] = 0x80
	binary.BigEndian.PutUint32(b[4:], uint32(n))
	return b
}

// join has a client's address prove itself and returns where the origin sees it.
func (b *bench) join(tb testing.TB, c *client, t Ticket, more ...pion.Setter) netip.AddrPort {
	tb.Helper()
	request := check(tb, t, more...)
	c.send(request)
	got, from := receive(tb, b.origin)
	if !bytes.Equal(got, request) {
		tb.Fatalf("the origin got %x; want the check %x", got, request)
	}
	b.originSends(tb, from, success(tb, request))
	if got, _ := receive(tb, c.conn); !bytes.Equal(got, success(tb, request)) {
		tb.Fatalf("the client got %x; want the answer to its check", got)
	}
	return from
}

func (b *bench) originSends(tb testing.TB, to netip.AddrPort, what []byte) {
	tb.Helper()
	if _, err := b.origin.WriteToUDPAddrPort(what, to); err != nil {
		tb.Fatal(err)
	}
}

func eventually(tb testing.TB, what string, is func() bool) {
	tb.Helper()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func addrOf(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func (b *bench) dropped(why drop) int64 { return b.drops[why].Load() }
