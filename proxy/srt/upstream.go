package srt

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"srsx/proxy/srt/wire"
)

// maxShared is how many flows share a socket towards an origin: as many as fit
// into its buffer for a tenth of a second at some Mbit/s each.
const maxShared = 64

// upstreams are the sockets towards origins. Flows to one address share them,
// since the origin tells them apart by socket ids, and so do we by the ids of
// the clients. Two clients that have the same id get two sockets.
type upstreams struct {
	metrics *Metrics
	readers sync.WaitGroup

	// mu guards what follows, and which flow is at which upstream.
	mu     sync.Mutex
	byAddr map[netip.AddrPort][]*upstream
}

// upstream is one socket, connected to one address of an origin.
type upstream struct {
	all  *upstreams
	addr netip.AddrPort
	conn *net.UDPConn

	// mu guards flows: the reader needs it for each packet.
	mu    sync.RWMutex
	flows map[uint32]*flow // by the id of the client's socket
}

func newUpstreams(metrics *Metrics) *upstreams {
	return &upstreams{metrics: metrics, byAddr: make(map[netip.AddrPort][]*upstream)}
}

// take gives a flow a socket towards addr. give must follow.
func (s *upstreams) take(addr netip.AddrPort, f *flow) (*upstream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.byAddr[addr] {
		if u.add(f) {
			return u, nil
		}
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	enlarge(conn)
	u := &upstream{all: s, addr: addr, conn: conn, flows: make(map[uint32]*flow)}
	u.add(f)
	s.byAddr[addr] = append(s.byAddr[addr], u)
	s.readers.Go(u.read)
	return u, nil
}

func (u *upstream) add(f *flow) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, taken := u.flows[f.who.id]; taken || len(u.flows) >= maxShared {
		return false
	}
	u.flows[f.who.id] = f
	return true
}

// give takes the socket from a flow, and closes it after the last.
func (s *upstreams) give(u *upstream, f *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.flows, f.who.id)
	if len(u.flows) > 0 {
		return
	}
	_ = u.conn.Close()
	left := slices.DeleteFunc(s.byAddr[u.addr], func(other *upstream) bool { return other == u })
	if len(left) == 0 {
		delete(s.byAddr, u.addr)
		return
	}
	s.byAddr[u.addr] = left
}

// wait returns when the last reader has ended.
func (s *upstreams) wait() { s.readers.Wait() }

// read relays what the origin sends, until the socket is closed.
func (u *upstream) read() {
	b := make([]byte, maxDatagram+1)
	for {
		n, err := u.conn.Read(b)
		switch {
		case err == nil:
			u.packet(b[:n])
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, syscall.ECONNREFUSED):
			u.refused(err)
		default:
			time.Sleep(time.Millisecond) // an error of the network; the next may follow at once
		}
	}
}

func (u *upstream) packet(p []byte) {
	if len(p) < wire.HeaderSize || len(p) > maxDatagram {
		u.all.metrics.drop(dropSize)
		return
	}
	u.mu.RLock()
	f := u.flows[wire.Destination(p)]
	u.mu.RUnlock()
	if f == nil {
		u.all.metrics.drop(dropUnknown)
		return
	}
	f.fromOrigin(u, p)
}

// write sends one packet to the origin. What cannot be sent is lost, as on any
// network; but a port that is closed has no flows any more.
func (u *upstream) write(p []byte) {
	if _, err := u.conn.Write(p); errors.Is(err, syscall.ECONNREFUSED) {
		u.refused(err)
	}
}

// refused ends what relied on the origin's port.
func (u *upstream) refused(err error) {
	u.mu.RLock()
	flows := make([]*flow, 0, len(u.flows))
	for _, f := range u.flows {
		flows = append(flows, f)
	}
	u.mu.RUnlock()
	for _, f := range flows {
		f.gone(u, err)
	}
}
