package gossip

import (
	"context"
	"sync"
)

// maxQueued bounds the events that wait for a reader. The oldest go first: a
// reader that is so late reads [Gossip.Members] anyway.
const maxQueued = 4096

// queue holds events between memberlist, which must not wait, and their reader,
// which may.
type queue struct {
	mu     sync.Mutex
	events []Event // guarded by mu
	filled chan struct{}
}

func newQueue() *queue { return &queue{filled: make(chan struct{}, 1)} }

func (q *queue) put(e Event) {
	q.mu.Lock()
	if len(q.events) == maxQueued {
		q.events = q.events[1:]
	}
	q.events = append(q.events, e)
	q.mu.Unlock()
	select {
	case q.filled <- struct{}{}:
	default:
	}
}

// pump hands out the events in order until ctx ends.
func (q *queue) pump(ctx context.Context, out chan<- Event) {
	for {
		q.mu.Lock()
		events := q.events
		q.events = nil
		q.mu.Unlock()
		for _, e := range events {
			select {
			case out <- e:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-q.filled:
		case <-ctx.Done():
			return
		}
	}
}
