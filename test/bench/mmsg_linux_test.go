package bench

import (
	"errors"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	roomOfDatagram = 2048     // bytes
	socketBuffer   = 32 << 20 // bytes: what is lost is the relay's, never the driver's
)

// mmsg is a set of datagrams for recvmmsg(2) and sendmmsg(2), one call for all.
type mmsg struct {
	headers []mmsghdr
	vectors []unix.Iovec
	buffers [][]byte
	peers   []unix.RawSockaddrInet4
}

// mmsghdr is the kernel's struct.
type mmsghdr struct {
	unix.Msghdr

	n uint32 // bytes received or sent
}

func newMmsg(datagrams int) *mmsg {
	m := &mmsg{
		headers: make([]mmsghdr, datagrams), vectors: make([]unix.Iovec, datagrams),
		buffers: make([][]byte, datagrams), peers: make([]unix.RawSockaddrInet4, datagrams),
	}
	for i := range m.headers {
		m.buffers[i] = make([]byte, roomOfDatagram)
		m.vectors[i].Base = &m.buffers[i][0]
		m.headers[i].Iov = &m.vectors[i]
		m.headers[i].SetIovlen(1)
	}
	return m
}

// address has datagram i go to peer; nil: to where the socket is connected.
func (m *mmsg) address(i int, peer *unix.RawSockaddrInet4) {
	m.headers[i].Name, m.headers[i].Namelen = nil, 0
	if peer != nil {
		m.headers[i].Name, m.headers[i].Namelen = (*byte)(unsafe.Pointer(peer)), unix.SizeofSockaddrInet4
	}
}

// receive fills the set with what has come, and with who sent it.
func (m *mmsg) receive(fd, flags int) (int, error) {
	for i := range m.headers {
		m.vectors[i].SetLen(roomOfDatagram)
		m.address(i, &m.peers[i])
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.headers[0])), uintptr(len(m.headers)), uintptr(flags), 0, 0)
		switch {
		case errno == 0:
			return int(n), nil
		case errno != unix.EINTR:
			return 0, errno
		}
	}
}

func (m *mmsg) received(i int) []byte { return m.buffers[i][:m.headers[i].n] }

// send sends datagrams from to until. What the kernel refuses is lost.
func (m *mmsg) send(fd, from, until int) {
	for from < until {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.headers[from])), uintptr(until-from), 0, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0 || n == 0:
			from++
		default:
			from += int(n)
		}
	}
}

// udpSocket is a socket of IPv4 that blocks, with large buffers. Either address
// may be the zero value.
func udpSocket(bind, connect netip.AddrPort) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	// FORCE goes beyond net.core.rmem_max, and only for root.
	for option, fallback := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, socketBuffer) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, fallback, socketBuffer)
		}
	}
	if bind.IsValid() {
		err = unix.Bind(fd, sockaddr(bind))
	}
	if connect.IsValid() && err == nil {
		err = unix.Connect(fd, sockaddr(connect))
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

// giveUpReading has reads of a socket end after a time.
func giveUpReading(fd int, after unix.Timeval) error {
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &after)
}
