package clustertest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// link is one direction between two hosts. While it is cut, what was sent over
// it is held back, as TCP does that sends again and again.
type link struct {
	mu      sync.Mutex
	changed *sync.Cond
	cut     bool
}

func newLink() *link {
	l := &link{}
	l.changed = sync.NewCond(&l.mu)
	return l
}

func (l *link) set(cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = cut
	l.changed.Broadcast()
}

func (l *link) open() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.cut
}

// maxBuffered is how much a sender may be ahead of the receiver.
const maxBuffered = 1 << 20 // bytes

// pipe is one direction of a connection.
type pipe struct {
	link     *link
	buffered []byte
	closed   bool // by the writer: the reader gets the rest
	dropped  bool // by the reader: the writer fails
	read     deadline
	write    deadline
}

// deadline wakes who waits on the link when its time comes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) set(l *link, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if !at.IsZero() {
		// Under the lock: between a look at the clock and the wait for the link
		// nobody would hear it.
		d.timer = time.AfterFunc(time.Until(at), func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.changed.Broadcast()
		})
	}
	l.changed.Broadcast()
}

func (d *deadline) passed() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (p *pipe) Read(b []byte) (int, error) {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	for {
		switch {
		case p.dropped:
			return 0, net.ErrClosed
		case p.read.passed():
			return 0, os.ErrDeadlineExceeded
		case p.link.cut:
		case len(p.buffered) > 0:
			n := copy(b, p.buffered)
			p.buffered = p.buffered[n:]
			p.link.changed.Broadcast()
			return n, nil
		case p.closed:
			return 0, io.EOF
		}
		p.link.changed.Wait()
	}
}

func (p *pipe) Write(b []byte) (int, error) {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	for {
		switch {
		case p.closed:
			return 0, net.ErrClosed
		case p.dropped && !p.link.cut:
			return 0, syscall.EPIPE
		case p.write.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p.buffered) < maxBuffered:
			p.buffered = append(p.buffered, b...)
			p.link.changed.Broadcast()
			return len(b), nil
		}
		p.link.changed.Wait()
	}
}

func (p *pipe) end(mark *bool) {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	*mark = true
	p.link.changed.Broadcast()
}

// conn is a connection between two hosts in memory.
type conn struct {
	in, out       *pipe
	local, remote addr
}

var _ net.Conn = (*conn)(nil)

type addr string

func (a addr) Network() string { return "memory" }
func (a addr) String() string  { return string(a) }

func (c *conn) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *conn) Write(b []byte) (int, error) { return c.out.Write(b) }
func (c *conn) LocalAddr() net.Addr         { return c.local }
func (c *conn) RemoteAddr() net.Addr        { return c.remote }

func (c *conn) Close() error {
	c.in.end(&c.in.dropped)
	c.out.end(&c.out.closed)
	_ = c.SetDeadline(time.Time{}) // stops the timers
	return nil
}

func (c *conn) SetDeadline(t time.Time) error {
	return firstError(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) SetReadDeadline(t time.Time) error {
	c.in.read.set(c.in.link, t)
	return nil
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	c.out.write.set(c.out.link, t)
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// layer is the raft.StreamLayer of one run of a host.
type layer struct {
	net    *Network
	host   *host
	accept chan net.Conn
}

var _ raft.StreamLayer = (*layer)(nil)

// Accept implements net.Listener.
func (l *layer) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.host.dead:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *layer) Close() error { return nil }

// Addr implements net.Listener.
func (l *layer) Addr() net.Addr { return addr(l.host.id) }

// Dial implements raft.StreamLayer.
func (l *layer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	late := time.NewTimer(timeout)
	defer late.Stop()
	for {
		target, changed := l.net.reach(l.host.id, string(to))
		if target != nil {
			return l.connect(target)
		}
		select {
		case <-changed:
		case <-late.C:
			return nil, os.ErrDeadlineExceeded
		case <-l.host.dead:
			return nil, net.ErrClosed
		}
	}
}

func (l *layer) connect(target *host) (net.Conn, error) {
	there := &pipe{link: l.net.link(l.host.id, target.id)}
	back := &pipe{link: l.net.link(target.id, l.host.id)}
	ours := &conn{in: back, out: there, local: addr(l.host.id), remote: addr(target.id)}
	theirs := &conn{in: there, out: back, local: addr(target.id), remote: addr(l.host.id)}
	if !l.host.adopt(ours) || !target.adopt(theirs) {
		return nil, syscall.ECONNREFUSED
	}
	select {
	case target.layer.accept <- theirs:
		return ours, nil
	case <-target.dead:
		return nil, syscall.ECONNREFUSED
	case <-l.host.dead:
		return nil, net.ErrClosed
	}
}
