package memlb

import (
	"context"

	"srsx/fsm"
	"srsx/lb"
)

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
	former, known := b.replica.Origin(r.Origin.ID)
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
	_ = b.operate(context.Background(), fsm.SetUp{ID: id, Incarnation: inc, Up: true, Reason: reason}) // stale: no longer of interest
}

// ProposeDown implements liveness.Proposer.
func (b *Balancer) ProposeDown(id lb.OriginID, inc lb.Incarnation, reason string) {
	_ = b.operate(context.Background(), fsm.SetUp{ID: id, Incarnation: inc, Up: false, Reason: reason}) // as above
	b.replica.Wake()                                                                                    // who waits for a verdict on this origin has it
}
