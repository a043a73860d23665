package relay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/datagram"
)

// dialTimeout bounds finding and connecting to an origin's media port, where it
// has a host name or takes TCP only.
const dialTimeout = 3 * time.Second

// upstream is a flow's own way to its origin. What cannot be written is lost.
type upstream interface {
	// start hands what comes to take, by a goroutine of work if it needs one, until
	// the upstream is closed. ended is called if the origin does that.
	start(work *sync.WaitGroup, take datagram.Take, ended func(error)) error
	write(b []byte, out *datagram.Sender)
	close() error
}

// udpUpstream lasts while the origin's port is closed: it may be open again soon.
type udpUpstream struct{ *datagram.Socket }

func (u udpUpstream) start(_ *sync.WaitGroup, take datagram.Take, _ func(error)) error {
	return u.Start(take)
}

func (u udpUpstream) write(b []byte, out *datagram.Sender) { out.Queue(u.Socket, b, datagram.Way{}) }

func (u udpUpstream) close() error { return u.Close() }

type tcpUpstream struct{ *framed }

func (t tcpUpstream) start(work *sync.WaitGroup, take datagram.Take, ended func(error)) error {
	work.Go(t.drain)
	work.Go(func() {
		b := make([]byte, maxDatagram)
		for {
			n, err := t.read(b)
			if err != nil {
				ended(err)
				return
			}
			take(b[:n], datagram.Way{}, nil)
		}
	})
	return nil
}

func (t tcpUpstream) write(b []byte, _ *datagram.Sender) { t.queue(b) }

func (t tcpUpstream) close() error { return t.Close() }

// openFlow opens the flow of a session, or starts to, and then returns nil: where
// the origin has to be looked up, or connected to. A client checks again.
func (r *Relay) openFlow(t Ticket) *flow {
	o, known := r.config.Finder.Origin(t.Origin)
	if !known || proxy.FingerprintOf(o.ID, o.Incarnation) != t.Incarnation {
		r.drops.count(dropOrigin)
		return nil
	}
	network, addr, ok := mediaEndpoint(o.Origin)
	if !ok {
		r.drops.count(dropOrigin)
		return nil
	}
	if to, err := netip.ParseAddrPort(addr); err == nil && network == "udp" {
		socket, err := datagram.Dial(to, nil)
		if err != nil {
			r.drops.count(dropOrigin)
			return nil
		}
		return r.begin(t, udpUpstream{socket})
	}
	r.openAside(t, network, addr)
	return nil
}

// mediaEndpoint is where an origin takes the media of WebRTC: UDP if it can.
func mediaEndpoint(o lb.Origin) (network, addr string, ok bool) {
	for _, network := range []string{"udp", "tcp"} {
		for _, endpoint := range o.Endpoints.RTC {
			if addr, found := strings.CutPrefix(endpoint, network+"://"); found {
				return network, addr, true
			}
		}
	}
	return "", "", false
}

// openAside opens a flow whose origin takes a while to be reached, once at a time.
func (r *Relay) openAside(t Ticket, network, addr string) {
	const most = 256
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opening[t.ID] || len(r.opening) >= most || r.life.Err() != nil {
		return
	}
	r.opening[t.ID] = true
	r.work.Go(func() {
		conn, err := r.dial(network, addr)
		if err != nil {
			r.config.Log.Info("origin not reached", "kind", t.Kind, "origin", t.Origin, "err", err)
		} else {
			r.begin(t, conn)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.opening, t.ID)
	})
}

func (r *Relay) dial(network, addr string) (upstream, error) {
	ctx, cancel := context.WithTimeout(r.life, dialTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", proxy.ErrUnreachable, err)
	}
	if udp, ok := conn.(*net.UDPConn); ok {
		socket, err := datagram.New(udp, nil)
		return udpUpstream{socket}, err
	}
	return tcpUpstream{newFramed(conn)}, nil
}

// begin makes a flow and its goroutine; nil when it may not be, or not any more.
// There may have come one meanwhile: that is it then.
func (r *Relay) begin(t Ticket, up upstream) *flow {
	f := &flow{relay: r, upstream: up, ticket: t, done: make(chan struct{})}
	f.heard.Store(r.clock.Load())
	r.mu.Lock()
	if other := r.flows[t.ID]; other != nil {
		r.addUfragLocked(other, t.Ufrag, t.Password)
		r.mu.Unlock()
		_ = up.close()
		return other
	}
	if why := r.refusesLocked(t); why != dropNot {
		r.mu.Unlock()
		_ = up.close()
		r.drops.count(why)
		return nil
	}
	r.open[f] = struct{}{}
	r.addUfragLocked(f, t.ID, t.Password)
	if t.Ufrag != t.ID {
		r.addUfragLocked(f, t.Ufrag, t.Password)
	}
	e := r.takeExpectedLocked(t)
	f.unheld = e == nil
	err := up.start(&r.work, f.fromOrigin, f.originEnded)
	r.mu.Unlock()

	if err != nil {
		defer f.originEnded(err)
	}
	if e != nil {
		e.stop()
		f.adopt(e.session)
	}
	return f
}

// takeExpectedLocked forgets what is expected of a session, and returns what has
// its proxy.Session.
func (r *Relay) takeExpectedLocked(t Ticket) (holder *expected) {
	for _, name := range []string{t.Ufrag, t.ID} {
		if e := r.expected[name]; e != nil {
			delete(r.expected, name)
			if e.session != nil {
				holder = e
			}
		}
	}
	return holder
}

// refusesLocked says why a session gets no flow.
func (r *Relay) refusesLocked(t Ticket) drop {
	_, ended := r.ended[t.ID]
	e := r.expected[t.Ufrag]
	here := e != nil && e.session != nil
	switch {
	case r.life.Err() != nil, ended, r.draining && !here:
		return dropEnded
	case len(r.open) >= r.config.MaxFlows:
		return dropFull
	default:
		return dropNot
	}
}

// appendPathLocked adds a path and returns the one that makes room: the longest
// silent that is not selected.
func (f *flow) appendPathLocked(p *path) (evicted *path) {
	paths := append(slices.Clone(f.paths), p) // others may be reading the list
	if len(paths) > maxPaths {
		at := -1
		for i, other := range paths[:maxPaths] {
			if other != f.selected.Load() && (at < 0 || other.heard.Load() < paths[at].heard.Load()) {
				at = i
			}
		}
		evicted = paths[at]
		paths = slices.Delete(paths, at, at+1)
		f.forgetLocked(evicted)
	}
	f.paths = paths
	return evicted
}

// forgetPathLocked takes a path out of the table, which has those of UDP.
func (r *Relay) forgetPathLocked(p *path) {
	if r.paths[p.way] == p {
		delete(r.paths, p.way)
	}
}

// removePath takes a path out of the flow, but not out of the table.
func (f *flow) removePath(p *path) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.paths = slices.DeleteFunc(slices.Clone(f.paths), func(other *path) bool { return other == p })
	f.forgetLocked(p)
}

// forgetLocked lets nothing go by a path any more.
func (f *flow) forgetLocked(p *path) {
	for i := range f.transactions {
		if f.transactions[i].path == p {
			f.transactions[i].path = nil
		}
	}
	if f.selected.Load() != p {
		return
	}
	// The client has to choose anew; until then, whichever was heard last.
	var best *path
	for _, other := range f.paths {
		if best == nil || other.heard.Load() > best.heard.Load() {
			best = other
		}
	}
	f.selected.Store(best)
	f.nominated = false
}
