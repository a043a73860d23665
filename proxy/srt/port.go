package srt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
)

const (
	// maxDatagram is what one read takes, in bytes: the largest Ethernet frames
	// there are. SRT itself stays below 1500 unless it is configured otherwise.
	maxDatagram = 9000
	// socketBuffer is what is asked of the kernel in each direction, in bytes:
	// a burst must wait, since what is dropped here is lost media. The kernel
	// gives what net.core.rmem_max and wmem_max allow.
	socketBuffer = 4 << 20
)

// Port is the UDP port that clients send to. Its methods are safe for
// concurrent use, but for read.
type Port struct {
	conn *net.UDPConn
	// tells: each packet tells the address of ours that it was sent to, and
	// answers leave from there. Without it a host with several addresses would
	// answer from another than it was asked at, which clients drop.
	tells bool
}

// endpoint is where a client is, and where it reached us.
type endpoint struct {
	addr netip.AddrPort
	// control holds our address as the system wants it; empty: there is only
	// one, or the system does not say.
	control []byte
}

// kept returns e for longer than until the next read.
func (e endpoint) kept() endpoint {
	e.control = slices.Clone(e.control)
	return e
}

// client is the address without the form that the socket gives it.
func (e endpoint) client() netip.AddrPort {
	return netip.AddrPortFrom(e.addr.Addr().Unmap(), e.addr.Port())
}

// Listen opens the port. addr is host:port or a port alone. The error reads
// "listen srt 0.0.0.0:20080: address already in use".
func Listen(ctx context.Context, addr string) (*Port, error) {
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	packets, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen srt %s: %w", addr, bareError(err))
	}
	conn, ok := packets.(*net.UDPConn)
	if !ok {
		_ = packets.Close()
		return nil, fmt.Errorf("listen srt %s: %w", addr, net.UnknownNetworkError(packets.LocalAddr().Network()))
	}
	p := &Port{conn: conn}
	enlarge(conn)
	if p.Addr().Addr().IsUnspecified() {
		p.tells = tellAddress(conn) == nil
	}
	return p, nil
}

// enlarge asks for large buffers; without them it works, if less well.
func enlarge(conn *net.UDPConn) {
	_ = conn.SetReadBuffer(socketBuffer)
	_ = conn.SetWriteBuffer(socketBuffer)
}

// bareError is the system's own words without "listen udp ...: bind:".
func bareError(err error) error {
	if opErr := (*net.OpError)(nil); errors.As(err, &opErr) {
		err = opErr.Err
	}
	if callErr := (*os.SyscallError)(nil); errors.As(err, &callErr) {
		err = callErr.Err
	}
	return err
}

// Addr returns the address that the port listens on.
func (p *Port) Addr() netip.AddrPort {
	if addr, ok := p.conn.LocalAddr().(*net.UDPAddr); ok {
		return addr.AddrPort()
	}
	return netip.AddrPort{}
}

// Close closes the port. [Server.Serve] does so itself when it ends.
func (p *Port) Close() error { return p.conn.Close() }

// read reads one datagram into b. The endpoint's control is a part of room and
// holds until the next read.
func (p *Port) read(b, room []byte) (n int, from endpoint, err error) {
	if !p.tells {
		n, from.addr, err = p.conn.ReadFromUDPAddrPort(b)
		return n, from, err
	}
	n, told, _, addr, err := p.conn.ReadMsgUDPAddrPort(b, room)
	if err != nil {
		return 0, endpoint{}, err
	}
	return n, endpoint{addr: addr, control: answerFrom(room[:told])}, nil
}

// write sends one datagram. What cannot be sent is lost, as on any network.
func (p *Port) write(b []byte, to endpoint) {
	if len(to.control) == 0 {
		_, _ = p.conn.WriteToUDPAddrPort(b, to.addr)
		return
	}
	_, _, _ = p.conn.WriteMsgUDPAddrPort(b, to.control, to.addr)
}
