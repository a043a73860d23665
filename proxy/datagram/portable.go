//go:build !linux

package datagram

import (
	"errors"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"

	"srsx/proxy"
)

// Processors returns what GOMAXPROCS should be: what it is.
func Processors() int { return runtime.GOMAXPROCS(0) }

// Socket is a UDP socket. Its methods are safe for concurrent use.
type Socket struct {
	conn      *net.UDPConn
	connected bool
	refused   func(error) // nil: nobody wants to know
	done      chan struct{}
	receiving sync.WaitGroup
	end       sync.Once
}

// New returns a socket that is made of a connection; refused is as for Dial.
func New(conn *net.UDPConn, refused func(error)) (*Socket, error) {
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
	return &Socket{conn: conn, connected: conn.RemoteAddr() != nil, refused: refused, done: make(chan struct{})}, nil
}

// Addr returns the socket's own address.
func (s *Socket) Addr() netip.AddrPort { return proxy.AddrPortOf(s.conn.LocalAddr()) }

// Start hands what comes to take from now on. It may be called once.
func (s *Socket) Start(take Take) error {
	s.receiving.Go(func() { s.receive(take) })
	return nil
}

func (s *Socket) receive(take Take) {
	b := make([]byte, maxLength)
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(b)
		switch {
		case err == nil:
			way := Way{}
			if !s.connected {
				way.Remote = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			}
			take(b[:n], way, nil)
		case isPassing(err):
			s.learn(err)
		default:
			return
		}
	}
}

// Stop ends what Start began, and returns when take is done with the last, so take
// must not call it. The socket stays open for what is still to be sent.
func (s *Socket) Stop() {
	_ = s.conn.SetReadDeadline(time.Unix(1, 0))
	s.receiving.Wait()
}

// Close closes the socket. A datagram may be in the hands of take yet.
func (s *Socket) Close() error {
	s.end.Do(func() { close(s.done) })
	return s.conn.Close()
}

// Done is closed by Close.
func (s *Socket) Done() <-chan struct{} { return s.done }

// Send sends one datagram at once. What cannot be sent is lost, as on any network;
// the error says why. It leaves from the address that the system chooses.
func (s *Socket) Send(b []byte, to Way) error {
	_, _, err := s.conn.WriteMsgUDPAddrPort(b, nil, to.Remote)
	s.learn(err)
	return err
}

func (s *Socket) learn(err error) {
	if errors.Is(err, syscall.ECONNREFUSED) && s.refused != nil {
		s.refused(err)
	}
}

// Sender sends datagrams. What cannot be sent is lost, as on any network.
type Sender struct{}

// Queue sends a datagram.
func (*Sender) Queue(s *Socket, b []byte, to Way) { _ = s.Send(b, to) }

// Flush has nothing left to send.
func (*Sender) Flush() {}
