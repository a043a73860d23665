package fsm

import (
	"cmp"
	"slices"
	"time"
)

// How long a placement outlives its last holder.
const (
	// ReleaseAfter is for one whose last session ended: a player or encoder that
	// reconnects finds its stream where it was.
	ReleaseAfter = 10 * time.Second
	// OrphanAfter is for one whose last holder was a peer that was lost: its
	// clients come back by any other peer.
	OrphanAfter = 10 * time.Minute
)

// Expire removes a placement that nobody has held for ReleaseAfter, or for
// OrphanAfter if it is an orphan.
type Expire struct {
	Stream     Stream
	Generation uint64
}

func (c Expire) apply(s *State) Result {
	n, ok := s.fenced(c.Stream, c.Generation)
	if !ok {
		return Result{}
	}
	t := s.placed.tenure(n)
	if t.idleSince == 0 || s.now < t.expires() {
		return Result{Err: ErrStale}
	}
	reason := "last session ended"
	if t.orphaned {
		reason = "peer lost, nobody came back"
	}
	return s.drop(n, c.Stream, Released, reason)
}

// expires returns when an idle placement is over, in unix ms.
func (t *tenure) expires() int64 {
	if t.orphaned {
		return t.idleSince + OrphanAfter.Milliseconds()
	}
	return t.idleSince + ReleaseAfter.Milliseconds()
}

// PeerGone ends all that one run of a peer held, because the peer was lost. A
// placement that it alone held becomes an orphan: it leads to the same origin
// until OrphanAfter, and the next holder makes it an ordinary one.
type PeerGone struct{ Holder Holder }

func (c PeerGone) apply(s *State) Result {
	for _, n := range s.heldBy(c.Holder) {
		next := s.placed.tenure(n).without(c.Holder, s.now)
		next.orphaned = next.idleSince != 0
		s.setTenure(n, next)
		s.noteStream(Held, n, s.placed.stream(n), "peer lost")
	}
	return Result{}
}

// heldBy returns the records that a holder has, oldest first. It looks at all of
// them: peers are lost too seldom to keep a list for each.
func (s *State) heldBy(h Holder) []uint32 {
	st := &s.placed
	concerned := make([]bool, st.tenures.used)
	any := false
	for t := range st.tenures.used {
		concerned[t] = st.tenures.at(t).has(h)
		any = any || concerned[t]
	}
	if !any {
		return nil
	}
	var held []uint32
	for n := range st.records.used {
		if r := st.records.at(n); r.generation != 0 && concerned[r.tenure] {
			held = append(held, n)
		}
	}
	slices.SortFunc(held, func(a, b uint32) int {
		return cmp.Compare(st.records.at(a).generation, st.records.at(b).generation)
	})
	return held
}

// Due returns up to limit commands for what time has ended by now: placements
// that nobody came back to, and drains. Whoever decides proposes them; until
// they are applied the next call returns them again, and one call may name the
// same twice. Not beside Apply.
func (s *State) Due(now time.Time, limit int) []Command {
	var due []Command
	for _, h := range s.homes.ordered {
		if h.origin.drained(now) && len(due) < limit {
			due = append(due, DrainOver{ID: h.origin.ID})
		}
	}
	for _, q := range []*queue{&s.expiry.idle, &s.expiry.orphans} {
		s.trim(q)
		for _, w := range q.items[q.first:] {
			if len(due) >= limit || w.until > now.UnixMilli() {
				break
			}
			if s.waits(w) {
				due = append(due, Expire{Stream: s.placed.stream(w.record), Generation: w.generation})
			}
		}
	}
	return due
}

// expiry knows which placements are idle, in the order in which they expire:
// time inside the machine does not go back, so that is the order of coming. It
// follows from the placements, and is no part of what is agreed.
type expiry struct{ idle, orphans queue }

type queue struct {
	items []waiting
	first int
}

// waiting is a placement that was idle when it was put here.
type waiting struct {
	record     uint32
	generation uint64
	until      int64 // unix ms
}

// watch queues an idle placement.
func (s *State) watch(n uint32) {
	t := s.placed.tenure(n)
	q := &s.expiry.idle
	if t.orphaned {
		q = &s.expiry.orphans
	}
	s.trim(q)
	q.items = append(q.items, waiting{n, s.placed.records.at(n).generation, t.expires()})
}

// trim drops from the front of a queue what waits no more.
func (s *State) trim(q *queue) {
	for q.first < len(q.items) && !s.waits(q.items[q.first]) {
		q.first++
	}
	switch {
	case q.first == len(q.items):
		*q = queue{}
	case q.first > len(q.items)/2:
		q.items, q.first = append(q.items[:0], q.items[q.first:]...), 0
	}
}

// watchAll queues what is idle in a state that was restored.
func (s *State) watchAll(idle []uint32) {
	slices.SortStableFunc(idle, func(a, b uint32) int {
		return cmp.Compare(s.placed.tenure(a).idleSince, s.placed.tenure(b).idleSince)
	})
	for _, n := range idle {
		s.watch(n)
	}
}

// waits reports whether a placement is idle still, and has been since.
func (s *State) waits(w waiting) bool {
	if w.record >= s.placed.records.used || s.placed.records.at(w.record).generation != w.generation {
		return false
	}
	t := s.placed.tenure(w.record)
	return t.idleSince != 0 && t.expires() == w.until
}

// Holders returns the runs of peers that hold something, ordered.
func (s *State) Holders() []Holder {
	var all []Holder
	for t := range s.placed.tenures.used {
		all = append(all, s.placed.tenures.at(t).holders...)
	}
	slices.SortFunc(all, Holder.compare)
	return slices.Compact(all)
}

// HeldBy returns the streams that one run of a peer holds, oldest first.
func (s *State) HeldBy(h Holder) []Stream {
	records := s.heldBy(h)
	held := make([]Stream, len(records))
	for i, n := range records {
		held[i] = s.placed.stream(n)
	}
	return held
}
