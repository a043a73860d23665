package relay

import (
	"context"
	"net/netip"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// Ticket is what it takes to carry the media of one session. Peers tell it each
// other.
type Ticket struct {
	// ID names the session for its life: the origin's first ufrag.
	ID string `json:"id"`
	// Ufrag and Password are the origin's, those of a client's requests.
	Ufrag    string `json:"ufrag"`
	Password string `json:"password"`

	Origin      lb.OriginID       `json:"origin"`
	Incarnation proxy.Fingerprint `json:"incarnation"`

	// Stream is zero where a ufrag is all that is known.
	Stream  lb.Stream      `json:"stream"`
	Publish bool           `json:"publish"`
	Kind    string         `json:"kind"`   // whip or whep
	Client  netip.AddrPort `json:"client"` // as it signalled
	// Resource is the path and query at the origin's API that end the session;
	// empty where it has none.
	Resource string `json:"resource,omitempty"`
}

// maxExpected bounds the sessions that wait for media.
const maxExpected = 50_000

// expected is a session that was signalled here, or told by another peer, and
// has no media here.
type expected struct {
	ticket  Ticket
	session proxy.Session // nil: another peer has it
	// stop ends the watch over the session.
	stop  func() bool
	until time.Time
}

// Expect takes a session whose answer is about to go to the client: its first
// media takes the proxy.Session over, and until then the relay ends it. The error
// is lb.ErrLimit when too many wait already; the session is over then.
//
// A ufrag is all that the first datagram of a client says. If the origin has given
// the credentials of another session again, that one is over.
func (r *Relay) Expect(t Ticket, session proxy.Session) error {
	e := &expected{ticket: t, session: session, until: time.Now().Add(r.config.AwaitTime)}
	e.stop = context.AfterFunc(session.Context(), func() { r.dropExpected(e) })
	r.mu.Lock()
	flow := r.flows[t.Ufrag]
	ok := r.expectLocked(e)
	r.mu.Unlock()
	if !ok {
		e.finish(lb.ErrLimit)
		r.aside(func() { r.config.Ended(t) })
		return lb.ErrLimit
	}
	if flow != nil {
		flow.end(errReplaced)
	}
	if session.Context().Err() != nil {
		r.dropExpected(e) // the other call may have come too early to find it
	}
	return nil
}

// Restarted takes the credentials that a session of this peer or another has
// after an ICE restart.
func (r *Relay) Restarted(t Ticket) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.flows[t.ID]; f != nil {
		r.addUfragLocked(f, t.Ufrag, t.Password)
		return
	}
	r.expectLocked(&expected{ticket: t, until: time.Now().Add(r.config.AwaitTime)})
}

// expectLocked has a session wait for media, and one of the same ufrag no longer.
// It reports whether there was room.
func (r *Relay) expectLocked(e *expected) bool {
	name := e.ticket.Ufrag
	former := r.expected[name]
	if former == nil && len(r.expected) >= maxExpected {
		return false
	}
	r.expected[name] = e
	if former != nil && former.session != nil {
		r.work.Go(func() { former.finish(errReplaced) })
	}
	return true
}

// dropExpected forgets a session that was ended while it waited.
func (r *Relay) dropExpected(e *expected) {
	if r.forgetExpected(func(other *expected) (bool, error) { return other == e, nil }) > 0 {
		r.endedByPeer(e.ticket, e.session)
	}
}

// forgetExpected forgets those that over names, with the reason of their end, and
// returns how many those are.
func (r *Relay) forgetExpected(over func(*expected) (is bool, reason error)) int {
	gone := make(map[*expected]error)
	r.mu.Lock()
	for name, e := range r.expected {
		if is, reason := over(e); is {
			delete(r.expected, name)
			gone[e] = reason
		}
	}
	r.mu.Unlock()
	for e, reason := range gone {
		e.finish(reason)
	}
	return len(gone)
}

// finish ends the session, if this peer has it. The relay's lock is not held.
func (e *expected) finish(reason error) {
	if e.session == nil {
		return
	}
	e.stop()
	e.session.End(reason)
}

// knownLocked returns the ticket of a ufrag that was signalled here, was told or
// has media here.
func (r *Relay) knownLocked(name string) (Ticket, bool) {
	if f := r.flows[name]; f != nil {
		return f.ticketFor(name)
	}
	if e := r.expected[name]; e != nil {
		return e.ticket, true
	}
	return Ticket{}, false
}

// fromRoute makes the ticket of a ufrag that this cluster chose, as far as it
// says. Its origin may be gone.
func (r *Relay) fromRoute(name []byte, now time.Time) (Ticket, bool) {
	key := r.config.Key()
	route, password, ok := key.Read(name, now)
	if !ok {
		return Ticket{}, false
	}
	o, ok := r.prints.FindShort(route.Origin, r.config.Finder, now)
	if !ok {
		return Ticket{}, false
	}
	kind := "whep"
	if route.Publish {
		kind = "whip"
	}
	return Ticket{
		ID: string(name), Ufrag: string(name), Password: password,
		Origin: o.ID, Incarnation: proxy.FingerprintOf(o.ID, o.Incarnation),
		Publish: route.Publish, Kind: kind,
	}, true
}
