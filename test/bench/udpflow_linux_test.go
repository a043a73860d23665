package bench

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// direction is where media goes.
type direction int

const (
	up   direction = iota // from clients, who publish
	down                  // to clients, who play
)

func (d direction) String() string { return [...]string{"up", "down"}[d] }

// udpFlow is one client and what the origin knows of it.
type udpFlow struct {
	id, originID uint32 // by which either end is addressed, as SRT does
	socket       int    // the client's
	check        []byte // WebRTC: what opens the relay to the client; nil: nothing does
	ways         [2]way
	// peer is where the origin sends to. It is set before anything counts as
	// arrived at the origin.
	peer unix.RawSockaddrInet4
}

// way is one direction of a flow.
type way struct {
	sent uint64        // datagrams; only the sender of the moment looks
	next atomic.Uint64 // number of the next datagram that is to arrive
}

func (f *udpFlow) isUp() bool { return f.ways[up].next.Load() > 0 && f.ways[down].next.Load() > 0 }

// The mark in each datagram, behind the protocol's header: what it is, flow,
// number, and when it was sent, in nanoseconds.
const (
	markAt  = 16
	markEnd = markAt + 24
	magic   = 0x73727378
)

func mark(b []byte, flow uint32, number uint64, at int64) {
	binary.BigEndian.PutUint32(b[markAt:], magic)
	binary.BigEndian.PutUint32(b[markAt+4:], flow)
	binary.BigEndian.PutUint64(b[markAt+8:], number)
	binary.BigEndian.PutUint64(b[markAt+16:], uint64(at))
}

// flowOf returns the flow of a datagram, if it is one of ours.
func flowOf(b []byte) (id uint32, ok bool) {
	if len(b) < markEnd || binary.BigEndian.Uint32(b[markAt:]) != magic {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[markAt+4:]), true
}

// meter counts what arrives at one end.
type meter struct {
	mu sync.Mutex
	tally
}

// tally is what arrived in some time.
type tally struct {
	got, lost int // datagrams
	late      []time.Duration
}

// maxSample bounds the times that are kept, which is more than come in a window.
const maxSample = 1 << 18

// take returns what has arrived since the last time.
func (m *meter) take() tally {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tally
	m.tally = tally{}
	return t
}

// arrivedLocked counts a datagram. One that comes twice or late does not count,
// which leaves it lost.
func (m *meter) arrivedLocked(w *way, b []byte, now int64) {
	number, expected := binary.BigEndian.Uint64(b[markAt+8:]), w.next.Load()
	if number < expected {
		return
	}
	m.lost += int(number - expected)
	m.got++
	if len(m.late) < maxSample {
		m.late = append(m.late, time.Duration(now-int64(binary.BigEndian.Uint64(b[markAt+16:]))))
	}
	w.next.Store(number + 1)
}

// udpOrigin is the origin of all relays of a row: one socket.
type udpOrigin struct {
	meter

	socket int
	addr   netip.AddrPort
	answer func(p []byte) []byte // to what is not ours; nil: none
	done   chan struct{}
	flows  map[uint32]*udpFlow // guarded by mu
}

// startUDPOrigin runs an origin until the test ends.
func startUDPOrigin(tb testing.TB, answer func([]byte) []byte) *udpOrigin {
	tb.Helper()
	o := &udpOrigin{answer: answer, done: make(chan struct{}), flows: make(map[uint32]*udpFlow)}
	var err error
	if o.socket, err = udpSocket(netip.MustParseAddrPort("127.0.0.1:0"), netip.AddrPort{}); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Close(o.socket) })
	bound, err := unix.Getsockname(o.socket)
	if err != nil {
		tb.Fatal(err)
	}
	at, ok := bound.(*unix.SockaddrInet4)
	if !ok {
		tb.Fatalf("bound to %v", bound)
	}
	o.addr = netip.AddrPortFrom(netip.AddrFrom4(at.Addr), uint16(at.Port))
	if err = giveUpReading(o.socket, unix.Timeval{Usec: 100_000}); err != nil { // to see that the test ends
		tb.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(o.read)
	tb.Cleanup(func() {
		close(o.done)
		reading.Wait()
	})
	return o
}

func (o *udpOrigin) add(flows []*udpFlow) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, f := range flows {
		o.flows[f.id] = f
	}
}

func (o *udpOrigin) read() {
	set, answers := newMmsg(64), newMmsg(1)
	for !isClosed(o.done) {
		n, err := set.receive(o.socket, unix.MSG_WAITFORONE)
		if err != nil {
			continue // nothing came, or an ICMP message
		}
		now := time.Now().UnixNano()
		o.mu.Lock()
		for i := range n {
			b := set.received(i)
			if id, ok := flowOf(b); !ok {
				o.reply(answers, b, &set.peers[i])
			} else if f := o.flows[id]; f != nil {
				if f.ways[up].next.Load() == 0 {
					f.peer = set.peers[i]
				}
				o.arrivedLocked(&f.ways[up], b, now)
			}
		}
		o.mu.Unlock()
	}
}

func (o *udpOrigin) reply(set *mmsg, b []byte, to *unix.RawSockaddrInet4) {
	if o.answer == nil {
		return
	}
	if reply := o.answer(b); reply != nil {
		set.vectors[0].SetLen(copy(set.buffers[0], reply))
		set.address(0, to)
		set.send(o.socket, 0, 1)
	}
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// clients is the receiving end of all clients of a relay.
type clients struct {
	meter

	epoll int
	flows map[int32]*udpFlow // by socket
}

// startClients reads the sockets of flows until the test ends.
func startClients(tb testing.TB, flows []*udpFlow) *clients {
	tb.Helper()
	c := &clients{flows: make(map[int32]*udpFlow)}
	var err error
	if c.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Close(c.epoll) })
	for _, f := range flows {
		c.flows[int32(f.socket)] = f
		if err = watch(c.epoll, f.socket); err != nil {
			tb.Fatal(err)
		}
	}
	var reading sync.WaitGroup
	done := make(chan struct{})
	reading.Go(func() { c.read(done) })
	tb.Cleanup(func() {
		close(done)
		reading.Wait()
	})
	return c
}

func (c *clients) read(done <-chan struct{}) {
	set, ready := newMmsg(16), make([]unix.EpollEvent, 256)
	const look = 100 // ms, to see that the test ends
	for !isClosed(done) {
		n, err := unix.EpollWait(c.epoll, ready, look)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		for _, event := range ready[:max(n, 0)] {
			c.readFrom(event.Fd, set)
		}
	}
}

func (c *clients) readFrom(fd int32, set *mmsg) {
	n, err := set.receive(int(fd), unix.MSG_DONTWAIT)
	if err != nil {
		return
	}
	now, f := time.Now().UnixNano(), c.flows[fd]
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range n {
		// What is another client's is lost to that one.
		if id, ok := flowOf(set.received(i)); ok && id == f.id {
			c.arrivedLocked(&f.ways[down], set.received(i), now)
		}
	}
}
