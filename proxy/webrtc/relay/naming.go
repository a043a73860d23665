package relay

import (
	"context"
	"iter"
	"sync"

	"srsx/lb"
	"srsx/proxy/webrtc/ufrag"
)

// naming finds the streams of flows of which nobody knows more than their ufrag,
// such as those of a peer that was restarted. It looks through all placements
// once for all that ask at a time.
type naming struct {
	placements func() iter.Seq[lb.PlacementStatus]

	mu      sync.Mutex
	running bool    // guarded by mu
	next    *lookup // guarded by mu; of the next pass, nil: nobody asks
}

type lookup struct {
	wanted map[placed]lb.Stream // zero: not found yet
	done   chan struct{}
}

// find returns the stream that is placed so. It waits for a pass, or for ctx.
func (n *naming) find(ctx context.Context, p placed) (lb.Stream, bool) {
	n.mu.Lock()
	if n.next == nil {
		n.next = &lookup{wanted: make(map[placed]lb.Stream), done: make(chan struct{})}
	}
	l := n.next
	l.wanted[p] = lb.Stream{}
	leads := !n.running
	n.running = true
	n.mu.Unlock()
	if leads {
		n.run()
	}
	select {
	case <-l.done:
		stream := l.wanted[p]
		return stream, !stream.IsZero()
	case <-ctx.Done():
		return lb.Stream{}, false
	}
}

// run makes passes for as long as somebody asks.
func (n *naming) run() {
	for {
		n.mu.Lock()
		l := n.next
		n.next = nil
		n.running = l != nil
		n.mu.Unlock()
		if l == nil {
			return
		}
		for p := range n.placements() {
			key := placed{p.Origin, ufrag.HashStream(p.Stream)}
			if _, ok := l.wanted[key]; ok {
				l.wanted[key] = p.Stream
			}
		}
		close(l.done)
	}
}
