package memlb

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
	status := lb.OriginStatus{Origin: o}
	status.LastSeen, status.Load = b.decider.LastSeen(o.ID)
	b.mu.Lock()
	defer b.mu.Unlock()
	status.Streams = b.state.StreamsOn(o.ID)
	return status
}

// Register implements lb.Balancer.
func (b *Balancer) Register(ctx context.Context, r lb.Registration) error {
	former, known := b.Replica.Origin(r.Origin.ID)
	if known {
		if err := b.decider.Admit(ctx, former, r); err != nil {
			return err
		}
	}
	if err := b.put(r); err != nil {
		return err
	}
	b.decider.Heard(former, r)
	return nil
}

func (b *Balancer) put(r lb.Registration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return lb.ErrClosed
	}
	if news, ok := b.decider.News(b.state, r); ok {
		return lb.ErrorOf(b.apply(news).Err)
	}
	return nil
}

// Suspect implements lb.Balancer.
func (b *Balancer) Suspect(id lb.OriginID, reason error) { b.decider.Suspect(id, reason) }

// ProposeUp implements liveness.Proposer.
func (b *Balancer) ProposeUp(id lb.OriginID, inc lb.Incarnation, reason string) {
	_ = b.operate(fsm.SetUp{ID: id, Incarnation: inc, Up: true, Reason: reason}) // stale: no longer of interest
}

// ProposeDown implements liveness.Proposer.
func (b *Balancer) ProposeDown(id lb.OriginID, inc lb.Incarnation, reason string) {
	_ = b.operate(fsm.SetUp{ID: id, Incarnation: inc, Up: false, Reason: reason}) // as above
	b.Wake()                                                                      // who waits for a verdict on this origin has it
}

// Drain implements lb.Balancer.
func (b *Balancer) Drain(_ context.Context, id lb.OriginID, deadline time.Time) error {
	return b.operate(fsm.Drain{ID: id, Until: deadline})
}

// Ready implements lb.Balancer.
func (b *Balancer) Ready(_ context.Context, id lb.OriginID) error {
	return b.operate(fsm.Ready{ID: id})
}

// Remove implements lb.Balancer.
func (b *Balancer) Remove(_ context.Context, id lb.OriginID) error {
	return b.operate(fsm.RemoveOrigin{ID: id})
}

// SetWeight implements lb.Balancer.
func (b *Balancer) SetWeight(_ context.Context, id lb.OriginID, weight uint32) error {
	return b.operate(fsm.Weigh{ID: id, Weight: weight})
}

// Move implements lb.Balancer.
func (b *Balancer) Move(_ context.Context, s lb.Stream, to lb.OriginID) error {
	o, ok := b.Replica.Origin(to)
	if !ok {
		return lb.ErrorOf(fmt.Errorf("move to %s: %w", to, fsm.ErrUnknownOrigin))
	}
	return b.operate(fsm.Move{Stream: s, To: to, Incarnation: o.Incarnation})
}

// Forget implements lb.Balancer.
func (b *Balancer) Forget(_ context.Context, s lb.Stream) error {
	return b.operate(fsm.Forget{Stream: s})
}
