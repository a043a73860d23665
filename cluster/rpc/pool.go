package rpc

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"

	"srsx/cluster/port"
)

// remote is a peer to whom there are links, the newest last: that one is asked,
// as the others may be left over from before a restart or a partition.
type remote struct {
	links    []*link
	handling atomic.Int64 // cost of what we do for it
}

// dialing is a dial that all wait for who need its link.
type dialing struct {
	done chan struct{}
	link *link // as err, set before done is closed
	err  error
}

// link returns a link to a peer, dialed if need be.
func (x *Exchange) link(ctx context.Context, to port.Target) (*link, error) {
	l, d, err := x.findOrDial(to)
	if l != nil || err != nil {
		return l, err
	}
	select {
	case <-d.done:
		return d.link, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (x *Exchange) findOrDial(to port.Target) (*link, *dialing, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil, nil, errClosed
	}
	if l := x.find(to); l != nil {
		return l, nil, nil
	}
	d := x.dialing[to]
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		x.dialing[to] = d
		x.work.Go(func() { x.dial(to, d) })
	}
	return nil, d, nil
}

// find returns a living link to a peer, or nil. The caller holds x.mu.
func (x *Exchange) find(to port.Target) *link {
	if to.ID == "" {
		if l := x.byAddr[to.Addr]; l != nil && l.alive() {
			return l
		}
		return nil
	}
	if far := x.peers[to.ID]; far != nil {
		for _, l := range slices.Backward(far.links) {
			if l.alive() {
				return l
			}
		}
	}
	return nil
}

// dial is the life of a dialed link. The dial itself is nobody's in particular,
// so only the port's own deadline ends it.
func (x *Exchange) dial(to port.Target, d *dialing) {
	conn, err := x.port.Dial(x.life, port.KindRPC, to)
	if err == nil {
		if d.link = x.begin(conn, to); d.link == nil {
			err = errClosed
		}
	}
	d.err = err
	x.mu.Lock()
	delete(x.dialing, to)
	x.mu.Unlock()
	close(d.done)
	if d.link != nil {
		x.run(x.life, d.link)
	}
}

// begin takes a connection into the pool, or closes it when the exchange is
// closed. Accepted ones have no target.
func (x *Exchange) begin(conn *port.Conn, to port.Target) *link {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		_ = conn.Close()
		return nil
	}
	id := conn.Peer().ID
	far := x.peers[id]
	if far == nil {
		far = &remote{}
		x.peers[id] = far
	}
	l := newLink(conn, conn.Peer(), x.beat, &far.handling)
	far.links = append(far.links, l)
	if to.ID == "" && to.Addr != "" {
		x.byAddr[to.Addr] = l
	}
	x.work.Add(1)
	return l
}

// run is the rest of a link's life.
func (x *Exchange) run(ctx context.Context, l *link) {
	defer x.work.Done()
	err := l.run(ctx, x.handler)
	x.forget(l)
	level := x.log.DebugContext
	if errors.Is(err, errProtocol) {
		level = x.log.WarnContext
	}
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, errClosed) {
		level(ctx, "rpc connection ended", "peer", l.peer.Name, "addr", l.peer.Addr, "err", err)
	}
}

func (x *Exchange) forget(l *link) {
	x.mu.Lock()
	defer x.mu.Unlock()
	far := x.peers[l.peer.ID]
	far.links = slices.DeleteFunc(far.links, func(other *link) bool { return other == l })
	if len(far.links) == 0 {
		delete(x.peers, l.peer.ID)
	}
	for addr, other := range x.byAddr {
		if other == l {
			delete(x.byAddr, addr)
		}
	}
}

func (x *Exchange) handler(kind byte) Handler {
	if h := x.handlers[kind].Load(); h != nil {
		return *h
	}
	return nil
}
