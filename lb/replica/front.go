package replica

import (
	"context"
	"fmt"
	"iter"
	"time"

	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/index"
)

// Front is the part of [lb.Balancer] that is the same in every backend, to be
// embedded: the reads of its replica, and the operator's verbs, each of which is
// one command. Its methods are safe for concurrent use.
type Front struct {
	*finder

	replica *Replica
	status  func(o lb.Origin) lb.OriginStatus
	operate func(ctx context.Context, c fsm.Command) error
}

// finder has Lookup called without anything between, which would copy what it
// returns each time.
type finder = index.Finder

// NewFront returns the front of a backend that follows by r. Status completes
// what r knows of an origin; operate returns once a command is carried out, or
// why it was not, in the words of lb.Balancer.
func NewFront(r *Replica, status func(lb.Origin) lb.OriginStatus, operate func(context.Context, fsm.Command) error) Front {
	return Front{finder: &r.index.Finder, replica: r, status: status, operate: operate}
}

// Placements implements lb.Balancer.
func (f Front) Placements() iter.Seq[lb.PlacementStatus] { return f.replica.Placements() }

// History implements lb.Balancer.
func (f Front) History(s lb.Stream) []lb.Event { return f.replica.History(s) }

// Events implements lb.Balancer.
func (f Front) Events() (events <-chan lb.Event, cancel func()) { return f.replica.Events() }

// Origin implements lb.Balancer.
func (f Front) Origin(id lb.OriginID) (lb.OriginStatus, bool) {
	o, ok := f.replica.Origin(id)
	if !ok {
		return lb.OriginStatus{}, false
	}
	return f.status(o), true
}

// Origins implements lb.Balancer.
func (f Front) Origins() []lb.OriginStatus {
	known := f.replica.Origins()
	all := make([]lb.OriginStatus, len(known))
	for i, o := range known {
		all[i] = f.status(o)
	}
	return all
}

// Drain implements lb.Balancer.
func (f Front) Drain(ctx context.Context, id lb.OriginID, deadline time.Time) error {
	return f.operate(ctx, fsm.Drain{ID: id, Until: deadline})
}

// Ready implements lb.Balancer.
func (f Front) Ready(ctx context.Context, id lb.OriginID) error {
	return f.operate(ctx, fsm.Ready{ID: id})
}

// Remove implements lb.Balancer.
func (f Front) Remove(ctx context.Context, id lb.OriginID) error {
	return f.operate(ctx, fsm.RemoveOrigin{ID: id})
}

// SetWeight implements lb.Balancer.
func (f Front) SetWeight(ctx context.Context, id lb.OriginID, weight uint32) error {
	return f.operate(ctx, fsm.Weigh{ID: id, Weight: weight})
}

// Move implements lb.Balancer.
func (f Front) Move(ctx context.Context, s lb.Stream, to lb.OriginID) error {
	o, ok := f.replica.Origin(to)
	if !ok {
		return lb.ErrorOf(fmt.Errorf("move to %s: %w", to, fsm.ErrUnknownOrigin))
	}
	return f.operate(ctx, fsm.Move{Stream: s, To: to, Incarnation: o.Incarnation})
}

// Forget implements lb.Balancer.
func (f Front) Forget(ctx context.Context, s lb.Stream) error {
	return f.operate(ctx, fsm.Forget{Stream: s})
}
