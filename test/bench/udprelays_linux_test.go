package bench

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"srsx/test/peertest"
)

// The relays beside which srsx is measured. They know no protocol and give each
// client address a socket to the origin, which has to tell flows apart.
const (
	roleUDPPlain = "udp-plain" // a call a datagram
	roleUDPMmsg  = "udp-mmsg"  // a call for all that is there
)

// relayVariable has where such a relay listens and where its origin is,
// separated by a comma.
const relayVariable = "SRSX_BENCH_RELAY"

// startRelay starts a relay as a process of its own, until the test ends.
func startRelay(tb testing.TB, role string, origin netip.AddrPort) (relay *peertest.Process, listens netip.AddrPort) {
	tb.Helper()
	own, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	listens = netip.MustParseAddrPort("127.0.0.1:" + peertest.FreePort(tb))
	return peertest.Run(tb, peertest.Command{
		Path: own, Env: []string{roleVariable + "=" + role, fmt.Sprintf("%s=%s,%s", relayVariable, listens, origin)},
	}), listens
}

// serveUDPRelay is such a process; it reports whether role is one.
func serveUDPRelay(role string) bool {
	serve, ok := map[string]func(listen, origin netip.AddrPort) error{roleUDPPlain: relayPlainly, roleUDPMmsg: relayBatches}[role]
	if !ok {
		return false
	}
	listen, origin, _ := strings.Cut(os.Getenv(relayVariable), ",")
	panic(serve(netip.MustParseAddrPort(listen), netip.MustParseAddrPort(origin)))
}

// relayPlainly is what Go's own package does, a goroutine for each way back.
func relayPlainly(listen, origin netip.AddrPort) error {
	front, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(listen))
	if err != nil {
		return err
	}
	_ = front.SetReadBuffer(socketBuffer)
	back := make(map[netip.AddrPort]*net.UDPConn)
	b := make([]byte, roomOfDatagram)
	for {
		n, client, err := front.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		conn := back[client]
		if conn == nil {
			if conn, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(origin)); err != nil {
				return err
			}
			_ = conn.SetReadBuffer(socketBuffer)
			back[client] = conn
			go relayBack(front, conn, client)
		}
		_, _ = conn.Write(b[:n])
	}
}

func relayBack(front, conn *net.UDPConn, client netip.AddrPort) {
	b := make([]byte, roomOfDatagram)
	for {
		n, err := conn.Read(b)
		switch {
		case err == nil:
			_, _ = front.WriteToUDPAddrPort(b[:n], client)
		case !errors.Is(err, syscall.ECONNREFUSED):
			return
		}
	}
}

// batches is a relay of one thread: recvmmsg, then sendmmsg for each run of
// datagrams of one flow.
type batches struct {
	epoll, front int
	origin       netip.AddrPort
	set          *mmsg
	byClient     map[unix.RawSockaddrInet4]*relayed
	bySocket     map[int32]*relayed
}

// relayed is one flow.
type relayed struct {
	back   int
	client unix.RawSockaddrInet4
}

func relayBatches(listen, origin netip.AddrPort) error {
	r := &batches{
		origin: origin, set: newMmsg(64),
		byClient: make(map[unix.RawSockaddrInet4]*relayed), bySocket: make(map[int32]*relayed),
	}
	var err error
	if r.front, err = udpSocket(listen, netip.AddrPort{}); err != nil {
		return err
	}
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if err = watch(r.epoll, r.front); err != nil {
		return err
	}
	ready := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(r.epoll, ready, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		for _, event := range ready[:max(n, 0)] {
			if err = r.turn(event.Fd); err != nil {
				return err
			}
		}
	}
}

func watch(epoll, fd int) error {
	return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// turn relays what one socket has.
func (r *batches) turn(fd int32) error {
	n, err := r.set.receive(int(fd), unix.MSG_DONTWAIT)
	if err != nil {
		return nil //nolint:nilerr // an ICMP message, which the next read does not see
	}
	for i := range n {
		r.set.vectors[i].SetLen(int(r.set.headers[i].n))
	}
	if int(fd) == r.front {
		return r.up(n)
	}
	for i := range n {
		r.set.address(i, &r.bySocket[fd].client)
	}
	r.set.send(r.front, 0, n)
	return nil
}

func (r *batches) up(n int) error {
	for from := 0; from < n; {
		until := from
		for ; until < n && r.set.peers[until] == r.set.peers[from]; until++ {
			r.set.address(until, nil)
		}
		flow, err := r.flow(r.set.peers[from])
		if err != nil {
			return err
		}
		r.set.send(flow.back, from, until)
		from = until
	}
	return nil
}

func (r *batches) flow(client unix.RawSockaddrInet4) (*relayed, error) {
	if f := r.byClient[client]; f != nil {
		return f, nil
	}
	fd, err := udpSocket(netip.AddrPort{}, r.origin)
	if err != nil {
		return nil, err
	}
	f := &relayed{back: fd, client: client}
	r.byClient[client], r.bySocket[int32(fd)] = f, f
	return f, watch(r.epoll, fd)
}
