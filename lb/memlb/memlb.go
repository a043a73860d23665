// Package memlb is the balancer of a single peer: the state machine in memory,
// behind a mutex. The peer decides for itself and follows itself.
package memlb

import (
	"context"
	"errors"
	"sync"
	"time"

	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/decide"
	"srsx/lb/liveness"
	"srsx/lb/replica"
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
	replica.Front

	replica *replica.Replica
	self    fsm.Holder
	decider *decide.Decider
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex // guards what follows
	state  *fsm.State
	closed bool
}

var _ lb.Balancer = (*Balancer)(nil)

// New returns a running balancer. Close stops it.
func New(config Config) *Balancer {
	ctx, stop := context.WithCancel(context.Background())
	b := &Balancer{
		replica: replica.New(),
		self:    fsm.Holder{Peer: config.Peer, Epoch: 1},
		stop:    stop,
		state:   fsm.NewState(config.Limits),
	}
	b.Front = replica.NewFront(b.replica, b.status, b.operate)
	b.decider = decide.New(config.Policy, b, liveness.Config{TTL: config.TTL, Probe: config.Probe})
	b.running.Go(func() { b.decider.Run(ctx) })
	b.running.Go(func() { b.expire(ctx) })
	return b
}

// SetPolicy replaces the policy for placements from now on.
func (b *Balancer) SetPolicy(p fsm.Policy) {
	b.decider.SetPolicy(p)
	b.replica.Wake()
}

// Close stops the balancer.
func (b *Balancer) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.replica.Close()
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

// apply runs a command. b.mu is held.
func (b *Balancer) apply(c fsm.Command) fsm.Result {
	results := b.state.Apply(b.state.Index()+1, time.Now(), c)
	b.decider.Follow(b.state, results...)
	b.replica.Follow(b.state, results...)
	return results[0]
}

// operate applies a command for somebody who waits for its outcome.
func (b *Balancer) operate(_ context.Context, c fsm.Command) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return lb.ErrClosed
	}
	return lb.ErrorOf(b.apply(c).Err)
}

// Acquire implements lb.Balancer.
func (b *Balancer) Acquire(ctx context.Context, w lb.Want) (lb.Lease, error) {
	for {
		changed := b.replica.Changed() // before the attempt: what it missed wakes it
		lease, err := b.tryAcquire(w)
		if err == nil || !errors.Is(err, lb.ErrNoOrigin) {
			return lease, err
		}
		select {
		case <-ctx.Done():
			return lb.Lease{}, err
		case <-changed:
		}
	}
}

func (b *Balancer) tryAcquire(w lb.Want) (lb.Lease, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return lb.Lease{}, lb.ErrClosed
	}
	place, err := b.decider.Place(b.state, w, b.self)
	if err != nil {
		return lb.Lease{}, lb.ErrorOf(err)
	}
	result := b.apply(place)
	b.decider.Settled(place)
	if result.Err != nil {
		return lb.Lease{}, lb.ErrorOf(result.Err)
	}
	b.replica.Hold(result.Placement, w.Publish)
	o, _ := b.state.Origin(result.Placement.Origin)
	return lb.Lease{Placement: result.Placement, Origin: o, Created: result.Created, Publish: w.Publish}, nil
}

// Release implements lb.Balancer.
func (b *Balancer) Release(l lb.Lease) {
	p := l.Placement
	b.letGo(l, fsm.Release{Stream: p.Stream, Generation: p.Generation, Holder: b.self})
}

// Abandon implements lb.Balancer.
func (b *Balancer) Abandon(_ context.Context, l lb.Lease) error {
	p := l.Placement
	b.letGo(l, fsm.Undo{Stream: p.Stream, Generation: p.Generation, Holder: b.self})
	return nil
}

// letGo ends one session, and by a command what it alone held.
func (b *Balancer) letGo(l lb.Lease, c fsm.Command) {
	b.mu.Lock()
	defer b.mu.Unlock()
	last, lastPublisher := b.replica.LetGo(l)
	if lastPublisher {
		b.apply(fsm.Unpublish{Stream: l.Placement.Stream, Generation: l.Placement.Generation})
	}
	if last {
		b.apply(c)
	}
}

// Explain implements lb.Balancer.
func (b *Balancer) Explain(_ context.Context, w lb.Want) (lb.Explanation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return lb.Explanation{}, lb.ErrClosed
	}
	return b.decider.Explain(b.state, w), nil
}

// expire ends what time ends: placements without holders and drains.
func (b *Balancer) expire(ctx context.Context) {
	const (
		tick  = 100 * time.Millisecond
		batch = 1000 // commands for which the others wait
	)
	pace := time.NewTicker(tick)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-pace.C:
			b.mu.Lock()
			for _, c := range b.state.Due(now, batch) {
				b.apply(c)
			}
			b.mu.Unlock()
		}
	}
}
