package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
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
	at := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr))
	conn, err := net.ListenUDP("udp", at)
	if err != nil {
		tb.Fatal(err)
	}
	b.front = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), proxy.AddrPortOf(conn.LocalAddr()).Port())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := b.ServeUDP(conn); err != nil {
			tb.Errorf("ServeUDP: %v", err)
		}
	})
	tb.Cleanup(func() {
		_ = conn.Close()
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

func TestCheckOpensAFlowAndMediaPassesUnchanged(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c, ticket := b.client(t), b.ticket(true)
	at := b.join(t, c, ticket)
	for _, first := range []byte{20, 22, 63, 128, 144, 191} { // DTLS, SRTP and SRTCP
		what := append([]byte{first}, random(1200)...)
		c.send(what)
		if got, from := receive(t, b.origin); !bytes.Equal(got, what) || from != at {
			t.Errorf("the origin got %d bytes from %v; want what the client sent, from %v", len(got), from, at)
		}
		b.originSends(t, at, what)
		if got, from := receive(t, c.conn); !bytes.Equal(got, what) || from != b.front {
			t.Errorf("the client got %d bytes from %v; want what the origin sent, from %v", len(got), from, b.front)
		}
	}
}

// Two sessions have two addresses at the origin, which tells them apart by that.
func TestEachSessionHasItsOwnAddressAtTheOrigin(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c, d := b.client(t), b.client(t)
	if first, second := b.join(t, c, b.ticket(true)), b.join(t, d, b.ticket(false)); first == second {
		t.Errorf("both sessions come from %v", first)
	}
	if n := b.Flows(); n != 2 {
		t.Errorf("Flows = %d; want 2", n)
	}
}

// Nothing that does not know the password gets anywhere, or an answer.
func TestStrangersLeaveNothing(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(true)
	valid := check(t, ticket, useCandidate{})
	wrong := ticket
	wrong.Password += "x"
	forged := ticket
	forged.Ufrag = "a" + ticket.Ufrag[1:]
	if forged.Ufrag == ticket.Ufrag {
		forged.Ufrag = "b" + ticket.Ufrag[1:]
	}
	elsewhere := ticket
	name, password := key.Make(ufrag.Route{Origin: proxy.ShortPrint{9}}, time.Now().Add(time.Hour))
	elsewhere.Ufrag, elsewhere.Password = name, password
	expired := ticket
	expired.Ufrag, expired.Password = key.Make(ufrag.Route{
		Origin: ticket.Incarnation.Short(), Stream: ufrag.HashStream(stream),
	}, time.Now().Add(-time.Hour))
	noName, _ := pion.Build(pion.TransactionID, pion.BindingRequest, pion.NewShortTermIntegrity(ticket.Password), pion.Fingerprint)
	noColon, _ := pion.Build(pion.TransactionID, pion.BindingRequest, pion.NewUsername(ticket.Ufrag),
		pion.NewShortTermIntegrity(ticket.Password), pion.Fingerprint)
	noIntegrity, _ := pion.Build(pion.TransactionID, pion.BindingRequest, pion.NewUsername(ticket.Ufrag+":c"), pion.Fingerprint)
	allocate, _ := pion.Build(pion.TransactionID, pion.NewType(pion.MethodAllocate, pion.ClassRequest), pion.NewUsername(ticket.Ufrag+":c"),
		pion.NewShortTermIntegrity(ticket.Password), pion.Fingerprint)
	cases := map[string][]byte{
		"empty": {}, "one byte": {0}, "DTLS": append([]byte{22, 0xfe, 0xfd}, random(100)...), "RTP": media(1), "RTCP": append([]byte{0x80, 201}, random(30)...),
		"TURN": append([]byte{0x40, 0}, random(30)...), "other": random(1)[:0:0], "long": append([]byte{0x80}, random(maxDatagram)...),
		"wrong password": check(t, wrong), "forged ufrag": check(t, forged), "origin unknown": check(t, elsewhere), "expired": check(t, expired),
		"no user name": noName.Raw, "user name of one half": noColon.Raw, "no integrity": noIntegrity.Raw, "other method": allocate.Raw,
		"answer": success(t, valid), "no fingerprint": valid[:len(valid)-8], "huge": append([]byte{0}, random(60000)...),
	}
	for n := range valid {
		cases[fmt.Sprintf("first %d bytes", n)] = valid[:n]
	}
	c := b.client(t)
	for _, what := range cases {
		c.send(what)
	}
	// When this one comes through, all the others have been looked at.
	b.join(t, c, ticket)
	other := b.client(t) // now that there is a flow
	for _, what := range cases {
		other.send(what)
	}
	b.join(t, c, ticket)
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(b.open) != 1 || len(b.paths) != 1 || len(b.flows) != 1 {
		t.Errorf("%d flows, %d paths, %d ufrags; want 1 of each", len(b.open), len(b.paths), len(b.flows))
	}
	for _, why := range []drop{dropOther, dropLong, dropMalformed, dropStranger, dropUnknown, dropIntegrity} {
		if b.dropped(why) == 0 {
			t.Errorf("nothing was dropped as %s", why)
		}
	}
}

// A hundred thousand addresses cost nothing, whatever they send.
func TestFloodFromFreshAddressesKeepsNothing(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	wrong := b.ticket(true)
	wrong.Password += "x"
	unknown := Ticket{Ufrag: "abcdefgh", Password: wrong.Password}
	datagrams := [][]byte{check(t, wrong), check(t, unknown), media(1), random(200)}
	socket := &socket{}
	for i := range 100_000 {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		for _, datagram := range datagrams {
			from := source{socket: socket, key: pathKey{remote: netip.AddrPortFrom(addr, uint16(i))}}
			if p := b.fromClient(from, nil, datagram); p != nil {
				t.Fatal("a stranger has a path")
			}
		}
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if n := len(b.open) + len(b.paths) + len(b.flows) + len(b.expected) + len(b.ended) + len(b.opening); n != 0 {
		t.Errorf("%d things are kept; want none", n)
	}
	if n := len(b.asked); n > questionBurst+questionRate*int(patience/time.Second) || n == 0 {
		t.Errorf("the peers were asked %d times", n)
	}
}

func TestAnswerGoesWhereTheCheckCameFrom(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(true)
	var clients []*client
	var checks [][]byte
	var at netip.AddrPort
	for range 5 {
		c := b.client(t)
		request := check(t, ticket)
		c.send(request)
		_, at = receive(t, b.origin)
		clients, checks = append(clients, c), append(checks, request)
	}
	for i := range checks { // in another order than they came
		i = len(checks) - 1 - i
		b.originSends(t, at, success(t, checks[i]))
	}
	for i, c := range clients {
		if got, _ := receive(t, c.conn); !bytes.Equal(got, success(t, checks[i])) {
			t.Errorf("client %d got the answer to another's check", i)
		}
	}
	// An answer is for one request, and one nobody asked for is for nobody.
	b.originSends(t, at, success(t, checks[0]))
	b.originSends(t, at, success(t, check(t, ticket)))
	b.originSends(t, at, media(7))
	if got, _ := receive(t, clients[0].conn); !bytes.Equal(got, media(7)) {
		t.Errorf("the first client got %x; want the media that came after", got)
	}
}

func TestMediaGoesWhereTheClientNominates(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(false)
	first, second, third := b.client(t), b.client(t), b.client(t)
	at := b.join(t, first, ticket)
	arrives := func(c *client, n int, why string) {
		t.Helper()
		b.originSends(t, at, media(n))
		if got, _ := receive(t, c.conn); !bytes.Equal(got, media(n)) {
			t.Fatalf("%s: got %x; want media %d", why, got, n)
		}
	}
	arrives(first, 1, "the only path")
	b.join(t, second, ticket)
	arrives(first, 2, "nothing is nominated, nothing was sent by the second")
	second.send(media(3))
	receive(t, b.origin)
	arrives(second, 4, "the client sends by the second")
	b.join(t, third, ticket, useCandidate{})
	arrives(third, 5, "the third is nominated")
	b.join(t, first, ticket)
	first.send(media(6))
	receive(t, b.origin)
	arrives(third, 7, "the nomination stands")
	b.join(t, second, ticket, useCandidate{})
	arrives(second, 8, "nominated anew")
}

// A client whose address changed below it goes on from the new one, soon by its
// media and later by its checks alone.
func TestFlowFollowsAChangedAddress(t *testing.T) {
	for name, c := range map[string]struct {
		silence time.Duration
		media   bool
		follows bool
	}{
		"media soon": {mediaSilence / 2, true, false}, "media": {mediaSilence * 2, true, true},
		"check soon": {checkSilence / 2, false, false}, "check": {checkSilence * 2, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "127.0.0.1:0", Config{})
			ticket := b.ticket(false)
			before, after := b.client(t), b.client(t)
			at := b.join(t, before, ticket, useCandidate{})
			b.pass(c.silence)
			after.send(media(1))
			b.join(t, after, ticket)
			if c.media {
				after.send(media(2))
				if got, _ := receive(t, b.origin); !bytes.Equal(got, media(2)) {
					t.Fatalf("the origin got %x; want what came after the address proved itself", got)
				}
			}
			b.originSends(t, at, media(3))
			to := before
			if c.follows {
				to = after
			}
			if got, _ := receive(t, to.conn); !bytes.Equal(got, media(3)) {
				t.Errorf("got %x; want the origin's media", got)
			}
		})
	}
}

// A check that was seen on the wire is no use from elsewhere.
func TestReplayedCheckIsDropped(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(false)
	c, thief := b.client(t), b.client(t)
	at := b.join(t, c, ticket)
	request := check(t, ticket, useCandidate{})
	c.send(request)
	receive(t, b.origin)
	thief.send(request)
	eventually(t, "the replay is counted", func() bool { return b.dropped(dropReplay) == 1 })
	c.send(request) // the client may repeat it
	if got, _ := receive(t, b.origin); !bytes.Equal(got, request) {
		t.Errorf("the origin got %x; want the repeated check", got)
	}
	b.originSends(t, at, media(1))
	if got, _ := receive(t, c.conn); !bytes.Equal(got, media(1)) {
		t.Errorf("the client got %x; want the media", got)
	}
}

func TestPathsOfAClientAreBounded(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(false)
	chosen := b.client(t)
	at := b.join(t, chosen, ticket, useCandidate{})
	var others []*client
	for range 3 * maxPaths {
		b.pass(tick)
		c := b.client(t)
		b.join(t, c, ticket)
		others = append(others, c)
	}
	b.mu.RLock()
	paths := len(b.paths)
	b.mu.RUnlock()
	if paths != maxPaths {
		t.Errorf("%d paths; want %d", paths, maxPaths)
	}
	others[0].send(media(1)) // one that had to go is a stranger
	eventually(t, "its media is dropped", func() bool { return b.dropped(dropStranger) == 1 })
	b.originSends(t, at, media(2))
	if got, _ := receive(t, chosen.conn); !bytes.Equal(got, media(2)) {
		t.Errorf("the chosen path got %x; want the media", got)
	}
	b.pass(pathTime + time.Second)
	b.join(t, chosen, ticket)
	b.look()
	b.mu.RLock()
	defer b.mu.RUnlock()
	if len(b.paths) != 1 {
		t.Errorf("%d paths a minute later; want the one that lives", len(b.paths))
	}
}

// A browser tab may use its port for the next session.
func TestPortIsUsedForAnotherSession(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c := b.client(t)
	first := b.join(t, c, b.ticket(true))
	second := b.join(t, c, b.ticket(true))
	c.send(media(1))
	if _, from := receive(t, b.origin); from != second {
		t.Errorf("media comes from %v; want the second session's %v, not the first's %v", from, second, first)
	}
	b.originSends(t, first, media(2)) // nobody listens there any more
	b.originSends(t, second, media(3))
	if got, _ := receive(t, c.conn); !bytes.Equal(got, media(3)) {
		t.Errorf("got %x; want the second session's media", got)
	}
}

// A socket at all addresses answers from the one that was asked.
func TestAnswersLeaveFromTheAddressThatWasAsked(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:0", "[::]:0"} {
		b := newBench(t, listen, Config{})
		ticket := b.ticket(true)
		var at netip.AddrPort
		for _, ip := range []string{"127.0.0.1", "127.0.0.2", "127.3.3.3"} {
			c := newClient(t, "127.0.0.1", netip.AddrPortFrom(netip.MustParseAddr(ip), b.front.Port()))
			request := check(t, ticket, useCandidate{})
			c.send(request)
			_, at = receive(t, b.origin)
			b.originSends(t, at, success(t, request))
			if _, from := receive(t, c.conn); from != c.to {
				t.Errorf("%s: answer from %v; want %v", listen, from, c.to)
			}
			b.originSends(t, at, media(1))
			if _, from := receive(t, c.conn); from != c.to {
				t.Errorf("%s: media from %v; want %v", listen, from, c.to)
			}
		}
	}
}

func TestIPv6(t *testing.T) {
	b := newBench(t, "[::]:0", Config{})
	c := newClient(t, "::1", netip.AddrPortFrom(netip.MustParseAddr("::1"), b.front.Port()))
	ticket := b.ticket(true)
	request := check(t, ticket)
	c.send(request)
	_, at := receive(t, b.origin)
	b.originSends(t, at, success(t, request))
	if got, from := receive(t, c.conn); !bytes.Equal(got, success(t, request)) || from != c.to {
		t.Errorf("got %x from %v; want the answer from %v", got, from, c.to)
	}
}

func TestSteadyMediaAllocatesNothing(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c, ticket := b.client(t), b.ticket(true)
	b.join(t, c, ticket, useCandidate{})
	b.mu.RLock()
	var p *path
	for _, p = range b.paths {
	}
	b.mu.RUnlock()
	from := source{key: p.key, socket: p.socket}
	up, down := media(1), media(2)
	request := check(t, ticket, useCandidate{})
	for name, pass := range map[string]func(){
		"from the client": func() { b.fromClient(from, p, up) },
		"from the origin": func() { p.flow.fromOrigin(down) },
		"a check":         func() { b.fromClient(from, p, request) },
	} {
		pass()
		if n := testing.AllocsPerRun(200, pass); n > 0 {
			t.Errorf("%s: %v allocations a datagram; want none", name, n)
		}
	}
}

func TestOriginsChecksReachTheClient(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(false)
	first, second := b.client(t), b.client(t)
	at := b.join(t, first, ticket)
	b.join(t, second, ticket)
	own, _ := pion.Build(pion.TransactionID, pion.BindingRequest, pion.NewUsername("client:"+ticket.Ufrag), pion.NewShortTermIntegrity("theirs"), pion.Fingerprint)
	b.originSends(t, at, own.Raw)
	for _, c := range []*client{first, second} { // any of the two may be what works
		if got, _ := receive(t, c.conn); !bytes.Equal(got, own.Raw) {
			t.Errorf("got %x; want the origin's check", got)
		}
	}
	second.send(success(t, own.Raw))
	if got, _ := receive(t, b.origin); !bytes.Equal(got, success(t, own.Raw)) {
		t.Errorf("the origin got %x; want the client's answer", got)
	}
}

// What an origin sends that is nothing of WebRTC stays here.
func TestOriginSendsNonsense(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c := b.client(t)
	at := b.join(t, c, b.ticket(false))
	for _, what := range [][]byte{{}, {0}, {64, 1, 2}, append([]byte{0}, random(40)...), random(1)[:0]} {
		b.originSends(t, at, what)
	}
	b.originSends(t, at, append([]byte{0x80}, random(maxDatagram+100)...)) // cut off
	b.originSends(t, at, media(1))
	got, _ := receive(t, c.conn)
	if !bytes.Equal(got, media(1)) {
		t.Errorf("the client got %d bytes; want the media", len(got))
	}
}

// An origin whose port is closed for a moment loses no session.
func TestOriginsPortMayCloseForAMoment(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c := b.client(t)
	at := b.join(t, c, b.ticket(true))
	addr := net.UDPAddrFromAddrPort(proxy.AddrPortOf(b.origin.LocalAddr()))
	_ = b.origin.Close()
	for range 20 { // each is refused by ICMP
		c.send(media(1))
		time.Sleep(time.Millisecond)
	}
	again, err := net.ListenUDP("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	b.origin = again
	t.Cleanup(func() { _ = again.Close() })
	c.send(media(2))
	eventually(t, "media comes as before", func() bool {
		got, from := receive(t, again)
		return bytes.Equal(got, media(2)) && from == at
	})
}
