package gossip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxPacket drops what no peer sends: memberlist fills packets up to 1400
	// bytes. It also bounds what one packet can inflate to.
	maxPacket = 2048
	// maxStream is more than the state of a thousand peers.
	maxStream = 2 << 20
	// maxStreams and maxStreamsPerHost bound the inbound streams at once, of all
	// hosts and of one. A peer opens one for some milliseconds; who only holds
	// them open uses up its own share.
	maxStreams        = 512
	maxStreamsPerHost = 64

	receiveBuffer = 2 << 20 // bytes; the kernel may grant less
	acceptPause   = 50 * time.Millisecond
)

// transport carries gossip: UDP and TCP on one port. Other than memberlist's own
// it drops foreign packets before they cost a log line, bounds what strangers can
// hold open, and leaves no connection behind when it is shut down.
type transport struct {
	packets   *net.UDPConn
	streams   *net.TCPListener
	advertise netip.AddrPort
	prefix    string // of every packet of this cluster

	packetCh chan *memberlist.Packet
	streamCh chan net.Conn

	ctx    context.Context //nolint:containedctx // memberlist dials without one; ends with Shutdown
	cancel context.CancelFunc
	loops  sync.WaitGroup

	mu      sync.Mutex
	open    map[*trackedConn]struct{} // guarded by mu
	inbound map[netip.Addr]int        // guarded by mu; streams by host
	total   int                       // guarded by mu; inbound streams
}

var _ memberlist.NodeAwareTransport = (*transport)(nil)

// listen opens the gossip port. label is the cluster's name; advertise is how
// others reach this peer, a zero port meaning the one listened on.
func listen(address, label string, advertise netip.Addr) (*transport, error) {
	streams, packets, err := listenBoth(address)
	if err != nil {
		return nil, err
	}
	port := streams.Addr().(*net.TCPAddr).AddrPort().Port() //nolint:errcheck // the address of a TCP listener
	ctx, cancel := context.WithCancel(context.Background())
	t := &transport{
		packets:   packets,
		streams:   streams,
		advertise: netip.AddrPortFrom(advertise, port),
		prefix:    packetPrefix(label),
		packetCh:  make(chan *memberlist.Packet),
		streamCh:  make(chan net.Conn),
		ctx:       ctx,
		cancel:    cancel,
		open:      make(map[*trackedConn]struct{}),
		inbound:   make(map[netip.Addr]int),
	}
	t.loops.Go(t.acceptStreams)
	t.loops.Go(t.readPackets)
	return t, nil
}

// listenBoth opens one port for TCP and UDP. Asked for a free one it tries again
// when UDP has not the port that TCP was given.
func listenBoth(address string) (*net.TCPListener, *net.UDPConn, error) {
	const attempts = 10
	for attempt := 1; ; attempt++ {
		addr, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			return nil, nil, fmt.Errorf("gossip address %s: %w", address, err)
		}
		streams, err := net.ListenTCP("tcp", addr)
		if err != nil {
			return nil, nil, fmt.Errorf("gossip: %w", err)
		}
		bound := streams.Addr().(*net.TCPAddr) //nolint:errcheck // the address of a TCP listener
		packets, err := net.ListenUDP("udp", &net.UDPAddr{IP: bound.IP, Port: bound.Port, Zone: bound.Zone})
		if err == nil {
			_ = packets.SetReadBuffer(receiveBuffer)
			return streams, packets, nil
		}
		_ = streams.Close()
		if addr.Port != 0 || attempt == attempts || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, fmt.Errorf("gossip: %w", err)
		}
	}
}

// packetPrefix is how memberlist marks packets with a label: a type byte and the
// length, then the label.
func packetPrefix(label string) string {
	const labelled = 244
	return string([]byte{labelled, byte(len(label))}) + label
}

// FinalAdvertiseAddr returns what listen was told.
func (t *transport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return t.advertise.Addr().AsSlice(), int(t.advertise.Port()), nil
}

// WriteTo sends one packet.
func (t *transport) WriteTo(b []byte, addr string) (time.Time, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return time.Time{}, err
	}
	_, err = t.packets.WriteToUDPAddrPort(b, to)
	return time.Now(), err
}

// WriteToAddress sends one packet.
func (t *transport) WriteToAddress(b []byte, addr memberlist.Address) (time.Time, error) {
	return t.WriteTo(b, addr.Addr)
}

// PacketCh returns what was received.
func (t *transport) PacketCh() <-chan *memberlist.Packet { return t.packetCh }

// StreamCh returns what was accepted.
func (t *transport) StreamCh() <-chan net.Conn { return t.streamCh }

// DialTimeout opens a stream to another peer.
func (t *transport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(t.ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return t.track(&trackedConn{Conn: conn, t: t, left: maxStream})
}

// DialAddressTimeout opens a stream to another peer.
func (t *transport) DialAddressTimeout(addr memberlist.Address, timeout time.Duration) (net.Conn, error) {
	return t.DialTimeout(addr.Addr, timeout)
}

// Shutdown closes the port and every stream and waits for the loops.
func (t *transport) Shutdown() error {
	t.cancel()
	_ = t.streams.Close()
	_ = t.packets.Close()
	t.mu.Lock()
	open := t.open
	t.open = nil
	t.mu.Unlock()
	for conn := range open {
		_ = conn.Conn.Close()
	}
	t.loops.Wait()
	return nil
}

func (t *transport) readPackets() {
	buf := make([]byte, maxPacket+1)
	for {
		n, from, err := t.packets.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n > maxPacket || n <= len(t.prefix) || string(buf[:len(t.prefix)]) != t.prefix {
			continue
		}
		packet := &memberlist.Packet{
			Buf:       append([]byte(nil), buf[:n]...),
			From:      net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Addr().Unmap(), from.Port())),
			Timestamp: time.Now(),
		}
		select {
		case t.packetCh <- packet:
		case <-t.ctx.Done():
			return
		}
	}
}

func (t *transport) acceptStreams() {
	for {
		conn, err := t.streams.AcceptTCP()
		switch {
		case err == nil:
			t.hand(conn)
		case t.ctx.Err() != nil:
			return
		default: // out of descriptors, most likely: others close some
			select {
			case <-time.After(acceptPause):
			case <-t.ctx.Done():
				return
			}
		}
	}
}

// hand passes an accepted stream on, or closes it when there are too many.
func (t *transport) hand(conn *net.TCPConn) {
	host := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap() //nolint:errcheck // the peer of a TCP connection
	if !t.enter(host) {
		_ = conn.Close()
		return
	}
	tracked, err := t.track(&trackedConn{Conn: conn, t: t, host: host, left: maxStream})
	if err != nil {
		return
	}
	select {
	case t.streamCh <- tracked:
	case <-t.ctx.Done():
		_ = tracked.Close()
	}
}

func (t *transport) enter(host netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total >= maxStreams || t.inbound[host] >= maxStreamsPerHost {
		return false
	}
	t.total++
	t.inbound[host]++
	return true
}

// track remembers an open stream, so that Shutdown closes it.
func (t *transport) track(conn *trackedConn) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		_ = conn.Conn.Close()
		return nil, net.ErrClosed
	}
	t.open[conn] = struct{}{}
	return conn, nil
}

// trackedConn is a stream that may bring so many bytes and no more.
type trackedConn struct {
	net.Conn
	t    *transport
	host netip.Addr // of an accepted stream; invalid for a dialled one
	left int        // bytes that may still be read; used by one reader at a time
	once sync.Once
}

var errStreamTooLong = errors.New("peer sends more than the state of a cluster")

func (c *trackedConn) Read(b []byte) (int, error) {
	if c.left <= 0 {
		return 0, errStreamTooLong
	}
	n, err := c.Conn.Read(b[:min(len(b), c.left)])
	c.left -= n
	return n, err
}

func (c *trackedConn) Close() error {
	c.once.Do(func() {
		c.t.mu.Lock()
		defer c.t.mu.Unlock()
		delete(c.t.open, c)
		if !c.host.IsValid() {
			return
		}
		c.t.total--
		if c.t.inbound[c.host]--; c.t.inbound[c.host] == 0 {
			delete(c.t.inbound, c.host)
		}
	})
	return c.Conn.Close()
}
