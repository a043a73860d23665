package relay

import (
	"net"
	"net/netip"
)

const (
	// maxDatagram is the longest that is relayed, in bytes: above the MTU of
	// Ethernet, which senders of media stay below.
	maxDatagram = 2048
	// socketBuffer is for bursts, in bytes: a key frame for a thousand viewers.
	socketBuffer = 4 << 20
)

// socket is a UDP port that clients send to. If it has the addresses of several
// interfaces, it tells at which one a datagram arrived, and answers from there:
// to ICE the same port at another address is another candidate.
type socket struct {
	conn *net.UDPConn
	// any is true when the socket is not bound to one address.
	any bool
	// inet6 is true for a socket of IPv6, which may carry IPv4 as well.
	inet6 bool
}

func newSocket(conn *net.UDPConn) (*socket, error) {
	// What the system allows of it; the rest is its administrator's.
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
	addr, _ := conn.LocalAddr().(*net.UDPAddr)
	bound := addr.AddrPort().Addr()
	s := &socket{conn: conn, any: bound.IsUnspecified(), inet6: bound.Is6()}
	if !s.any {
		return s, nil
	}
	return s, s.tellDestination()
}

// pathKey is what tells the ways to clients over UDP apart. local is the zero
// value where the socket has one address only.
type pathKey struct {
	remote netip.AddrPort
	local  netip.Addr
}

// read waits for a datagram. One that does not fit has more than maxDatagram
// bytes then. b and control are the caller's, to be used again.
func (s *socket) read(b, control []byte) (int, pathKey, error) {
	if !s.any {
		control = nil
	}
	n, controlled, _, from, err := s.conn.ReadMsgUDPAddrPort(b, control)
	if err != nil {
		return 0, pathKey{}, err
	}
	key := pathKey{remote: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	if s.any {
		key.local = destination(control[:controlled])
	}
	return n, key, nil
}

// write sends a datagram by a path; control is what source made of its key.
func (s *socket) write(b, control []byte, to netip.AddrPort) error {
	_, _, err := s.conn.WriteMsgUDPAddrPort(b, control, to)
	return err
}
