package replica

import "srsx/lb"

// holding counts the sessions of this peer on one placement.
type holding struct {
	generation uint64
	sessions   int
	publishers int
}

// Hold counts one more session on a placement. A stream that is placed anew
// starts at none: the sessions on its former placement are not of this one.
func (r *Replica) Hold(p lb.Placement, publish bool) { //nolint:revive // publish is a fact of the session
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.sessions[p.Stream]
	if h == nil || h.generation != p.Generation {
		h = &holding{generation: p.Generation}
		r.sessions[p.Stream] = h
	}
	h.sessions++
	if publish {
		h.publishers++
	}
}

// LetGo takes one session back and reports whether it was the last of this peer
// on the placement, and the last that published. On a placement that is no
// longer the stream's it does nothing.
func (r *Replica) LetGo(l lb.Lease) (last, lastPublisher bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	stream := l.Placement.Stream
	h := r.sessions[stream]
	if h == nil || h.generation != l.Placement.Generation {
		return false, false
	}
	if l.Publish {
		h.publishers--
		lastPublisher = h.publishers == 0
	}
	if h.sessions--; h.sessions == 0 {
		delete(r.sessions, stream)
		last = true
	}
	return last, lastPublisher
}

// Sessions returns how many sessions of this peer a placement has.
func (r *Replica) Sessions(s lb.Stream, generation uint64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if h := r.sessions[s]; h != nil && h.generation == generation {
		return h.sessions
	}
	return 0
}
