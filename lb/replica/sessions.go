package replica

import (
	"maps"
	"slices"

	"srsx/lb"
)

// holding counts the sessions of this peer on one placement.
type holding struct {
	placement  lb.Placement // as it was when the first session came
	former     []uint64     // generations under which it was held before
	sessions   int
	publishers int
}

// is reports whether the holding is of the placement of that generation.
func (h *holding) is(generation uint64) bool {
	return h != nil && (h.placement.Generation == generation || slices.Contains(h.former, generation))
}

// Hold counts one more session on a placement. A stream that is placed anew
// starts at none: the sessions on its former placement are not of this one.
func (r *Replica) Hold(p lb.Placement, publish bool) { //nolint:revive // publish is a fact of the session
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.sessions[p.Stream]
	if !h.is(p.Generation) {
		h = &holding{placement: p}
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
	if !h.is(l.Placement.Generation) {
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
	if h := r.sessions[s]; h.is(generation) {
		return h.sessions
	}
	return 0
}

// Holding returns the placement that sessions of this peer are on, and whether
// one of them publishes.
func (r *Replica) Holding(s lb.Stream) (p lb.Placement, held, publishing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.sessions[s]
	if h == nil {
		return p, false, false
	}
	return h.placement, true, h.publishers > 0
}

// InUse returns the streams that sessions of this peer are on.
func (r *Replica) InUse() []lb.Stream {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Keys(r.sessions))
}

// Adopt tells that the placement that sessions are on was made again, on the
// same origin, under a new generation. Their leases stay valid.
func (r *Replica) Adopt(p lb.Placement) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.sessions[p.Stream]
	if h == nil || h.is(p.Generation) || h.placement.Origin != p.Origin {
		return
	}
	h.former = append(h.former, h.placement.Generation)
	h.placement = p
}
