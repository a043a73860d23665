// Package replica is the side of a backend that every peer has: it follows what
// the state machine did, answers reads from its own copy, remembers the events,
// and counts the sessions of this peer.
package replica

import (
	"iter"
	"sync"

	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/index"
)

// Replica follows one state machine. Its methods are safe for concurrent use,
// but for Follow and Reset: one goroutine at a time calls them, in the order in
// which the machine changed.
type Replica struct {
	index *index.Index

	mu       sync.Mutex // guards what follows
	journal  journal
	sessions map[lb.Stream]*holding
	changed  chan struct{} // closed and replaced when a refused Acquire may succeed
	closed   bool
}

// New returns the replica of an empty state.
func New() *Replica {
	return &Replica{
		index:    index.New(),
		journal:  newJournal(),
		sessions: make(map[lb.Stream]*holding),
		changed:  make(chan struct{}),
	}
}

// Follow takes over what commands changed. s is as they left it.
func (r *Replica) Follow(s *fsm.State, results ...fsm.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	awaited := false
	for _, result := range results {
		for _, change := range result.Changes {
			r.follow(s, change)
			// A candidate came up, or one is below its cap again.
			awaited = awaited || change.Kind == fsm.OriginCameUp || change.Kind == fsm.Released
			if event, ok := lb.EventOf(change, s.Now()); ok {
				r.journal.add(event)
			}
		}
	}
	if awaited {
		r.wake()
	}
}

func (r *Replica) follow(s *fsm.State, change fsm.Change) {
	if change.Kind == fsm.Forgotten {
		delete(r.sessions, change.Stream) // those on it are to end: they hold nothing any more
	}
	r.index.Follow(s, change)
}

// Reset starts anew from a state that a snapshot brought. What happened in
// between is not known, so that subscriptions end: their readers read again.
func (r *Replica) Reset(s *fsm.State) {
	r.index.Reset(s)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.journal.disconnect()
	r.wake()
}

// Changed returns a channel that is closed when an Acquire that was refused may
// succeed.
func (r *Replica) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Wake lets those who wait for Changed look again.
func (r *Replica) Wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wake()
}

func (r *Replica) wake() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// Close ends the subscriptions and wakes who waits.
func (r *Replica) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.closed = true
		r.journal.close()
		r.wake()
	}
}

// Alive returns the placement of s if its origin is not down and is still the
// incarnation that it was placed on.
func (r *Replica) Alive(s lb.Stream) (lb.Placement, lb.Origin, bool) {
	p, o, ok := r.index.Lookup(s)
	return p, o, ok && o.State != lb.Down && o.Incarnation == p.Incarnation
}

// Origin returns one origin, Origins all of them ordered by id.
func (r *Replica) Origin(id lb.OriginID) (lb.Origin, bool) { return r.index.Origin(id) }

// Origins returns all origins ordered by id.
func (r *Replica) Origins() []lb.Origin { return r.index.Origins() }

// Placements yields all placements in the order of their stream, with the
// number of sessions that this peer has on each.
func (r *Replica) Placements() iter.Seq[lb.PlacementStatus] {
	return func(yield func(lb.PlacementStatus) bool) {
		for p := range r.index.Placements() {
			if !yield(lb.PlacementStatus{Placement: p, Sessions: r.Sessions(p.Stream, p.Generation)}) {
				return
			}
		}
	}
}

// History returns the last events of a stream, oldest first.
func (r *Replica) History(s lb.Stream) []lb.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.of(s)
}

// Events subscribes to what happens; see [lb.Balancer.Events].
func (r *Replica) Events() (events <-chan lb.Event, cancel func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	events = r.journal.subscribe()
	return events, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.journal.unsubscribe(events)
	}
}
