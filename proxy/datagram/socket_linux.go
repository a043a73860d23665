package datagram

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"srsx/proxy"
)

// Socket is a UDP socket. Its methods are safe for concurrent use.
type Socket struct {
	addr      netip.AddrPort
	connected bool
	inet6     bool        // it speaks IPv6, and may carry IPv4 within
	segments  atomic.Bool // runs may be sent for the kernel to cut
	refused   func(error) // nil: nobody wants to know
	done      chan struct{}

	serving sync.Mutex // held while take is at work

	// mu guards what follows. Whoever uses the descriptor holds it for reading:
	// once closed, the number is another's.
	mu   sync.RWMutex
	fd   int // -1: closed
	take Take
	loop *loop // nil: not started, or stopped
}

// New returns a socket that is made of a connection, which is closed then; refused
// is as for Dial.
func New(conn *net.UDPConn, refused func(error)) (*Socket, error) {
	defer conn.Close() //nolint:errcheck // the descriptor is a copy
	// What the system allows of it; the rest is its administrator's.
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &Socket{
		addr: proxy.AddrPortOf(conn.LocalAddr()), connected: conn.RemoteAddr() != nil,
		refused: refused, done: make(chan struct{}),
	}
	var dupErr error
	err = raw.Control(func(fd uintptr) { s.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(err, os.NewSyscallError("dup", dupErr)); err != nil {
		return nil, err
	}
	s.prepare()
	return s, nil
}

// prepare asks for all that makes many datagrams cheap, and for the address where
// each arrived. What a kernel does not know it refuses.
func (s *Socket) prepare() {
	domain, _ := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	s.inet6 = domain == unix.AF_INET6
	_ = unix.SetsockoptInt(s.fd, unix.SOL_UDP, unix.UDP_GRO, 1)
	s.segments.Store(unix.SetsockoptInt(s.fd, unix.SOL_UDP, unix.UDP_SEGMENT, 0) == nil)
	switch {
	case !s.addr.Addr().IsUnspecified():
	case s.inet6:
		_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
	default:
		_ = unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
	}
}

// Addr returns the socket's own address.
func (s *Socket) Addr() netip.AddrPort { return s.addr }

// Start hands what comes to take from now on. It may be called once. The error is
// the system's, or [net.ErrClosed].
func (s *Socket) Start(take Take) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	s.take = take
	if s.loop, err = loops.join(); err != nil {
		return err
	}
	if err = s.loop.add(s); err != nil {
		s.stopLocked()
	}
	return err
}

// Stop ends what Start began, and returns when take is done with the last, so take
// must not call it. The socket stays open for what is still to be sent.
func (s *Socket) Stop() {
	s.mu.Lock()
	s.stopLocked()
	s.mu.Unlock()
	s.serving.Lock()
	defer s.serving.Unlock()
}

func (s *Socket) stopLocked() {
	if s.loop == nil {
		return
	}
	s.loop.remove(s)
	loops.leave(s.loop)
	s.loop = nil
}

// Close closes the socket. A datagram may be in the hands of take yet.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return net.ErrClosed
	}
	s.stopLocked()
	err := unix.Close(s.fd)
	s.fd = -1
	close(s.done)
	return err
}

// Done is closed by Close.
func (s *Socket) Done() <-chan struct{} { return s.done }

// Send sends one datagram at once. What cannot be sent is lost, as on any network;
// the error says why.
func (s *Socket) Send(b []byte, to Way) error {
	var sockaddr unix.Sockaddr
	if to.Remote.IsValid() {
		sockaddr = s.sockaddr(to.Remote)
	}
	s.mu.RLock()
	if s.fd < 0 {
		s.mu.RUnlock()
		return net.ErrClosed
	}
	err := unix.Sendmsg(s.fd, b, s.appendSource(nil, to.Local), sockaddr, unix.MSG_DONTWAIT)
	s.mu.RUnlock()
	s.learn(err)
	return err
}

// learn takes an error that the socket reported.
func (s *Socket) learn(err error) {
	if errors.Is(err, unix.ECONNREFUSED) && s.refused != nil {
		s.refused(err)
	}
}
