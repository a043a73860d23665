package srt

import (
	"encoding/binary"
	"net"

	"golang.org/x/sys/unix"
)

// controlRoom is enough for the address that a packet was sent to, in bytes.
const controlRoom = 64

// tellAddress has each packet tell the address that it was sent to (ip(7)
// IP_PKTINFO, ipv6(7) IPV6_RECVPKTINFO, which also tells of IPv4 on a socket of
// both).
func tellAddress(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		if setErr != nil {
			setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	})
	if err != nil {
		return err
	}
	return setErr
}

// answerFrom turns what a packet told into what an answer has to say, in the
// same bytes: the structures are those that sendmsg(2) takes. The interface is
// left open, since the way back may be another; only a link-local address
// means nothing without it.
func answerFrom(control []byte) []byte {
	if len(control) < unix.SizeofCmsghdr {
		return nil
	}
	header, data, _, err := unix.ParseOneSocketControlMessage(control)
	if err != nil {
		return nil
	}
	switch {
	case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
		binary.NativeEndian.PutUint32(data, 0)
	case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
		const linkLocal = 0xfe80
		if binary.BigEndian.Uint16(data)&0xffc0 != linkLocal {
			binary.NativeEndian.PutUint32(data[16:], 0)
		}
	default:
		return nil
	}
	return control
}
