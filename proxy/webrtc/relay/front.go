package relay

import (
	"errors"
	"net"
	"time"

	"srsx/proxy/datagram"
	"srsx/proxy/webrtc/stun"
)

// maxDatagram is the longest that is relayed, in bytes: above the MTU of Ethernet,
// which senders of media stay below.
const maxDatagram = 2048

// source is where a datagram of a client came in.
type source struct {
	way    datagram.Way
	socket *datagram.Socket // nil: conn
	conn   *framed
}

// ServeUDP takes datagrams until the socket is closed.
func (r *Relay) ServeUDP(s *datagram.Socket) error {
	err := s.Start(func(b []byte, way datagram.Way, out *datagram.Sender) {
		if len(b) > maxDatagram {
			r.drops.count(dropLong)
			return
		}
		r.mu.RLock()
		known := r.paths[way]
		r.mu.RUnlock()
		r.fromClient(source{way: way, socket: s}, known, b, out)
	})
	switch {
	case err == nil:
		<-s.Done()
		return nil
	case errors.Is(err, net.ErrClosed):
		return nil
	default:
		return err
	}
}

// fromClient handles a datagram. known is the path by which it came, nil for one
// that is new; the path that it is now comes back. What is sent on is queued in
// out.
func (r *Relay) fromClient(from source, known *path, b []byte, out *datagram.Sender) *path {
	switch kind := kindOf(b); {
	case kind == kindSTUN:
		return r.stunFromClient(from, known, b, out)
	case kind == kindOther:
		r.drops.count(dropOther)
	case known == nil:
		r.drops.count(dropStranger)
	default:
		known.flow.mediaFromClient(known, kind, b, out)
	}
	return known
}

// mediaFromClient passes media or DTLS on to the origin.
func (f *flow) mediaFromClient(p *path, kind kind, b []byte, out *datagram.Sender) {
	f.hear(p)
	if kind == kindDTLS && b[0] == dtlsAlert {
		f.goodbye.Store(f.relay.clock.Load())
	}
	if f.selected.Load() != p {
		f.followMedia(p)
	}
	f.upstream.write(b, out)
	f.fromBytes.Add(int64(len(b)))
}

func (r *Relay) stunFromClient(from source, known *path, b []byte, out *datagram.Sender) *path {
	m, err := stun.Parse(b)
	if err != nil || m.Class == stun.Request && !m.Binding {
		r.drops.count(dropMalformed)
		return known
	}
	if m.Class == stun.Request {
		return r.check(from, known, &m, b, out)
	}
	if known == nil {
		r.drops.count(dropStranger)
		return nil
	}
	// The answer to a check of the origin's, or an indication. The origin looks
	// at what vouches for it.
	known.flow.hear(known)
	known.flow.upstream.write(b, out)
	return known
}

// hear notes that a client lives.
func (f *flow) hear(p *path) {
	now := f.relay.clock.Load()
	f.heard.Store(now)
	p.heard.Store(now)
	if f.goodbye.Load() != 0 {
		f.goodbye.Store(0)
	}
}

// check handles a request for a connectivity check, which alone can open paths
// and flows.
func (r *Relay) check(from source, known *path, m *stun.Message, b []byte, out *datagram.Sender) *path {
	name, _, ok := m.Halves()
	if !ok || !m.HasIntegrity() {
		r.drops.count(dropMalformed)
		return known
	}
	r.mu.RLock()
	f := r.flows[string(name)]
	r.mu.RUnlock()
	if f == nil {
		f = r.meet(from, name, m)
	} else if v := f.verifier(name); v == nil || !v.Verify(m) {
		r.drops.count(dropIntegrity)
		f = nil
	}
	if f == nil {
		return known
	}
	if known == nil || known.flow != f {
		if known = r.addPath(f, from); known == nil {
			return nil
		}
	}
	if !f.checked(known, m) {
		r.drops.count(dropReplay)
		return known
	}
	f.hear(known)
	f.upstream.write(b, out)
	return known
}

// meet opens the flow of a session that has none here yet. It returns nil when
// there is nothing to be opened, or not now: the client will check again.
func (r *Relay) meet(from source, name []byte, m *stun.Message) *flow {
	now := time.Now()
	r.mu.RLock()
	e := r.expected[string(name)]
	r.mu.RUnlock()
	var t Ticket
	if e != nil {
		t = e.ticket
	} else {
		var ok bool
		if t, ok = r.fromRoute(name, now); !ok {
			r.drops.count(dropUnknown)
			r.askAbout(name, from.way.Remote.Addr(), now)
			return nil
		}
	}
	if !stun.NewVerifier(t.Password).Verify(m) {
		r.drops.count(dropIntegrity)
		return nil
	}
	return r.openFlow(t)
}

// addPath makes a path of a flow; nil when the flow is over.
func (r *Relay) addPath(f *flow, from source) *path {
	p := &path{flow: f, way: from.way, conn: from.conn, socket: from.socket}
	p.heard.Store(r.clock.Load())
	r.mu.Lock()
	if former := r.paths[p.way]; former != nil && p.socket != nil {
		former.flow.removePath(former) // the client uses its port for another session
	}
	f.mu.Lock()
	over := f.over
	var evicted *path
	if !over {
		if f.unheld { // not before: the path tells who the client is
			f.unheld = false
			defer r.aside(f.hold)
		}
		evicted = f.appendPathLocked(p)
		if p.socket != nil {
			r.paths[p.way] = p
		}
		if evicted != nil {
			r.forgetPathLocked(evicted)
		}
	}
	f.mu.Unlock()
	r.mu.Unlock()
	if evicted != nil {
		evicted.close()
	}
	if over {
		return nil
	}
	return p
}
