package relay

import (
	"errors"
	"net"
	"time"

	"srsx/proxy/webrtc/stun"
)

// source is where a datagram of a client came in.
type source struct {
	key    pathKey
	socket *socket // nil: conn
	conn   *framed
}

// ServeUDP takes datagrams until conn is closed. One goroutine does, whatever the
// number of clients.
func (r *Relay) ServeUDP(conn *net.UDPConn) error {
	s, err := newSocket(conn)
	if err != nil {
		return err
	}
	b, control := make([]byte, maxDatagram+1), make([]byte, controlSize)
	for {
		n, key, err := s.read(b, control)
		switch {
		case err == nil && n <= maxDatagram:
			r.mu.RLock()
			known := r.paths[key]
			r.mu.RUnlock()
			r.fromClient(source{key: key, socket: s}, known, b[:n])
		case err == nil:
			r.drops.count(dropLong)
		case errors.Is(err, net.ErrClosed):
			return nil
		case isPassing(err): // an ICMP message about a client that has gone
		default:
			return err
		}
	}
}

// fromClient handles a datagram. known is the path by which it came, nil for one
// that is new; the path that it is now comes back.
func (r *Relay) fromClient(from source, known *path, b []byte) *path {
	switch kind := kindOf(b); {
	case kind == kindSTUN:
		return r.stunFromClient(from, known, b)
	case kind == kindOther:
		r.drops.count(dropOther)
	case known == nil:
		r.drops.count(dropStranger)
	default:
		known.flow.mediaFromClient(known, kind, b)
	}
	return known
}

// mediaFromClient passes media or DTLS on to the origin.
func (f *flow) mediaFromClient(p *path, kind kind, b []byte) {
	f.hear(p)
	if kind == kindDTLS && b[0] == dtlsAlert {
		f.goodbye.Store(f.relay.clock.Load())
	}
	if f.selected.Load() != p {
		f.followMedia(p)
	}
	if f.upstream.write(b) == nil {
		f.fromBytes.Add(int64(len(b)))
	}
}

func (r *Relay) stunFromClient(from source, known *path, b []byte) *path {
	m, err := stun.Parse(b)
	if err != nil || m.Class == stun.Request && !m.Binding {
		r.drops.count(dropMalformed)
		return known
	}
	if m.Class == stun.Request {
		return r.check(from, known, &m, b)
	}
	if known == nil {
		r.drops.count(dropStranger)
		return nil
	}
	// The answer to a check of the origin's, or an indication. The origin looks
	// at what vouches for it.
	known.flow.hear(known)
	_ = known.flow.upstream.write(b)
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
func (r *Relay) check(from source, known *path, m *stun.Message, b []byte) *path {
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
	_ = f.upstream.write(b)
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
			r.askAbout(name, from.key.remote.Addr(), now)
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
	p := &path{flow: f, key: from.key, conn: from.conn, socket: from.socket}
	p.heard.Store(r.clock.Load())
	if p.socket != nil {
		p.control = p.socket.source(from.key.local)
	}
	r.mu.Lock()
	if former := r.paths[p.key]; former != nil && p.socket != nil {
		former.flow.removePath(former) // the client uses its port for another session
	}
	f.mu.Lock()
	over := f.over
	var evicted *path
	if !over {
		evicted = f.appendPathLocked(p)
		if p.socket != nil {
			r.paths[p.key] = p
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
