package bench

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	settling = 200 * time.Millisecond
	draining = 100 * time.Millisecond
	// joiners is how many clients are on their way in at once.
	joiners = 32
)

// lane is one relay with its clients, between which and the origin media goes.
type lane struct {
	row     udpRow
	relay   string
	pid     int // 0: there is none between
	origin  *udpOrigin
	clients *clients
	flows   []*udpFlow
}

// reading is what a lane measured.
type reading struct {
	tally

	used time.Duration // of processors, by the relay
	sent int           // datagrams in all, of which lost did not arrive
}

// openLane has clients of a relay at an address come up, each by join.
func openLane(tb testing.TB, l *lane, at netip.AddrPort, join func(f *udpFlow, stream string) error) {
	tb.Helper()
	first := uint32(len(l.origin.flows)) + 1 // ids are the origin's, not the lane's
	for i := range l.row.flows {
		socket, err := udpSocket(netip.AddrPort{}, at)
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = unix.Close(socket) })
		id := first + uint32(i)
		l.flows = append(l.flows, &udpFlow{id: id, originID: originID(id), socket: socket})
	}
	if join != nil {
		l.join(tb, join)
	}
	l.origin.add(l.flows)
	l.clients = startClients(tb, l.flows)
	l.comeUp(tb)
}

// originID is the id that the origin gives its end of a flow.
func originID(client uint32) uint32 { return client | 1<<29 }

func (l *lane) join(tb testing.TB, join func(f *udpFlow, stream string) error) {
	tb.Helper()
	var joining sync.WaitGroup
	for from := range joiners {
		joining.Go(func() {
			for i := from; i < len(l.flows); i += joiners {
				if err := join(l.flows[i], fmt.Sprintf("s%05d", i)); err != nil {
					tb.Errorf("%s, client %d: %v", l.relay, i, err)
					return
				}
			}
		})
	}
	joining.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
}

// comeUp waits until something of each flow has arrived at both ends.
func (l *lane) comeUp(tb testing.TB) {
	tb.Helper()
	set := newMmsg(1)
	missing := len(l.flows)
	for deadline := time.Now().Add(15 * time.Second); missing > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: nothing arrives of %d of %d flows", l.relay, missing, len(l.flows))
		}
		missing = 0
		for i, f := range l.flows {
			if f.isUp() {
				continue
			}
			missing++
			if f.check != nil {
				_, _ = unix.Write(f.socket, f.check)
			}
			l.send(set, f, up, 1)
			if f.ways[up].next.Load() > 0 {
				l.send(set, f, down, 1)
			}
			unhurried(i)
		}
	}
	time.Sleep(draining)
}

// send sends datagrams of a flow in one call.
func (l *lane) send(set *mmsg, f *udpFlow, d direction, datagrams int) {
	socket, id, to := f.socket, f.originID, (*unix.RawSockaddrInet4)(nil)
	if d == down {
		socket, id, to = l.origin.socket, f.id, &f.peer
	}
	w, now := &f.ways[d], time.Now().UnixNano()
	for i := range datagrams {
		b := set.buffers[i][:l.row.kind.size]
		l.row.kind.header(b, id, w.sent)
		mark(b, f.id, w.sent, now)
		w.sent++
		set.vectors[i].SetLen(len(b))
		set.address(i, to)
	}
	set.send(socket, 0, datagrams)
}

// measure has all flows send, and reads what arrives in a window.
func (l *lane) measure(tb testing.TB, window time.Duration) (r reading) {
	tb.Helper()
	before := l.greet()
	done := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() { l.stream(done) })
	time.Sleep(settling)
	from, used := l.end().take(), l.processors(tb)
	time.Sleep(window)
	r.tally, r.used = l.end().take(), l.processors(tb)-used
	close(done)
	sending.Wait()
	time.Sleep(draining)
	r.sent = l.sent() - before
	r.lost += from.lost + l.end().take().lost + l.outstanding()
	return r
}

// end is where media arrives.
func (l *lane) end() *meter {
	if l.row.to == up {
		return &l.origin.meter
	}
	return &l.clients.meter
}

func (l *lane) sent() (datagrams int) {
	for _, f := range l.flows {
		datagrams += int(f.ways[l.row.to].sent)
	}
	return datagrams
}

// outstanding counts what was sent and has not been followed by what arrived.
func (l *lane) outstanding() (datagrams int) {
	for _, f := range l.flows {
		w := &f.ways[l.row.to]
		datagrams += int(w.sent - w.next.Load())
	}
	return datagrams
}

// greet sends something of each flow both ways, since nobody may be silent for
// half a minute. It forgets what was lost before, and returns what was sent.
func (l *lane) greet() (before int) {
	for _, f := range l.flows {
		for d := range f.ways {
			f.ways[d].sent = f.ways[d].next.Load()
		}
	}
	l.end().take()
	before = l.sent()
	set := newMmsg(1)
	for i, f := range l.flows {
		for d := range f.ways {
			l.send(set, f, direction(d), 1)
		}
		unhurried(i)
	}
	return before
}

// unhurried lets a loop over flows be no flood, which is not what is measured.
func unhurried(i int) {
	if i%16 == 0 {
		time.Sleep(time.Millisecond)
	}
}

// stream sends the frames of all flows, evenly spread in time, until done is
// closed.
func (l *lane) stream(done <-chan struct{}) {
	set := newMmsg(datagramsOfFrame)
	step := time.Second / time.Duration(l.row.rate()*len(l.flows))
	due := time.Now()
	for i := 0; !isClosed(done); i = (i + 1) % len(l.flows) {
		for wait := time.Until(due); wait > 0; wait = time.Until(due) { // again after a signal
			// time.Sleep is good for milliseconds, in which several are due.
			sleep := unix.NsecToTimespec(wait.Nanoseconds())
			_ = unix.Nanosleep(&sleep, nil)
		}
		l.send(set, l.flows[i], l.row.to, datagramsOfFrame)
		due = due.Add(step)
	}
}

// processors returns the time that the relay has had of processors, to the
// nanosecond: a tick of [processorOf] is more than one flow takes in a second.
func (l *lane) processors(tb testing.TB) (sum time.Duration) {
	tb.Helper()
	if l.pid == 0 {
		return 0
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", l.pid))
	if err != nil {
		tb.Fatal(err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", l.pid, task.Name()))
		if err != nil {
			tb.Fatal(err)
		}
		on, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(on, 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}
