package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/webrtc/stun"
)

const (
	maxPaths = 8 // of one client: more than it has pairs of addresses that work
	// maxUfrags is how many ICE restarts are remembered: checks of the former
	// credentials may still be under way (RFC 8445 section 9).
	maxUfrags       = 3
	maxTransactions = 32 // checks of one client under way

	// mediaSilence is how long the nominated path has to be silent before media
	// that comes by another one takes its place: a network changed below the
	// client. A client that nominates need not wait for it.
	mediaSilence = time.Second
	// checkSilence is the same for a mere check: longer than two of a client that
	// keeps consent (RFC 7675 section 5.1), who checks its other paths, too.
	checkSilence = 6 * time.Second
	// goodbyeTime is how long after a DTLS alert nothing may come until the session
	// is over. The alert may be forged, and one that lives checks within that.
	goodbyeTime = 7 * time.Second
	pathTime    = time.Minute // without anything, until an idle path is forgotten
)

// flow is the media of one session: a client on one or more paths, and a socket
// of its own to the origin, which tells sessions apart by our address.
type flow struct {
	relay    *Relay
	upstream upstream
	// selected is where media from the origin goes; nil while there is no path.
	selected atomic.Pointer[path]

	heard     atomic.Int64 // when the client last sent anything, by the relay's clock
	goodbye   atomic.Int64 // when it last sent a DTLS alert; 0: other things came since
	fromBytes atomic.Int64 // media from the client, until the session was told
	toBytes   atomic.Int64

	mu           sync.Mutex // guards what follows
	ticket       Ticket
	ufrags       []ufragOf // the newest last
	paths        []*path   // the oldest first
	nominated    bool      // the client has chosen the selected path
	transactions [maxTransactions]transaction
	next         int // of transactions, to be overwritten
	session      proxy.Session
	unheld       bool // it has no session, and nobody sees to it yet
	unwatch      func() bool
	over         bool
	done         chan struct{} // closed when over
}

// ufragOf is one pair of credentials by which a client may check.
type ufragOf struct {
	name     string
	password string
	verifier *stun.Verifier
}

// transaction is a check that the origin has not answered yet. Its answer goes
// where the check came from.
type transaction struct {
	id   stun.TransactionID
	path *path // nil: none, or answered
}

// ticketFor returns the ticket with one of the flow's credentials.
func (f *flow) ticketFor(name string) (Ticket, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.ticket
	for _, u := range f.ufrags {
		if u.name == name {
			t.Ufrag, t.Password = u.name, u.password
			return t, true
		}
	}
	return Ticket{}, false
}

// verifier returns what checks requests for a ufrag; nil for one that is not, or
// no longer, of the flow.
func (f *flow) verifier(name []byte) *stun.Verifier {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.ufrags {
		if f.ufrags[i].name == string(name) {
			return f.ufrags[i].verifier
		}
	}
	return nil
}

// addUfragLocked has a ufrag lead to a flow, and the oldest but the first no longer.
func (r *Relay) addUfragLocked(f *flow, name, password string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range f.ufrags {
		if u.name == name {
			return
		}
	}
	f.ufrags = append(f.ufrags, ufragOf{name, password, stun.NewVerifier(password)})
	r.flows[name] = f
	// The first stays, by which peers know the session.
	if len(f.ufrags) > maxUfrags {
		if oldest := f.ufrags[1].name; r.flows[oldest] == f {
			delete(r.flows, oldest)
		}
		f.ufrags = append(f.ufrags[:1], f.ufrags[2:]...)
	}
}

// checked takes a request with valid integrity that came by a path of the flow.
// It reports whether the request may go on: not one that repeats another path's.
func (f *flow) checked(p *path, m *stun.Message) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := -1
	for i := range f.transactions {
		if t := &f.transactions[i]; t.path != nil && t.id == m.Transaction {
			if t.path != p {
				return false
			}
			at = i
		}
	}
	if at < 0 {
		at = f.next
		f.next = (f.next + 1) % maxTransactions
	}
	f.transactions[at] = transaction{m.Transaction, p}
	f.followCheck(p, m.UseCandidate)
	return true
}

// followCheck chooses the path of media by a check. The lock is held.
func (f *flow) followCheck(p *path, nominates bool) {
	former := f.selected.Load()
	now := f.relay.clock.Load()
	switch {
	case nominates:
		f.selected.Store(p)
		f.nominated = true
	case former == nil:
		f.selected.Store(p)
	case former != p && former.silent(now, checkSilence):
		f.selected.Store(p)
	default:
	}
}

// followMedia chooses the path of media by media that came: a client sends it by
// the pair that it has chosen, or will choose.
func (f *flow) followMedia(p *path) {
	f.mu.Lock()
	defer f.mu.Unlock()
	former := f.selected.Load()
	if former == nil || !f.nominated || former.silent(f.relay.clock.Load(), mediaSilence) {
		f.selected.Store(p)
	}
}

// askedBy returns where the answer to a transaction has to go, once.
func (f *flow) askedBy(id stun.TransactionID) *path {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.transactions {
		if t := &f.transactions[i]; t.path != nil && t.id == id {
			p := t.path
			t.path = nil
			return p
		}
	}
	return nil
}

// originEnded ends the flow for an error of its upstream.
func (f *flow) originEnded(err error) {
	f.end(fmt.Errorf("%w: %v", errOrigin, err)) //nolint:errorlint // its EOF is not the client's
}

// fromOrigin passes one datagram on.
func (f *flow) fromOrigin(b []byte, _ datagram.Way, out *datagram.Sender) {
	if len(b) > maxDatagram {
		f.relay.drops.count(dropLong)
		return
	}
	switch kindOf(b) {
	case kindSTUN:
		f.stunFromOrigin(b, out)
	case kindMedia, kindDTLS:
		if p := f.selected.Load(); p != nil {
			p.send(b, out)
			f.toBytes.Add(int64(len(b)))
		}
	default:
		f.relay.drops.count(dropOrigin)
	}
}

func (f *flow) stunFromOrigin(b []byte, out *datagram.Sender) {
	m, err := stun.Parse(b)
	if err != nil {
		f.relay.drops.count(dropOrigin)
		return
	}
	if m.Class == stun.Success || m.Class == stun.Failure {
		if p := f.askedBy(m.Transaction); p != nil {
			p.send(b, out)
		}
		return
	}
	// A check of the origin's own. Until a path is chosen it may be about any.
	f.mu.Lock()
	paths := f.paths
	if f.nominated {
		paths = []*path{f.selected.Load()}
	}
	f.mu.Unlock()
	for _, p := range paths {
		p.send(b, out)
	}
}

// end ends the flow and its session; reason is as for proxy.Session.End.
func (f *flow) end(reason error) {
	r := f.relay
	r.mu.Lock()
	f.mu.Lock()
	if f.over {
		f.mu.Unlock()
		r.mu.Unlock()
		return
	}
	f.over = true
	close(f.done)
	delete(r.open, f)
	for _, u := range f.ufrags {
		if r.flows[u.name] == f {
			delete(r.flows, u.name)
		}
	}
	for _, p := range f.paths {
		r.forgetPathLocked(p)
	}
	paths, session, ticket := f.paths, f.session, f.ticket
	f.mu.Unlock()
	r.mu.Unlock()

	_ = f.upstream.close()
	for _, p := range paths {
		p.close()
	}
	if session != nil {
		f.endSession(session, ticket, reason)
	}
}

func (f *flow) endSession(session proxy.Session, t Ticket, reason error) {
	f.unwatch()
	f.report(session)
	f.relay.endedByPeer(t, session)
	session.End(reason)
}

// endedByPeer has the origin told of a session that was ended at this peer, by
// an operator or by what has become of its stream. A shutdown is no such end: the
// peer may be back, or another in its place, before the client gives up.
func (r *Relay) endedByPeer(t Ticket, session proxy.Session) {
	cause := context.Cause(session.Context())
	if cause == nil || errors.Is(cause, context.Canceled) || errors.Is(cause, proxy.ErrShutdown) {
		return
	}
	r.End(t.ID)
	r.aside(func() { r.config.Ended(t) })
}

// adopt gives the flow its session, unless it is over; then the session is ended.
func (f *flow) adopt(session proxy.Session) bool {
	f.mu.Lock()
	over := f.over
	if !over {
		f.session = session
		f.unwatch = context.AfterFunc(session.Context(), func() { f.end(nil) })
	}
	f.mu.Unlock()
	if over {
		session.End(nil)
	}
	return !over
}

// report counts what passed since the last time: in from publishers, out to
// players, and not what the receivers say of it.
func (f *flow) report(session proxy.Session) {
	from, to := f.fromBytes.Swap(0), f.toBytes.Swap(0)
	if f.publishes() {
		session.Count(from, 0)
	} else {
		session.Count(0, to)
	}
}

func (f *flow) publishes() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ticket.Publish
}

// request is the flow as the router admits it.
func (f *flow) request() (proxy.Request, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.ticket
	client := t.Client
	if !client.IsValid() && len(f.paths) > 0 {
		client = f.paths[0].way.Remote
	}
	return proxy.Request{Stream: t.Stream, Protocol: lb.RTC, Kind: t.Kind, Publish: t.Publish, Client: client}, !t.Stream.IsZero()
}
