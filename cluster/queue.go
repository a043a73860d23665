package cluster

import (
	"context"
	"fmt"
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
type queue struct{ lobby[*proposal] }

func newQueue() *queue {
	return &queue{newLobby(func(p *proposal, why error) { p.done <- verdict{err: why} })}
}

// putBack returns proposals that left and were not taken, to go first.
func (q *queue) putBack(proposals []*proposal) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range proposals {
		p.stage.Store(waiting)
	}
	q.insert(0, proposals)
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

func settle(proposals []*proposal, v verdict) {
	for _, p := range proposals {
		p.done <- v
	}
}
