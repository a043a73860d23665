package raftlb

import (
	"context"
	"errors"
	"fmt"
	"time"

	"srsx/fsm"
	"srsx/lb"
)

// The pause between attempts while the cluster has no leader begins short, since
// the next one is often elected within 20 ms, and doubles: it may take long.
const (
	minRetryPause = 4 * time.Millisecond
	maxRetryPause = 64 * time.Millisecond
)

// Acquire implements lb.Balancer. A stream whose origin is known to be alive is
// held at once, majority or not; the cluster learns of it later.
func (b *Balancer) Acquire(ctx context.Context, w lb.Want) (lb.Lease, error) {
	pause := time.Duration(0)
	for {
		changed := b.replica.Changed() // before the attempt: what it missed wakes it
		node, err := b.peer()
		if err != nil && !errors.Is(err, lb.ErrUndecided) {
			return lb.Lease{}, err
		}
		lease, known, err := b.acquireKnown(w, err)
		if !known && node != nil {
			lease, err = b.acquireNew(ctx, node, w)
		}
		switch {
		case err == nil:
			return lease, nil
		case errors.Is(err, lb.ErrUndecided):
			changed = nil // another reason: time alone helps
			pause = min(max(2*pause, minRetryPause), maxRetryPause)
		case !errors.Is(err, lb.ErrNoOrigin):
			return lb.Lease{}, err
		}
		if !b.pause(ctx, changed, pause) {
			if b.closed.Err() != nil {
				err = lb.ErrClosed
			}
			return lb.Lease{}, err
		}
	}
}

// pause waits for changed, or so long if that is nil, and reports whether there is
// time for another attempt.
func (b *Balancer) pause(ctx context.Context, changed <-chan struct{}, length time.Duration) bool {
	var moment <-chan time.Time
	if changed == nil {
		moment = time.After(length)
	}
	select {
	case <-ctx.Done():
		return false
	case <-b.closed.Done():
		return false
	case <-moment:
	case <-changed:
	}
	return true
}

// acquireKnown holds a stream that is placed on a living origin, as far as this
// peer knows. Missing is the error for when it is not.
func (b *Balancer) acquireKnown(w lb.Want, missing error) (l lb.Lease, known bool, err error) {
	p, o, ok := b.replica.Alive(w.Stream)
	if !ok {
		return lb.Lease{}, false, missing
	}
	if len(o.Endpoints.Of(w.Protocol)) == 0 {
		return lb.Lease{}, true, fmt.Errorf("%w: the stream is on %s, which does not serve %s", lb.ErrNoOrigin, o.ID, w.Protocol)
	}
	l = lb.Lease{Placement: p, Origin: o, Publish: w.Publish}
	b.hold(l)
	return l, true, nil
}

// hold counts a session and has the cluster told, if it does not know yet.
func (b *Balancer) hold(l lb.Lease) {
	b.replica.Hold(l.Placement, l.Publish)
	b.upkeep.check(l.Placement.Stream)
}

// acquireNew has the leader place a stream, and holds it once this peer knows.
func (b *Balancer) acquireNew(ctx context.Context, node Node, w lb.Want) (lb.Lease, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(b.closed, cancel)() //nolint:contextcheck // two lives end it
	b.upkeep.begin(w.Stream)
	defer b.upkeep.end(w.Stream)
	answer, err := b.placer.ask(ctx, w)
	if err != nil {
		return lb.Lease{}, undecided(err)
	}
	if answer.err != nil {
		return lb.Lease{}, answer.err
	}
	if err := node.Await(ctx, answer.index); err != nil {
		return lb.Lease{}, undecided(err)
	}
	p, o, ok := b.replica.Alive(w.Stream)
	if !ok {
		return lb.Lease{}, fmt.Errorf("%w: the placement is gone again", lb.ErrUndecided)
	}
	l := lb.Lease{Placement: p, Origin: o, Publish: w.Publish, Created: answer.created && p.Generation == answer.generation}
	b.hold(l)
	return l, nil
}

// Release implements lb.Balancer.
func (b *Balancer) Release(l lb.Lease) {
	last, lastPublisher := b.replica.LetGo(l)
	if lastPublisher {
		b.upkeep.unpublish(l.Placement)
	}
	if last || lastPublisher {
		b.upkeep.check(l.Placement.Stream)
	}
}

// Abandon implements lb.Balancer.
func (b *Balancer) Abandon(ctx context.Context, l lb.Lease) error {
	node, err := b.peer()
	if err != nil {
		return err
	}
	// Until it is undone it must not be released, or it would stay for a while.
	b.upkeep.begin(l.Placement.Stream)
	defer b.upkeep.end(l.Placement.Stream)
	last, lastPublisher := b.replica.LetGo(l)
	if lastPublisher {
		b.upkeep.unpublish(l.Placement)
	}
	if !last {
		return nil
	}
	undo := fsm.Undo{Stream: l.Placement.Stream, Generation: l.Placement.Generation, Holder: b.config.Holder}
	if _, err := node.Propose(ctx, undo); err != nil {
		return undecided(err) // the upkeep sees to it that nobody thinks we hold it
	}
	return nil
}
