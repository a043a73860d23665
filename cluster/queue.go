package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"srsx/fsm"
)

// proposal is a run of commands of one caller that goes into one entry.
type proposal struct {
	encoded []byte // count commands by fsm.AppendCommand
	count   int
	// relayed means that another peer sent it, and wants to know the place of
	// its commands rather than what they did.
	relayed bool
	stage   atomic.Int32
	done    chan verdict // of size 1
}

// The stages of a proposal. Until it has left, its caller may withdraw it.
const (
	waiting int32 = iota
	left
	withdrawn
)

// verdict ends a proposal.
type verdict struct {
	results []fsm.Result
	place   place
	err     error
}

// place is where in the log the commands of a proposal are.
type place struct {
	index, term uint64
	offset      int // of the first command in the entry
}

func newProposal(encoded []byte, count int) *proposal {
	return &proposal{encoded: encoded, count: count, done: make(chan verdict, 1)}
}

// encode cuts the commands of one call into proposals that fit into an entry.
func encode(commands []fsm.Command, entrySize int) []*proposal {
	var all []*proposal
	var encoded []byte
	count := 0
	for _, c := range commands {
		before := len(encoded)
		encoded = fsm.AppendCommand(encoded, c)
		if count > 0 && len(encoded) > entrySize {
			all = append(all, newProposal(encoded[:before:before], count))
			encoded, count = append([]byte(nil), encoded[before:]...), 0
		}
		count++
	}
	return append(all, newProposal(encoded, count))
}

// await waits for the verdict. A proposal that is still waiting when ctx is done
// is withdrawn; one that has left has an unknown outcome.
func (p *proposal) await(ctx context.Context) verdict {
	select {
	case v := <-p.done:
		return v
	case <-ctx.Done():
	}
	if p.stage.CompareAndSwap(waiting, withdrawn) {
		return verdict{err: fmt.Errorf("%w: %w", ErrNoLeader, context.Cause(ctx))}
	}
	select {
	case v := <-p.done:
		return v
	default:
		return verdict{err: fmt.Errorf("%w: %w", ErrUnknownOutcome, context.Cause(ctx))}
	}
}

// queue holds the proposals that wait while others are under way.
type queue struct {
	wake chan struct{} // of size 1

	mu      sync.Mutex
	waiting []*proposal
	closed  error
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1)} }

// put adds proposals, in their order and next to each other.
func (q *queue) put(proposals ...*proposal) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		settle(proposals, verdict{err: q.closed})
		return
	}
	q.waiting = append(q.waiting, proposals...)
	q.rouse()
}

// putBack returns proposals that left and were not taken, to go first.
func (q *queue) putBack(proposals []*proposal) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed != nil {
		settle(proposals, verdict{err: q.closed})
		return
	}
	for _, p := range proposals {
		p.stage.Store(waiting)
	}
	q.waiting = append(slices.Clip(proposals), q.waiting...)
	q.rouse()
}

func (q *queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take removes proposals of at most size bytes together, at least one if there
// is one, and marks them as left.
func (q *queue) take(size int) []*proposal {
	q.mu.Lock()
	defer q.mu.Unlock()
	var taken []*proposal
	for i, p := range q.waiting {
		if len(taken) > 0 && size < len(p.encoded) {
			q.waiting = q.waiting[i:]
			q.rouse()
			return taken
		}
		if p.stage.CompareAndSwap(waiting, left) {
			taken = append(taken, p)
			size -= len(p.encoded)
		}
	}
	q.waiting = nil
	return taken
}

// close refuses all that waits and all that comes.
func (q *queue) close(why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = why
	q.empty(why)
}

// refuse refuses all that waits.
func (q *queue) refuse(why error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.empty(why)
}

func (q *queue) empty(why error) {
	settle(q.waiting, verdict{err: why})
	q.waiting = nil
}

func settle(proposals []*proposal, v verdict) {
	for _, p := range proposals {
		p.done <- v
	}
}
