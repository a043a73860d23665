// Package memlb is the balancer of a single peer: the state machine in memory,
// behind a mutex.
package memlb

import (
	"context"
	"iter"
	"sync"
	"time"

	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/index"
	"srsx/lb/liveness"
)

// Config of a [Balancer]. Zero values mean the defaults, for limits none.
type Config struct {
	Peer   string // name of this peer, as the holder of placements
	Policy fsm.Policy
	Limits fsm.Limits
	TTL    time.Duration   // silence after which an origin is probed; default 30 s
	Probe  liveness.Prober // default: liveness.Probe
}

// Balancer implements lb.Balancer in memory.
type Balancer struct {
	self    fsm.Holder
	index   *index.Index
	tracker *liveness.Tracker
	stop    context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex // guards all below, and the writing of index
	policy  fsm.Policy
	state   *fsm.State
	loads   map[lb.OriginID]lb.Load
	retired map[lb.OriginID]lb.Incarnation // the run before the current one
	held    map[lb.Stream]*holding         // sessions of this peer
	journal journal
	changed chan struct{} // closed and replaced when an origin may have come in reach
	closed  bool
}

var _ lb.Balancer = (*Balancer)(nil)

// holding counts the sessions of this peer on one placement.
type holding struct {
	generation uint64
	sessions   int
	publishers int
}

// New returns a running balancer. Close stops it.
func New(config Config) *Balancer {
	ctx, stop := context.WithCancel(context.Background())
	b := &Balancer{
		self:    fsm.Holder{Peer: config.Peer, Epoch: 1},
		index:   index.New(),
		stop:    stop,
		policy:  config.Policy,
		state:   fsm.NewState(config.Limits),
		loads:   make(map[lb.OriginID]lb.Load),
		retired: make(map[lb.OriginID]lb.Incarnation),
		held:    make(map[lb.Stream]*holding),
		journal: newJournal(),
		changed: make(chan struct{}),
	}
	b.tracker = liveness.New(b, liveness.Config{TTL: config.TTL, Probe: config.Probe})
	b.running.Go(func() { b.tracker.Run(ctx) })
	b.running.Go(func() { b.expire(ctx) })
	return b
}

// SetPolicy replaces the policy for placements from now on.
func (b *Balancer) SetPolicy(p fsm.Policy) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.policy = p
	b.wake()
}

// Close stops the balancer.
func (b *Balancer) Close() error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		b.journal.close()
		b.wake()
	}
	b.mu.Unlock()
	b.stop()
	b.running.Wait()
	return nil
}

// Decisive returns nil: one peer is its own majority.
func (b *Balancer) Decisive() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return lb.ErrClosed
	}
	return nil
}

// Lookup implements lb.Balancer.
func (b *Balancer) Lookup(s lb.Stream) (lb.Placement, lb.Origin, bool) { return b.index.Lookup(s) }

// Origin implements lb.Balancer.
func (b *Balancer) Origin(id lb.OriginID) (lb.OriginStatus, bool) {
	o, ok := b.index.Origin(id)
	if !ok {
		return lb.OriginStatus{}, false
	}
	return b.status(o), true
}

// Origins implements lb.Balancer.
func (b *Balancer) Origins() []lb.OriginStatus {
	known := b.index.Origins()
	all := make([]lb.OriginStatus, len(known))
	for i, o := range known {
		all[i] = b.status(o)
	}
	return all
}

func (b *Balancer) status(o lb.Origin) lb.OriginStatus {
	status := lb.OriginStatus{Origin: o, LastSeen: b.tracker.LastBeat(o.ID)}
	b.mu.Lock()
	defer b.mu.Unlock()
	status.Streams = b.state.StreamsOn(o.ID)
	if l, ok := b.loads[o.ID]; ok {
		status.Load = &l
	}
	return status
}

// Placements implements lb.Balancer.
func (b *Balancer) Placements() iter.Seq[lb.PlacementStatus] {
	return func(yield func(lb.PlacementStatus) bool) {
		for p := range b.index.Placements() {
			if !yield(lb.PlacementStatus{Placement: p, Sessions: b.sessions(p)}) {
				return
			}
		}
	}
}

func (b *Balancer) sessions(p lb.Placement) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if h := b.held[p.Stream]; h != nil && h.generation == p.Generation {
		return h.sessions
	}
	return 0
}

// History implements lb.Balancer.
func (b *Balancer) History(s lb.Stream) []lb.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.journal.of(s)
}

// Events implements lb.Balancer.
func (b *Balancer) Events() (<-chan lb.Event, func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	events := b.journal.subscribe()
	return events, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.journal.unsubscribe(events)
	}
}

// apply runs a command and tells everybody what it changed. b.mu is held.
func (b *Balancer) apply(c fsm.Command) fsm.Result {
	result := b.state.Apply(b.state.Index()+1, time.Now(), c)[0]
	for _, change := range result.Changes {
		b.follow(change)
		if event, ok := lb.EventOf(change, b.state.Now()); ok {
			b.journal.add(event)
		}
	}
	return result
}

// follow brings index, tracker and waiters up to a change. b.mu is held.
func (b *Balancer) follow(change fsm.Change) {
	b.index.Follow(b.state, change)
	if change.Kind == fsm.OriginRemoved {
		b.tracker.Forget(change.Origin)
		delete(b.loads, change.Origin)
		delete(b.retired, change.Origin)
	} else if o, ok := b.state.Origin(change.Origin); ok && change.Stream.IsZero() {
		b.tracker.Watch(o)
	}
	if change.Kind == fsm.OriginCameUp || change.Kind == fsm.Released {
		b.wake() // a candidate came up, or one below its cap again
	}
}

// wake lets those who wait for an origin look again. b.mu is held.
func (b *Balancer) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}
