package datagram

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tellings reads where a datagram arrived and, of a run that was put together, how
// long each is but the last; 0: it is one.
func tellings(control []byte) (way Way, segment int) {
	for len(control) >= unix.CmsgLen(0) {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return way, segment
		}
		switch {
		case header.Level == unix.SOL_UDP && header.Type == unix.UDP_GRO && len(data) >= 4:
			segment = int(binary.NativeEndian.Uint32(data))
		case header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			way.Local = netip.AddrFrom16([16]byte(data)).Unmap()
		case header.Level == unix.IPPROTO_IP && header.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			way.Local = netip.AddrFrom4([4]byte(data[4:])) // ipi_spec_dst
		default:
		}
		control = rest
	}
	return way, segment
}

// sendControl is the room for what is told with a message to be sent, in bytes.
const sendControl = 64

// appendSource has a message leave from an address of ours (ip(7), ipv6(7)). The
// route chooses the interface.
func (s *Socket) appendSource(b []byte, local netip.Addr) []byte {
	if !local.IsValid() {
		return b
	}
	if s.inet6 {
		whole, data := appendControl(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		addr := local.As16()
		copy(data, addr[:])
		return whole
	}
	whole, data := appendControl(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
	addr := local.As4()
	copy(data[4:], addr[:]) // ipi_spec_dst
	return whole
}

// appendSegment has the kernel cut a message into datagrams of that many bytes.
func appendSegment(b []byte, size int) []byte {
	b, data := appendControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(data, uint16(size)) //nolint:gosec // a datagram is shorter than 64 KB
	return b
}

// appendControl appends a struct cmsghdr with room for its data (cmsg(3)).
func appendControl(b []byte, level, kind int32, size int) (whole, data []byte) {
	start := len(b)
	b = append(b, make([]byte, unix.CmsgSpace(size))...)
	header := b[start:]
	if unsafe.Sizeof(uintptr(0)) == 8 { // cmsg_len is a size_t
		binary.NativeEndian.PutUint64(header, uint64(unix.CmsgLen(size))) //nolint:gosec // a small constant
	} else {
		binary.NativeEndian.PutUint32(header, uint32(unix.CmsgLen(size))) //nolint:gosec // a small constant
	}
	at := unix.CmsgLen(0) - 8
	binary.NativeEndian.PutUint32(header[at:], uint32(level))  //nolint:gosec // a small constant
	binary.NativeEndian.PutUint32(header[at+4:], uint32(kind)) //nolint:gosec // a small constant
	return b, header[unix.CmsgLen(0):][:size]
}

// addressOf reads a struct sockaddr of either family. The zone of a link-local
// address is a number, as the kernel has it.
func addressOf(name *unix.RawSockaddrInet6) netip.AddrPort {
	if name.Family == unix.AF_INET {
		name4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(name4.Addr), swapped(name4.Port))
	}
	addr := netip.AddrFrom16(name.Addr).Unmap()
	if addr.IsLinkLocalUnicast() && name.Scope_id != 0 {
		addr = addr.WithZone(strconv.FormatUint(uint64(name.Scope_id), 10))
	}
	return netip.AddrPortFrom(addr, swapped(name.Port))
}

// putAddress writes a struct sockaddr as the socket wants it and returns its size.
func (s *Socket) putAddress(name *unix.RawSockaddrInet6, to netip.AddrPort) uint32 {
	if !s.inet6 {
		name4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		*name4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(to.Port()), Addr: to.Addr().Unmap().As4()}
		return unix.SizeofSockaddrInet4
	}
	*name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapped(to.Port()), Addr: to.Addr().As16()}
	if zone := to.Addr().Zone(); zone != "" {
		number, _ := strconv.ParseUint(zone, 10, 32) // 0, which is any, for a name
		name.Scope_id = uint32(number)
	}
	return unix.SizeofSockaddrInet6
}

// sockaddr is the same for one datagram.
func (s *Socket) sockaddr(to netip.AddrPort) unix.Sockaddr {
	if !s.inet6 {
		return &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}
	}
	var name unix.RawSockaddrInet6
	s.putAddress(&name, to)
	return &unix.SockaddrInet6{Port: int(to.Port()), ZoneId: name.Scope_id, Addr: name.Addr}
}

// swapped turns a port from the network's order of bytes into ours, and back.
func swapped(port uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], port)
	return binary.BigEndian.Uint16(b[:])
}
