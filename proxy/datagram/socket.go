// Package datagram carries datagrams of UDP many at a time. What waits at a
// socket is read in one call, what goes the same way is sent in one, and a run of
// equal sizes is one long message that the kernel cuts (udp(7) UDP_SEGMENT) or
// has put together (UDP_GRO): a frame of video costs little more than a datagram.
//
// Other systems than Linux do the same, one datagram a call.
package datagram

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"srsx/proxy"
)

// socketBuffer is what is asked of the kernel in each direction, in bytes: a burst
// must wait, such as a key frame for a thousand viewers, since what is dropped
// here is lost media. The kernel gives what net.core.rmem_max and wmem_max allow.
const socketBuffer = 4 << 20

// maxLength is the longest datagram there is, in bytes.
const maxLength = 1<<16 - 1

// Way is where a datagram came from, or goes to. It is the zero value for a socket
// that is connected.
type Way struct {
	Remote netip.AddrPort
	// Local is the address of ours that the other side knows. A host with several
	// has to answer from there. It is the zero value for a socket that is bound to
	// one.
	Local netip.Addr
}

// Take deals with one datagram. b is good until it returns, and as long as it is
// queued in out; it may be changed, but not lengthened.
type Take func(b []byte, from Way, out *Sender)

// Socket is a UDP socket. Its methods are safe for concurrent use, but that one
// goroutine serves.
type Socket struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	refused func(error) // nil: nobody wants to know
	system

	// mu guards what follows.
	mu      sync.Mutex
	serving bool
	closed  bool
}

// Listen opens a port for clients; see [proxy.ListenUDP].
func Listen(ctx context.Context, addr, name string) (*Socket, error) {
	conn, err := proxy.ListenUDP(ctx, addr, name)
	if err != nil {
		return nil, err
	}
	return New(conn, nil)
}

// Dial opens a socket that is connected to one address. refused is called, from
// whatever goroutine learns it, when that port turns out to be closed; it may be
// nil.
func Dial(addr netip.AddrPort, refused func(error)) (*Socket, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	return New(conn, refused)
}

// New returns a socket of a connection, which is its own from then on; refused is
// as for Dial.
func New(conn *net.UDPConn, refused func(error)) (*Socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	// What the system allows of it; the rest is its administrator's.
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
	s := &Socket{conn: conn, raw: raw, refused: refused}
	s.prepare()
	return s, nil
}

// Addr returns the socket's own address.
func (s *Socket) Addr() netip.AddrPort {
	addr, _ := s.conn.LocalAddr().(*net.UDPAddr)
	return addr.AddrPort()
}

// connected reports whether the socket has one other side.
func (s *Socket) connected() bool { return s.conn.RemoteAddr() != nil }

// Serve hands what comes to take until the socket is closed, and then returns an
// error that matches [net.ErrClosed]; after Interrupt [os.ErrDeadlineExceeded]. Any
// other error is the system's, and may pass. That nobody listens at the other side,
// or it cannot be reached, is none.
func (s *Socket) Serve(take Take) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return net.ErrClosed
	}
	s.serving = true
	s.mu.Unlock()
	err := s.receive(take)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = false
	if s.closed {
		_ = s.conn.Close()
		return net.ErrClosed
	}
	return err
}

// over reports whether Close has been called.
func (s *Socket) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Interrupt ends Serve and leaves the socket open for what is still to be sent.
func (s *Socket) Interrupt() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) }

// Close closes the socket. While Serve runs it ends that, which closes the socket
// then: take may call it.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.closed = true
	if s.serving {
		s.Interrupt()
		return nil
	}
	return s.conn.Close()
}

// Send sends one datagram at once. What cannot be sent is lost, as on any network;
// the error says why.
func (s *Socket) Send(b []byte, to Way) error {
	_, _, err := s.conn.WriteMsgUDPAddrPort(b, s.source(to.Local), to.Remote)
	return s.learn(err)
}

// isPassing reports an error that an ICMP message or a full buffer left on a
// socket.
func isPassing(err error) bool {
	for _, passing := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENOBUFS, syscall.EMSGSIZE} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// learn takes an error that the socket reported about what was sent before. It
// returns the error if it is of another kind.
func (s *Socket) learn(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) && s.refused != nil {
		s.refused(err)
	}
	if err == nil || isPassing(err) {
		return nil
	}
	return err
}
