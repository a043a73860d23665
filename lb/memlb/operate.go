package memlb

import (
	"context"
	"fmt"
	"slices"
	"time"

	"srsx/fsm"
	"srsx/lb"
)

// Register implements lb.Balancer.
func (b *Balancer) Register(ctx context.Context, r lb.Registration) error {
	if err := b.admitIncarnation(ctx, r); err != nil {
		return err
	}
	if err := b.put(r); err != nil {
		return err
	}
	if !r.Origin.Static {
		b.tracker.Beat(r.Origin.ID) // unlocked: it may propose
	}
	return nil
}

// put records what a registration says that is new.
func (b *Balancer) put(r lb.Registration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return lb.ErrClosed
	}
	old, known := b.state.Origin(r.Origin.ID)
	if !known || !same(old, r.Origin) {
		if err := b.apply(fsm.PutOrigin{Origin: r.Origin}).Err; err != nil {
			return lb.ErrorOf(err)
		}
	}
	if known && old.Incarnation != r.Origin.Incarnation {
		b.retired[r.Origin.ID] = old.Incarnation
	}
	if r.Load != nil {
		b.loads[r.Origin.ID] = *r.Load
	}
	return nil
}

// same reports whether a heartbeat repeats what is known. What operators set
// and what the machine keeps is not the origin's to say.
func same(known, said lb.Origin) bool {
	return known.Incarnation == said.Incarnation && known.DeviceID == said.DeviceID && known.IP == said.IP &&
		known.MaxStreams == said.MaxStreams && known.Static == said.Static && slices.Equal(known.Labels, said.Labels) &&
		(known.WeightPinned || known.Weight == said.Weight) &&
		slices.EqualFunc(known.Endpoints.Lists(), said.Endpoints.Lists(), slices.Equal[[]string])
}

// admitIncarnation refuses a second live run under the same server id. A run
// that took over the media port of the old one proves that the old one is gone;
// else the old one has to fail a probe, unless the caller proved who it is. The
// run that was replaced last never comes back: two that alternate share an id.
func (b *Balancer) admitIncarnation(ctx context.Context, r lb.Registration) error {
	old, known := b.index.Origin(r.Origin.ID)
	if !known || old.Incarnation == r.Origin.Incarnation {
		return nil
	}
	b.mu.Lock()
	retired := b.retired[r.Origin.ID]
	b.mu.Unlock()
	if retired == r.Origin.Incarnation && old.State != lb.Down {
		return fmt.Errorf("%w: %s was taken over by another run; give each origin its own", lb.ErrDuplicateOrigin, r.Origin.ID)
	}
	if r.Replace || old.State == lb.Down || slices.ContainsFunc(r.Origin.Endpoints.RTMP, func(e string) bool {
		return slices.Contains(old.Endpoints.RTMP, e)
	}) {
		return nil
	}
	if b.tracker.Ask(ctx, old) == nil {
		return fmt.Errorf("%w: %s is in use by an origin that is alive", lb.ErrDuplicateOrigin, r.Origin.ID)
	}
	return nil
}

// ProposeUp implements liveness.Proposer.
func (b *Balancer) ProposeUp(id lb.OriginID, inc lb.Incarnation, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.apply(fsm.SetUp{ID: id, Incarnation: inc, Up: true, Reason: reason})
}

// ProposeDown implements liveness.Proposer.
func (b *Balancer) ProposeDown(id lb.OriginID, inc lb.Incarnation, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.apply(fsm.SetUp{ID: id, Incarnation: inc, Up: false, Reason: reason})
	b.wake() // who waits for a verdict on this origin has it
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
	b.mu.Lock()
	o, ok := b.state.Origin(to)
	b.mu.Unlock()
	if !ok {
		return lb.ErrorOf(fmt.Errorf("move to %s: %w", to, fsm.ErrUnknownOrigin))
	}
	return b.operate(fsm.Move{Stream: s, To: to, Incarnation: o.Incarnation})
}

// Forget implements lb.Balancer.
func (b *Balancer) Forget(_ context.Context, s lb.Stream) error {
	return b.operate(fsm.Forget{Stream: s})
}

func (b *Balancer) operate(c fsm.Command) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return lb.ErrClosed
	}
	return lb.ErrorOf(b.apply(c).Err)
}
