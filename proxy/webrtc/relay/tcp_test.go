package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	pion "github.com/pion/stun/v4"

	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/webrtc/stun"
)

// overTCP has the bench take connections, too, and returns where.
func (b *bench) overTCP(tb testing.TB) string {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := b.ServeTCP(ctx, ln); err != nil {
			tb.Errorf("ServeTCP: %v", err)
		}
	})
	tb.Cleanup(func() {
		_ = ln.Close()
		cancel()
		serving.Wait()
	})
	return ln.Addr().String()
}

func dial(tb testing.TB, addr string) *framed {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = conn.Close() })
	return newFramed(conn)
}

func (f *framed) next(tb testing.TB) []byte {
	tb.Helper()
	b := make([]byte, maxDatagram)
	_ = f.SetReadDeadline(time.Now().Add(patience))
	n, err := f.read(b)
	if err != nil {
		tb.Fatalf("read over TCP: %v", err)
	}
	return b[:n]
}

func put(tb testing.TB, f *framed, b []byte) {
	tb.Helper()
	if _, err := f.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...)); err != nil {
		tb.Fatalf("write over TCP: %v", err)
	}
}

func requireClosed(tb testing.TB, f *framed) {
	tb.Helper()
	_ = f.SetReadDeadline(time.Now().Add(patience))
	if n, err := f.read(make([]byte, maxDatagram)); err == nil {
		tb.Errorf("got %d bytes; want the end", n)
	} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() { //nolint:errorlint // as it comes from the connection
		tb.Error("the connection stays open")
	}
}

func TestClientOverTCP(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c, ticket := dial(t, b.overTCP(t)), b.ticket(true)
	request := check(t, ticket, useCandidate{})
	put(t, c, request)
	got, at := receive(t, b.origin)
	if !bytes.Equal(got, request) {
		t.Fatalf("the origin got %x; want the check", got)
	}
	b.originSends(t, at, success(t, request))
	if got := c.next(t); !bytes.Equal(got, success(t, request)) {
		t.Errorf("the client got %x; want the answer", got)
	}
	for _, n := range []int{1, 100, 1200, maxDatagram} {
		what := append([]byte{0x80}, random(n-1)...)
		put(t, c, what)
		if got, _ := receive(t, b.origin); !bytes.Equal(got, what) {
			t.Errorf("the origin got %d bytes; want %d", len(got), n)
		}
		b.originSends(t, at, what)
		if got := c.next(t); !bytes.Equal(got, what) {
			t.Errorf("the client got %d bytes; want %d", len(got), n)
		}
	}
	// The end of the connection is not that of the session, which may have others.
	_ = c.Close()
	eventually(t, "the path goes", func() bool {
		b.mu.RLock()
		defer b.mu.RUnlock()
		for f := range b.open {
			return f.selected.Load() == nil
		}
		return false
	})
	b.join(t, b.client(t), ticket)
}

// A client or an origin over TCP that reads nothing loses its own media, and no
// other waits for it.
func TestWhoReadsNothingOverTCPHoldsUpNobody(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	stuck, ticket := dial(t, b.overTCP(t)), b.ticket(false)
	put(t, stuck, check(t, ticket, useCandidate{}))
	_, stuckAt := receive(t, b.origin)

	ln, err := net.Listen("tcp", "127.0.0.1:0") // an origin that accepts, and no more
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	udp := "udp://" + b.origin.LocalAddr().String()
	b.lb.serveAt("tcp://" + ln.Addr().String())
	late, lateTicket := b.client(t), b.ticket(true)
	eventually(t, "the origin is reached", func() bool {
		late.send(check(t, lateTicket, useCandidate{}))
		return b.Flows() == 2
	})
	late.send(check(t, lateTicket, useCandidate{})) // the one that opens its path
	b.lb.serveAt(udp)
	other := b.client(t)
	otherAt := b.join(t, other, b.ticket(true), useCandidate{})

	flood := append([]byte{0x80}, random(1199)...)
	// What the connections themselves hold has to be full first.
	eventually(t, "as much waits as may", func() bool {
		for range 100 {
			b.originSends(t, stuckAt, flood)
			late.send(flood)
		}
		waiting := b.waiting()
		return len(waiting) == 2 && min(waiting[0], waiting[1]) > maxQueue-2*maxDatagram
	})
	b.originSends(t, otherAt, media(1))
	if got, _ := receive(t, other.conn); !bytes.Equal(got, media(1)) {
		t.Errorf("the other client got %d bytes; want its media", len(got))
	}
	if waiting := b.waiting(); max(waiting[0], waiting[1]) > maxQueue {
		t.Errorf("%d bytes wait; want at most %d", waiting, maxQueue)
	}
}

// waiting returns how many bytes wait for each connection of TCP.
func (b *bench) waiting() (waiting []int) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	add := func(f *framed) {
		f.mu.Lock()
		defer f.mu.Unlock()
		waiting = append(waiting, len(f.frames))
	}
	for f := range b.open {
		for _, p := range f.paths {
			if p.conn != nil {
				add(p.conn)
			}
		}
		if up, ok := f.upstream.(tcpUpstream); ok {
			add(up.framed)
		}
	}
	return waiting
}

func TestFlowsEndClosesItsConnections(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c, ticket := dial(t, b.overTCP(t)), b.ticket(true)
	put(t, c, check(t, ticket))
	receive(t, b.origin)
	b.endHere(ticket.ID)
	requireClosed(t, c)
}

// The port number of a client over TCP may be that of another over UDP.
func TestTCPAndUDPFromOnePort(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c, ticket := dial(t, b.overTCP(t)), b.ticket(true)
	put(t, c, check(t, ticket))
	receive(t, b.origin)
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(proxy.AddrPortOf(c.LocalAddr())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	other := &client{tb: t, conn: conn, to: b.front}
	other.send(media(1))
	eventually(t, "media of a stranger is dropped", func() bool { return b.dropped(dropStranger) == 1 })
	second := b.join(t, other, b.ticket(true))
	put(t, c, media(2))
	if got, from := receive(t, b.origin); !bytes.Equal(got, media(2)) || from == second {
		t.Errorf("the origin got %x from %v; want the first session's media", got, from)
	}
}

// Connections that do not prove themselves end, and so do those that send
// nonsense; none holds up another.
func TestStrangersOverTCP(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	addr, ticket := b.overTCP(t), b.ticket(true)
	wrong := ticket
	wrong.Password += "x"
	for name, what := range map[string][]byte{
		"frame of 65535":     binary.BigEndian.AppendUint16(nil, 65535),
		"frame just too big": binary.BigEndian.AppendUint16(nil, maxDatagram+1),
		"HTTP":               []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"empty frames":       make([]byte, 2*strayFrames),
		"wrong password": slices.Concat(slices.Repeat([][]byte{
			binary.BigEndian.AppendUint16(nil, uint16(len(check(t, wrong)))), check(t, wrong),
		}, strayFrames)...),
	} {
		c := dial(t, addr)
		if _, err := c.Write(what); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		requireClosed(t, c)
	}
	slow := dial(t, addr)
	_, _ = slow.Write([]byte{0})
	c := dial(t, addr)
	put(t, c, check(t, ticket))
	receive(t, b.origin)
	if n := b.Flows(); n != 1 {
		t.Errorf("Flows = %d; want 1", n)
	}
}

// A frame may come byte by byte.
func TestFrameInPieces(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	c, request := dial(t, b.overTCP(t)), check(t, b.ticket(true))
	for _, one := range append(binary.BigEndian.AppendUint16(nil, uint16(len(request))), request...) {
		if _, err := c.Write([]byte{one}); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := receive(t, b.origin); !bytes.Equal(got, request) {
		t.Errorf("the origin got %x; want the check", got)
	}
}

// An origin that takes TCP only gets a connection for each session.
func TestOriginOverTCP(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	b.lb.serveAt("tcp://" + ln.Addr().String())
	ticket := b.own(true)
	s := b.expect(t, ticket)
	c := b.client(t)
	c.send(check(t, ticket)) // has the connection made
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	origin := newFramed(conn)
	eventually(t, "the flow is there", func() bool { return b.Flows() == 1 })
	request := check(t, ticket)
	c.send(request)
	if got := origin.next(t); !bytes.Equal(got, request) {
		t.Errorf("the origin got %x; want the check", got)
	}
	put(t, origin, success(t, request))
	if got, _ := receive(t, c.conn); !bytes.Equal(got, success(t, request)) {
		t.Errorf("the client got %x; want the answer", got)
	}
	_ = origin.Close()
	requireEnd(t, s, errOrigin)
	requireNothingKept(t, b)
}

// A client that takes nothing holds up its own flow, for a while, and no other.
func TestSlowClientOverTCP(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	addr, ticket := b.overTCP(t), b.ticket(false)
	slow := dial(t, addr)
	put(t, slow, check(t, ticket, useCandidate{}))
	_, at := receive(t, b.origin)
	stop := make(chan struct{})
	var flooding sync.WaitGroup
	flooding.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = b.origin.WriteToUDPAddrPort(append([]byte{0x80}, make([]byte, 1200)...), at)
			}
		}
	})
	defer func() { close(stop); flooding.Wait() }()
	for range 10 {
		c := b.client(t)
		c.send(check(t, b.ticket(true)))
		receive(t, b.origin)
	}
}

// Whatever comes, by new ways and known ones, nothing breaks, and only what is
// proved gets to the origin.
func FuzzDatagrams(f *testing.F) {
	b := newBench(f, "127.0.0.1:0", Config{})
	ticket := b.ticket(true)
	valid := check(f, ticket, useCandidate{})
	f.Add(valid, false)
	f.Add(valid[:30], true)
	f.Add(success(f, valid), true)
	f.Add(media(1), true)
	f.Add([]byte{dtlsAlert, 0xfe, 0xfd}, true)
	no, _ := pion.Build(pion.TransactionID, pion.BindingRequest, pion.NewUsername("nobody:x"), pion.Fingerprint)
	f.Add(no.Raw, false)
	b.join(f, b.client(f), ticket)
	var known *path
	b.mu.RLock()
	for _, known = range b.paths {
	}
	b.mu.RUnlock()
	port := uint16(0)
	f.Fuzz(func(t *testing.T, what []byte, isKnown bool) {
		if len(what) > maxDatagram {
			return
		}
		if isKnown {
			b.fromClient(source{way: known.way, socket: known.socket}, known, what, nil)
			known.flow.stunFromOrigin(what, nil)
			return
		}
		port++
		from := source{socket: known.socket, way: datagram.Way{Remote: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 9, byte(port >> 8), byte(port)}), 9)}}
		p := b.fromClient(from, nil, what, nil)
		if p == nil {
			return
		}
		m, err := stun.Parse(what)
		if err != nil {
			t.Fatalf("%x opened a path", what)
		}
		name, _, _ := m.Halves()
		if _, password, ok := key.Read(name, time.Now()); !ok || !stun.NewVerifier(password).Verify(&m) {
			t.Fatalf("%x opened a path", what)
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0, 1, 0x80, 0, 0, 0, 2, 1, 2})
	f.Add([]byte{255, 255})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		near, far := net.Pipe()
		go func() {
			_, _ = far.Write(b)
			_ = far.Close()
		}()
		defer near.Close()
		frames := newFramed(near)
		buffer := make([]byte, maxDatagram)
		for total := 0; ; {
			n, err := frames.read(buffer)
			if err != nil {
				return
			}
			if total += 2 + n; total > len(b) {
				t.Fatalf("%d bytes of %d were read", total, len(b))
			}
		}
	})
}
