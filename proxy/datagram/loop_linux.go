package datagram

import (
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dense is how soon after each other datagrams have to come for a loop to wait
	// for them in a system call of its own, instead of in Go's poller. To wake the
	// poller, a processor and the monitor of the runtime, and to put them to sleep
	// again, costs several times what a frame costs. The processor is nobody else's
	// meanwhile (see [Processors]), so it is not for long, and not if there is no
	// other.
	dense = 4 * time.Millisecond
	// maxEvents is how many sockets are read between two waits.
	maxEvents = 128
)

// As the process starts: how many processors the runtime has, and how many loops
// there may be. The other half is for what is not UDP.
var (
	processors = runtime.GOMAXPROCS(0) //nolint:gochecknoglobals // see above
	most       = max(1, processors/2)  //nolint:gochecknoglobals // see above
)

// Processors returns what GOMAXPROCS should be: one more for each loop, since a loop
// keeps one while it waits for the next datagram.
func Processors() int { return processors + most }

// pool is the loops that run.
type pool struct {
	mu   sync.Mutex
	list []*loop // as long as there are sockets at them
	next int
}

// loops serve the sockets of the process, as the runtime's poller does for others.
var loops pool //nolint:gochecknoglobals // see above

// loop serves sockets, one after the other.
type loop struct {
	epoll int // of the sockets
	// gate is in Go's poller and has epoll in it, for times when little comes. It
	// opens once and is shut then (EPOLLONESHOT): otherwise whatever comes would
	// wake the poller, too.
	gate  *os.File
	over  atomic.Bool
	count int // of sockets; guarded by pool.mu

	mu      sync.RWMutex
	sockets map[int32]*Socket // by descriptor; guarded by mu
}

// join returns the loop that is to serve one more socket. leave must follow.
func (p *pool) join() (*loop, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.list) < most {
		l, err := startLoop()
		if err != nil {
			return nil, err
		}
		p.list = append(p.list, l)
		p.next = len(p.list) - 1
	}
	l := p.list[p.next%len(p.list)]
	p.next++
	l.count++
	return l, nil
}

// leave ends a loop that has no sockets any more.
func (p *pool) leave(l *loop) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l.count--
	if l.count > 0 {
		return
	}
	for i, other := range p.list {
		if other == l {
			p.list = append(p.list[:i:i], p.list[i+1:]...)
			break
		}
	}
	l.over.Store(true)
	_ = l.gate.SetReadDeadline(time.Unix(1, 0))
}

func startLoop() (*loop, error) {
	l := &loop{sockets: make(map[int32]*Socket)}
	var err error
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	gate, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		_ = unix.Close(l.epoll)
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err = errors.Join(unix.SetNonblock(gate, true), control(gate, unix.EPOLL_CTL_ADD, l.epoll, unix.EPOLLONESHOT)); err != nil {
		_, _ = unix.Close(gate), unix.Close(l.epoll)
		return nil, err
	}
	l.gate = os.NewFile(uintptr(gate), "epoll") //nolint:gosec // a descriptor
	go l.run()
	return l, nil
}

// control is epoll_ctl(2) for what may be read.
func control(epoll, what, fd int, more uint32) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN | more, Fd: int32(fd)} //nolint:gosec // a descriptor
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(epoll, what, fd, &event))
}

// add has the loop serve a socket, whose lock is held.
func (l *loop) add(s *Socket) error {
	l.mu.Lock()
	l.sockets[int32(s.fd)] = s //nolint:gosec // a descriptor
	l.mu.Unlock()
	return control(l.epoll, unix.EPOLL_CTL_ADD, s.fd, 0)
}

// remove ends that.
func (l *loop) remove(s *Socket) {
	_ = control(l.epoll, unix.EPOLL_CTL_DEL, s.fd, 0)
	l.mu.Lock()
	delete(l.sockets, int32(s.fd)) //nolint:gosec // a descriptor
	l.mu.Unlock()
}

// run serves until the loop is over.
func (l *loop) run() {
	defer unix.Close(l.epoll) //nolint:errcheck // nothing is lost
	defer l.gate.Close()      //nolint:errcheck // nothing is lost
	raw, err := l.gate.SyscallConn()
	if err != nil {
		return
	}
	s := stretch{loop: l, room: newReceiver()}
	// Within one call of Read nothing is missed that becomes ready between looking
	// for it and waiting for it.
	_ = raw.Read(func(gate uintptr) bool {
		_, _ = unix.EpollWait(int(gate), s.events[:1], 0) //nolint:gosec // a descriptor; it is shut now
		s.run()
		_ = control(int(gate), unix.EPOLL_CTL_MOD, l.epoll, unix.EPOLLONESHOT) //nolint:gosec // a descriptor
		return l.over.Load()
	})
}

// stretch is a time in which datagrams come.
type stretch struct {
	loop    *loop
	room    *receiver
	events  [maxEvents]unix.EpollEvent
	came    time.Time // the last
	yielded time.Time
	others  bool // processors
}

// run serves sockets until nothing comes any more.
func (s *stretch) run() {
	for wait := 0; !s.loop.over.Load(); {
		n, err := unix.EpollWait(s.loop.epoll, s.events[:], wait)
		switch {
		case err == unix.EINTR:
			continue
		case n <= 0:
			return
		default:
		}
		for _, event := range s.events[:n] {
			s.loop.mu.RLock()
			socket := s.loop.sockets[event.Fd]
			s.loop.mu.RUnlock()
			if socket != nil {
				s.room.serve(socket)
			}
		}
		now := time.Now()
		if now.Sub(s.yielded) > dense {
			// To the runtime a goroutine that never yields hogs its processor.
			runtime.Gosched()
			s.yielded, s.others = now, runtime.GOMAXPROCS(0) > 1
		}
		wait = 0
		if s.others && now.Sub(s.came) < dense {
			wait = int(dense / time.Millisecond)
		}
		s.came = now
	}
}
