package raftlb

import (
	"context"
	"fmt"
	"time"

	"srsx/fsm"
	"srsx/lb"
)

// Origin implements lb.Balancer.
func (b *Balancer) Origin(id lb.OriginID) (lb.OriginStatus, bool) {
	o, ok := b.Replica.Origin(id)
	if !ok {
		return lb.OriginStatus{}, false
	}
	return b.status(o), true
}

// Origins implements lb.Balancer.
func (b *Balancer) Origins() []lb.OriginStatus {
	known := b.Replica.Origins()
	all := make([]lb.OriginStatus, len(known))
	for i, o := range known {
		all[i] = b.status(o)
	}
	return all
}

func (b *Balancer) status(o lb.Origin) lb.OriginStatus {
	seen := b.soft.of(o.ID)
	status := lb.OriginStatus{Origin: o, LastSeen: seen.at, Load: seen.load}
	if node, err := b.peer(); err == nil {
		node.View(func(s *fsm.State) { status.Streams = s.StreamsOn(o.ID) })
	}
	return status
}

// operate has the cluster agree on an operator's command.
func (b *Balancer) operate(ctx context.Context, c fsm.Command) error {
	node, err := b.peer()
	if err != nil {
		return err
	}
	results, err := node.Propose(ctx, c)
	if err != nil {
		return undecided(err)
	}
	return lb.ErrorOf(results[0].Err)
}

// Drain implements lb.Balancer.
func (b *Balancer) Drain(ctx context.Context, id lb.OriginID, deadline time.Time) error {
	return b.operate(ctx, fsm.Drain{ID: id, Until: deadline})
}

// Ready implements lb.Balancer.
func (b *Balancer) Ready(ctx context.Context, id lb.OriginID) error {
	return b.operate(ctx, fsm.Ready{ID: id})
}

// Remove implements lb.Balancer.
func (b *Balancer) Remove(ctx context.Context, id lb.OriginID) error {
	return b.operate(ctx, fsm.RemoveOrigin{ID: id})
}

// SetWeight implements lb.Balancer.
func (b *Balancer) SetWeight(ctx context.Context, id lb.OriginID, weight uint32) error {
	return b.operate(ctx, fsm.Weigh{ID: id, Weight: weight})
}

// Move implements lb.Balancer.
func (b *Balancer) Move(ctx context.Context, s lb.Stream, to lb.OriginID) error {
	o, ok := b.Replica.Origin(to)
	if !ok {
		return lb.ErrorOf(fmt.Errorf("move to %s: %w", to, fsm.ErrUnknownOrigin))
	}
	return b.operate(ctx, fsm.Move{Stream: s, To: to, Incarnation: o.Incarnation})
}

// Forget implements lb.Balancer.
func (b *Balancer) Forget(ctx context.Context, s lb.Stream) error {
	return b.operate(ctx, fsm.Forget{Stream: s})
}
