package srt

import (
	"net/netip"
	"slices"
	"sync"

	"srsx/proxy/datagram"
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

	// mu guards what follows, and which flow is at which upstream.
	mu     sync.Mutex
	byAddr map[netip.AddrPort][]*upstream
}

// upstream is one socket, connected to one address of an origin.
type upstream struct {
	all    *upstreams
	addr   netip.AddrPort
	socket *datagram.Socket

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
	u := &upstream{all: s, addr: addr, flows: make(map[uint32]*flow)}
	var err error
	if u.socket, err = datagram.Dial(addr, u.refused); err != nil {
		return nil, err
	}
	if err = u.socket.Start(u.packet); err != nil {
		_ = u.socket.Close()
		return nil, err
	}
	u.add(f)
	s.byAddr[addr] = append(s.byAddr[addr], u)
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
	_ = u.socket.Close()
	left := slices.DeleteFunc(s.byAddr[u.addr], func(other *upstream) bool { return other == u })
	if len(left) == 0 {
		delete(s.byAddr, u.addr)
		return
	}
	s.byAddr[u.addr] = left
}

// packet relays what the origin sends.
func (u *upstream) packet(p []byte, _ datagram.Way, out *datagram.Sender) {
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
	f.fromOrigin(u, p, out)
}

// send sends one packet to the origin. What cannot be sent is lost, as on any
// network; but a port that is closed has no flows any more.
func (u *upstream) send(p []byte) { _ = u.socket.Send(p, datagram.Way{}) }

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
