package cluster

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// hints holds the newest place of the log that the leader has said is committed
// while this peer's log did not have it.
//
// A follower's raft learns that an entry is committed from the next message of
// the leader, 10 to 20 ms later unless there is more to send. But the reply to a
// forwarded proposal says so too, by index and term. If this peer's log has an
// entry of that index and term, it has all the entries before it as the leader
// has them (the log matching property), so they may be applied at once. When
// raft gets to them, they are skipped.
type hints struct {
	wake chan struct{} // of size 1

	// following is held by the one who applies; many who wait for about the
	// same entries would each read all of them.
	following sync.Mutex

	mu     sync.Mutex
	newest place
}

func newHints() *hints { return &hints{wake: make(chan struct{}, 1)} }

func (h *hints) add(at place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at.index > h.newest.index {
		h.newest = at
	}
	h.rouse()
}

// appended is called when the log has grown up to last.
func (h *hints) appended(last uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.newest.index != 0 && h.newest.index <= last {
		h.rouse()
	}
}

func (h *hints) rouse() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *hints) get() place {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.newest
}

// done forgets a hint that has been followed.
func (h *hints) done(at place) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.newest == at {
		h.newest = place{}
	}
}

// followHints applies what hints say as soon as the log has it.
func (n *Node) followHints(ctx context.Context) {
	for {
		select {
		case <-n.hints.wake:
			if at := n.hints.get(); at.index != 0 && n.applyThrough(at) {
				n.hints.done(at)
			}
		case <-ctx.Done():
			return
		}
	}
}

// catchUp waits until this peer has applied an entry that is committed.
func (n *Node) catchUp(ctx context.Context, at place) error {
	if n.applyThrough(at) {
		return nil
	}
	n.hints.add(at)
	return n.Await(ctx, at.index)
}

// applyThrough applies the log up to a place that is committed. It reports
// whether the state has all of that now.
func (n *Node) applyThrough(at place) bool {
	n.hints.following.Lock()
	defer n.hints.following.Unlock()
	applied, halted := n.machine.position()
	if applied >= at.index || halted != nil {
		return applied >= at.index
	}
	var entry raft.Log
	if err := n.journal.GetLog(at.index, &entry); err != nil || entry.Term != at.term {
		return false // not here yet, or raft has still to replace what is
	}
	for next := applied + 1; next <= at.index; next++ {
		entry = raft.Log{}
		if n.journal.GetLog(next, &entry) != nil || !n.machine.follow(&entry) {
			return false
		}
	}
	return true
}
