// Package datagram carries datagrams of UDP many at a time. What waits at a
// socket is read in one call, what goes the same way is sent in one, and a run of
// equal sizes is one long message that the kernel cuts (udp(7) UDP_SEGMENT) or
// has put together (UDP_GRO): a frame of video costs little more than a datagram.
//
// All sockets are served by a few loops, which the package runs while there are
// any. Other systems than Linux have the same interface, a goroutine a socket and
// one datagram a call.
package datagram

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"

	"srsx/proxy"
)

const (
	// socketBuffer is what is asked of the kernel in each direction, in bytes: a
	// burst must wait, such as a key frame for a thousand viewers, since what is
	// dropped here is lost media. The kernel gives what net.core.rmem_max and
	// wmem_max allow.
	socketBuffer = 4 << 20
	// maxLength is the longest datagram there is, in bytes.
	maxLength = 1<<16 - 1
)

// Way is where a datagram came from, or goes to. It is the zero value for a socket
// that is connected.
type Way struct {
	Remote netip.AddrPort
	// Local is the address of ours that the other side knows. A host with several
	// has to answer from there. It is the zero value for a socket that is bound to
	// one.
	Local netip.Addr
}

// Take deals with one datagram. It must not wait for anything: other sockets wait
// meanwhile. b is good until it returns, and as long as it is queued in out; it may
// be changed, but not lengthened.
type Take func(b []byte, from Way, out *Sender)

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
