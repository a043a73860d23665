package relay

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// controlSize is the room for what tells a datagram's destination, in bytes.
const controlSize = 128

// tellDestination has the kernel say where datagrams arrived (ip(7), ipv6(7)).
func (s *socket) tellDestination() error {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		if s.inet6 {
			setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	})
	return errors.Join(err, setErr)
}

// destination reads the address at which a datagram arrived.
func destination(control []byte) netip.Addr {
	for len(control) >= unix.CmsgLen(0) {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return netip.Addr{}
		}
		switch {
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			return netip.AddrFrom16([16]byte(data)).Unmap()
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			return netip.AddrFrom4([4]byte(data[4:])) // ipi_spec_dst
		default:
			control = rest
		}
	}
	return netip.Addr{}
}

// source makes what has a datagram leave from an address of ours; nil for the
// zero value. The route chooses the interface.
func (s *socket) source(local netip.Addr) []byte {
	if !local.IsValid() {
		return nil
	}
	if !s.inet6 {
		b := controlMessage(unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		addr := local.As4()
		copy(b[unix.CmsgLen(0)+4:], addr[:])
		return b
	}
	b := controlMessage(unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	addr := local.As16()
	copy(b[unix.CmsgLen(0):], addr[:])
	return b
}

func controlMessage(level, kind int32, size int) []byte {
	b := make([]byte, unix.CmsgSpace(size))
	if unsafe.Sizeof(uintptr(0)) == 8 { // cmsg_len is a size_t
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(size))) //nolint:gosec // a small constant
	} else {
		binary.NativeEndian.PutUint32(b, uint32(unix.CmsgLen(size))) //nolint:gosec // a small constant
	}
	at := unix.CmsgLen(0) - 8
	binary.NativeEndian.PutUint32(b[at:], uint32(level))  //nolint:gosec // a small constant
	binary.NativeEndian.PutUint32(b[at+4:], uint32(kind)) //nolint:gosec // a small constant
	return b
}
