package raftlb

import (
	"context"
	"sync"

	"srsx/lb"
)

// The batching of questions to the leader: a batch is what waits while the ones
// before it are under way.
const (
	maxBatch     = 512 // wants in one question
	maxQuestions = 2   // under way at once
)

// placer collects the streams that this peer wants placed.
type placer struct {
	wants chan *pendingWant
}

// pendingWant is one Acquire that waits for its answer.
type pendingWant struct {
	want   lb.Want
	answer chan placement // buffered
}

// placement is the leader's answer to one want.
type placement struct {
	index      uint64 // of the log, at which this peer knows the placement too
	generation uint64
	created    bool
	err        error // the leader's refusal, in the words of lb.Balancer
}

func (p *placer) init() { p.wants = make(chan *pendingWant) }

// ask returns the leader's answer. The error says that there is none.
func (p *placer) ask(ctx context.Context, w lb.Want) (placement, error) {
	pending := &pendingWant{want: w, answer: make(chan placement, 1)}
	select {
	case p.wants <- pending:
	case <-ctx.Done():
		return placement{}, context.Cause(ctx)
	}
	select {
	case answer := <-pending.answer:
		return answer, nil
	case <-ctx.Done():
		return placement{}, context.Cause(ctx)
	}
}

// place asks the leader until ctx ends, and returns when nothing is under way.
func (b *Balancer) place(ctx context.Context, node Node) {
	var asking sync.WaitGroup
	defer asking.Wait()
	free := make(chan struct{}, maxQuestions)
	for {
		select {
		case <-ctx.Done():
			return
		case free <- struct{}{}:
		}
		batch := b.placer.collect(ctx)
		if len(batch) == 0 {
			return
		}
		asking.Go(func() {
			defer func() { <-free }()
			b.askBatch(ctx, node, batch)
		})
	}
}

// collect waits for a want and takes those that wait with it. Empty: ctx ended.
func (p *placer) collect(ctx context.Context) []*pendingWant {
	var batch []*pendingWant
	select {
	case <-ctx.Done():
		return nil
	case w := <-p.wants:
		batch = append(batch, w)
	}
	for len(batch) < maxBatch {
		select {
		case w := <-p.wants:
			batch = append(batch, w)
		default:
			return batch
		}
	}
	return batch
}

func (b *Balancer) askBatch(ctx context.Context, node Node, batch []*pendingWant) {
	ctx, cancel := context.WithTimeout(ctx, questionTimeout)
	defer cancel()
	wants := make([]lb.Want, len(batch))
	for i, pending := range batch {
		wants[i] = pending.want
		b.upkeep.begin(pending.want.Stream) // its Acquire may not wait for the answer
		defer b.upkeep.end(pending.want.Stream)
	}
	answer, err := node.Ask(ctx, appendWants([]byte{questionPlace}, b.config.Holder, wants))
	var placements []placement
	if err == nil {
		placements, err = readPlacements(answer, len(wants))
	}
	for i, pending := range batch {
		if err != nil {
			pending.answer <- placement{err: undecided(err)}
			continue
		}
		pending.answer <- placements[i]
	}
}
