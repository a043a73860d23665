package memlb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"srsx/fsm"
	"srsx/lb"
)

// Acquire implements lb.Balancer.
func (b *Balancer) Acquire(ctx context.Context, w lb.Want) (lb.Lease, error) {
	for {
		lease, changed, err := b.tryAcquire(w)
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

// tryAcquire is one attempt; on ErrNoOrigin changed tells when to try again.
func (b *Balancer) tryAcquire(w lb.Want) (lease lb.Lease, changed <-chan struct{}, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return lb.Lease{}, nil, lb.ErrClosed
	}
	place := fsm.Place{Stream: w.Stream, Holder: b.self, Publish: w.Publish}
	if o, placed := b.home(w.Stream); placed {
		if len(o.Endpoints.Of(w.Protocol)) == 0 {
			return lb.Lease{}, b.changed, fmt.Errorf("%w: the stream is on %s, which does not serve %s", lb.ErrNoOrigin, o.ID, w.Protocol)
		}
	} else {
		chosen, err := b.policy.Choose(b.state, b.query(w))
		if err != nil {
			return lb.Lease{}, b.changed, lb.ErrorOf(err)
		}
		place.Origin, place.Incarnation = chosen.Origin, chosen.Incarnation
	}
	result := b.apply(place)
	if result.Err != nil {
		return lb.Lease{}, b.changed, lb.ErrorOf(result.Err)
	}
	b.count(result.Placement, w.Publish)
	o, _ := b.state.Origin(result.Placement.Origin)
	return lb.Lease{Placement: result.Placement, Origin: o, Created: result.Created, Publish: w.Publish}, nil, nil
}

// home returns the origin of a stream whose placement is alive.
func (b *Balancer) home(s lb.Stream) (lb.Origin, bool) {
	p, ok := b.state.Placement(s)
	if !ok {
		return lb.Origin{}, false
	}
	o, ok := b.state.Origin(p.Origin)
	return o, ok && o.State != lb.Down && o.Incarnation == p.Incarnation
}

// query puts a wish to the policy.
func (b *Balancer) query(w lb.Want) fsm.Query {
	return fsm.Query{
		Stream: w.Stream, Protocol: w.Protocol, Avoid: w.Avoid, Now: time.Now(),
		Load: func(id lb.OriginID) fsm.Load { return fsm.Load{CPUPercent: b.loads[id].CPUPercent} },
	}
}

// count adds a session to what this peer holds.
func (b *Balancer) count(p lb.Placement, publish bool) { //nolint:revive // a fact of the session
	h := b.held[p.Stream]
	if h == nil || h.generation != p.Generation {
		h = &holding{generation: p.Generation}
		b.held[p.Stream] = h
	}
	h.sessions++
	if publish {
		h.publishers++
	}
}

// Release implements lb.Balancer.
func (b *Balancer) Release(l lb.Lease) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.uncount(l) {
		b.apply(fsm.Release{Stream: l.Placement.Stream, Generation: l.Placement.Generation, Holder: b.self})
	}
}

// uncount takes back count and reports whether it was the last session.
func (b *Balancer) uncount(l lb.Lease) bool {
	stream, generation := l.Placement.Stream, l.Placement.Generation
	h := b.held[stream]
	if h == nil || h.generation != generation {
		return false // moved, forgotten or replaced meanwhile
	}
	h.sessions--
	if l.Publish {
		if h.publishers--; h.publishers == 0 {
			b.apply(fsm.Unpublish{Stream: stream, Generation: generation})
		}
	}
	if h.sessions > 0 {
		return false
	}
	delete(b.held, stream)
	return true
}

// Abandon implements lb.Balancer.
func (b *Balancer) Abandon(_ context.Context, l lb.Lease) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.uncount(l) {
		b.apply(fsm.Undo{Stream: l.Placement.Stream, Generation: l.Placement.Generation, Holder: b.self})
	}
	return nil
}

// Suspect implements lb.Balancer.
func (b *Balancer) Suspect(id lb.OriginID, reason error) { b.tracker.Suspect(id, reason) }

// Explain implements lb.Balancer.
func (b *Balancer) Explain(_ context.Context, w lb.Want) (lb.Explanation, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return lb.Explanation{}, lb.ErrClosed
	}
	d := b.policy.Explain(b.state, b.query(w))
	e := lb.Explanation{Stream: w.Stream, Rule: d.Rule, Pool: d.Pool}
	if p, ok := b.state.Placement(w.Stream); ok {
		e.Placed = &p
	}
	for _, c := range d.Candidates {
		e.Candidates = append(e.Candidates, lb.Candidate{Origin: c.Origin, Score: c.Score, Reason: c.Reason, Chosen: c.Chosen})
	}
	return e, nil
}

// expire ends what time ends: placements without holders and drains.
func (b *Balancer) expire(ctx context.Context) {
	const tick = 100 * time.Millisecond
	pace := time.NewTicker(tick)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-pace.C:
			for b.end(now) {
				// There may be more: others had their turn at the lock.
			}
		}
	}
}

// end applies what is due and reports whether there was as much as it takes.
func (b *Balancer) end(now time.Time) (full bool) {
	const atOnce = 1000
	b.mu.Lock()
	defer b.mu.Unlock()
	due := b.state.Due(now, atOnce)
	for _, c := range due {
		b.apply(c)
	}
	return len(due) == atOnce
}
