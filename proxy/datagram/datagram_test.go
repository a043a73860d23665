package datagram

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

func listen(t *testing.T, addr string) *Socket {
	t.Helper()
	s, err := Listen(t.Context(), addr, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func dial(t *testing.T, to netip.AddrPort, refused func(error)) *Socket {
	t.Helper()
	s, err := Dial(to, refused)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func start(t *testing.T, s *Socket, take Take) {
	t.Helper()
	if err := s.Start(take); err != nil {
		t.Error(err)
	}
}

// received is what arrives at a socket, in copies.
func received(t *testing.T, s *Socket) <-chan []byte {
	t.Helper()
	got := make(chan []byte, 1000)
	start(t, s, func(b []byte, _ Way, _ *Sender) { got <- bytes.Clone(b) })
	return got
}

func next(t *testing.T, from <-chan []byte) []byte {
	t.Helper()
	select {
	case b := <-from:
		return b
	case <-time.After(patience):
		t.Fatal("no datagram arrived")
		return nil
	}
}

// numbered returns a datagram of a length, which begins with its number.
func numbered(n, length int) []byte {
	b := make([]byte, length)
	for i := range b {
		b[i] = byte(n + i)
	}
	if length >= 4 {
		binary.BigEndian.PutUint32(b, uint32(n))
	}
	return b
}

// relay is a socket whose datagrams are sent on by another, each as it is.
func relay(t *testing.T, addr string, to netip.AddrPort) *Socket {
	t.Helper()
	front, upstream := listen(t, addr), dial(t, to, nil)
	start(t, front, func(b []byte, _ Way, out *Sender) { out.Queue(upstream, b, Way{}) })
	return front
}

// lengthsOf are runs of datagrams that make every kind of boundary: the last of a
// run is shorter, the next longer, there are more than one message takes.
func lengthsOf(random *rand.Rand) []int {
	var lengths []int
	for range 20 {
		length := []int{1, 12, 188, 1316, 1332, 1400, 9000}[random.IntN(7)]
		for range []int{1, 2, 6, 63, 64, 65, 130}[random.IntN(7)] {
			lengths = append(lengths, length)
		}
		if random.IntN(2) == 0 {
			lengths = append(lengths, 1+random.IntN(length))
		}
	}
	return lengths
}

// What comes in runs goes on datagram by datagram: in order, whole, none longer or
// shorter, however often it was put together and cut.
func TestDatagramsKeepTheirBoundsAndOrder(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		sink := listen(t, addr)
		got := received(t, sink)
		second := relay(t, addr, loopback(sink))
		first := relay(t, addr, loopback(second))
		source := dial(t, loopback(first), nil)
		seed := rand.Uint64()
		var out Sender
		for n, length := range lengthsOf(rand.New(rand.NewPCG(seed, 0))) {
			out.Queue(source, numbered(n, length), Way{})
			if n%40 != 39 {
				continue
			}
			out.Flush()
			// None waits in a full buffer, where it would be lost.
			for i := n - 39; i <= n; i++ {
				requireNumbered(t, seed, i, next(t, got))
			}
		}
	}
}

func requireNumbered(t *testing.T, seed uint64, n int, b []byte) {
	t.Helper()
	if want := numbered(n, len(b)); !bytes.Equal(b, want) {
		t.Fatalf("seed %d: datagram %d has %d bytes, and begins %x", seed, n, len(b), b[:min(8, len(b))])
	}
	lengths := lengthsOf(rand.New(rand.NewPCG(seed, 0)))
	if len(b) != lengths[n] {
		t.Fatalf("seed %d: datagram %d has %d bytes; want %d", seed, n, len(b), lengths[n])
	}
}

// loopback is where a socket is reached from this host.
func loopback(s *Socket) netip.AddrPort {
	addr := s.Addr()
	if addr.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), addr.Port())
	}
	return addr
}

// A host answers from the address that it was asked at, to each who asked.
func TestAnswersTakeTheWayBack(t *testing.T) {
	for listens, at := range map[string][]string{
		"0.0.0.0:0": {"127.0.0.1", "127.0.0.2"},
		":0":        {"127.0.0.1", "127.0.0.3", "::1"},
		"[::]:0":    {"::1"},
	} {
		server := listen(t, listens)
		start(t, server, func(b []byte, from Way, out *Sender) { out.Queue(server, b, from) })
		for _, host := range at {
			// Connected, so what comes from another address does not arrive.
			client := dial(t, netip.AddrPortFrom(netip.MustParseAddr(host), server.Addr().Port()), nil)
			got := received(t, client)
			for n := range 3 {
				if err := client.Send(numbered(n, 100), Way{}); err != nil {
					t.Fatal(err)
				}
				if b := next(t, got); !bytes.Equal(b, numbered(n, 100)) {
					t.Errorf("%s at %s answered %x", listens, host, b)
				}
			}
		}
	}
}

// Datagrams for several sockets and ways, in turns, all arrive, in the order of
// each.
func TestManyWaysOfOneSender(t *testing.T) {
	front := listen(t, "127.0.0.1:0")
	var clients [3]<-chan []byte
	var ways [3]Way
	for i := range clients {
		client := listen(t, "127.0.0.1:0")
		clients[i], ways[i] = received(t, client), Way{Remote: client.Addr()}
	}
	var out Sender
	const each = 30
	for n := range 3 * each {
		out.Queue(front, numbered(n, 500), ways[n%3])
	}
	out.Flush()
	for n := range 3 * each {
		if b := next(t, clients[n%3]); !bytes.Equal(b, numbered(n, 500)) {
			t.Fatalf("datagram %d arrived as %x", n, b[:8])
		}
	}
}

func TestClosedPortIsLearntAndServingGoesOn(t *testing.T) {
	gone := listen(t, "127.0.0.1:0")
	addr := gone.Addr()
	_ = gone.Close()
	var refusals atomic.Int64
	s := dial(t, addr, func(error) { refusals.Add(1) })
	got := received(t, s)
	var out Sender
	for deadline := time.Now().Add(patience); refusals.Load() < 3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("learnt %d times of a closed port; want 3", refusals.Load())
		}
		out.Queue(s, []byte("knock"), Way{})
		out.Flush()
	}
	back, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = back.Close() })
	if _, err = back.WriteToUDPAddrPort([]byte("again"), s.Addr()); err != nil {
		t.Fatal(err)
	}
	if b := next(t, got); string(b) != "again" {
		t.Errorf("read %q", b)
	}
}

func TestSocketEndsWhateverItDoes(t *testing.T) {
	t.Run("never started", func(t *testing.T) {
		s := listen(t, "127.0.0.1:0")
		_ = s.Close()
		if err := s.Start(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Start = %v; want net.ErrClosed", err)
		}
		requireClosed(t, s)
	})
	t.Run("while it waits", func(t *testing.T) {
		s := listen(t, "127.0.0.1:0")
		start(t, s, nil)
		_ = s.Close()
		requireClosed(t, s)
	})
	t.Run("by what it serves", func(t *testing.T) {
		s := listen(t, "127.0.0.1:0")
		start(t, s, func([]byte, Way, *Sender) { _ = s.Close() })
		if err := s.Send([]byte("x"), Way{Remote: s.Addr()}); err != nil {
			t.Fatal(err)
		}
		requireClosed(t, s)
	})
	t.Run("stopped", func(t *testing.T) {
		s := listen(t, "127.0.0.1:0")
		start(t, s, func([]byte, Way, *Sender) { t.Error("a datagram came after Stop") })
		s.Stop()
		other := listen(t, "127.0.0.1:0")
		got := received(t, other)
		for _, to := range []*Socket{s, other} {
			if err := s.Send([]byte("x"), Way{Remote: to.Addr()}); err != nil {
				t.Errorf("Send after Stop = %v", err)
			}
		}
		next(t, got)
		_ = s.Close()
		requireClosed(t, s)
	})
}

// Whoever stops a socket may take apart what its datagrams needed.
func TestStopWaitsForTheLast(t *testing.T) {
	s := listen(t, "127.0.0.1:0")
	began, end := make(chan struct{}), make(chan struct{})
	var ended atomic.Bool
	start(t, s, func([]byte, Way, *Sender) {
		close(began)
		<-end
		ended.Store(true)
	})
	if err := s.Send([]byte("x"), Way{Remote: s.Addr()}); err != nil {
		t.Fatal(err)
	}
	<-began
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.Stop()
		if !ended.Load() {
			t.Error("Stop returned while a datagram was dealt with")
		}
	}()
	select {
	case <-stopped:
	case <-time.After(10 * time.Millisecond): // it has begun to wait, as a rule
	}
	close(end)
	<-stopped
}

// requireClosed wants the port to be free.
func requireClosed(t *testing.T, s *Socket) {
	t.Helper()
	select {
	case <-s.Done():
	case <-time.After(patience):
		t.Fatal("the socket is not done")
	}
	if err := s.Send([]byte("x"), Way{Remote: s.Addr()}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send = %v; want net.ErrClosed", err)
	}
	if err := s.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a second Close = %v; want net.ErrClosed", err)
	}
	again, err := Listen(t.Context(), s.Addr().String(), "test")
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
}

// Sockets come and go while others are served, and loops with them.
func TestManySocketsComeAndGo(t *testing.T) {
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for n := range 50 {
				echo := listen(t, "127.0.0.1:0")
				start(t, echo, func(b []byte, from Way, out *Sender) { out.Queue(echo, b, from) })
				client := dial(t, echo.Addr(), nil)
				got := make(chan []byte, 1)
				start(t, client, func(b []byte, _ Way, _ *Sender) { got <- bytes.Clone(b) })
				if err := client.Send(numbered(n, 1200), Way{}); err != nil {
					t.Error(err)
					return
				}
				select {
				case b := <-got:
					if !bytes.Equal(b, numbered(n, 1200)) {
						t.Errorf("%x came back", b[:8])
					}
				case <-time.After(patience):
					t.Error("nothing came back")
				}
				_, _ = client.Close(), echo.Close()
			}
		})
	}
	all.Wait()
}

func TestPortInUseIsNamed(t *testing.T) {
	s := listen(t, "127.0.0.1:0")
	_, err := Listen(t.Context(), s.Addr().String(), "test")
	if want := "listen test " + s.Addr().String() + ": address already in use"; err == nil || err.Error() != want {
		t.Errorf("Listen = %v; want %s", err, want)
	}
}

// Neither a datagram nor a run of them costs memory.
func TestRelayDoesNotAllocate(t *testing.T) {
	sink := listen(t, "127.0.0.1:0")
	arrived := make(chan struct{}, 6)
	start(t, sink, func([]byte, Way, *Sender) { arrived <- struct{}{} })
	front := listen(t, "127.0.0.1:0")
	to := Way{Remote: sink.Addr()}
	start(t, front, func(b []byte, _ Way, out *Sender) { out.Queue(front, b, to) })
	source := dial(t, front.Addr(), nil)
	var out Sender
	b := make([]byte, 6*1316)
	frame := func() {
		for i := range 6 {
			out.Queue(source, b[i*1316:][:1316], Way{})
		}
		out.Flush()
		for range 6 {
			<-arrived
		}
	}
	for range 100 {
		frame() // the rooms are made
	}
	// What the runtime allocates for itself is less than one in a hundred.
	if allocations := testing.AllocsPerRun(1000, frame); allocations > 0 {
		t.Errorf("%v allocations a frame; want none", allocations)
	}
}
