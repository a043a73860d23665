package fsm

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// How long a placement outlives its last holder.
const (
	// ReleaseAfter is for one whose last session ended: a player or encoder that
	// reconnects finds its stream where it was.
	ReleaseAfter = 10 * time.Second
	// OrphanAfter is for one whose last holder was a peer that was lost: its
	// clients may come back by any other peer, and the encoder may never have
	// been cut off the origin.
	OrphanAfter = 10 * time.Minute
)

// Expire removes a placement that nobody has held for ReleaseAfter, or for
// OrphanAfter if it is an orphan.
type Expire struct {
	Stream     Stream
	Generation uint64
}

func (c Expire) apply(s *State) Result {
	e := s.table.get(c.Stream)
	if e == nil || e.generation != c.Generation {
		return Result{}
	}
	keep, reason := ReleaseAfter, "last session ended"
	if e.orphaned {
		keep, reason = OrphanAfter, "peer lost, nobody came back"
	}
	if len(e.holders) > 0 || s.now.UnixMilli()-e.idleSince < keep.Milliseconds() {
		return Result{Err: ErrStale}
	}
	return s.drop(c.Stream, e, Released, reason)
}

// PeerGone ends all that one run of a peer held, because the peer was lost. A
// placement that it alone held becomes an orphan: it leads to the same origin
// until OrphanAfter, and the next holder makes it an ordinary one.
type PeerGone struct{ Holder Holder }

func (c PeerGone) apply(s *State) Result {
	var held []Stream
	for stream, e := range s.table.all() {
		if slices.Contains(e.holders, c.Holder) {
			held = append(held, stream)
		}
	}
	slices.SortFunc(held, Stream.Compare)
	var changes []Change
	for _, stream := range held {
		changes = append(changes, s.letGo(stream, s.table.get(stream), c.Holder).Changes...)
		if e := s.table.get(stream); len(e.holders) == 0 {
			orphan := *e
			orphan.orphaned = true
			s.update(stream, &orphan)
		}
	}
	delete(s.names.holders, c.Holder)
	return Result{Changes: changes}
}

// Holders returns the runs of peers that hold something, in order.
func (s *State) Holders() []Holder {
	found := make(map[Holder]bool)
	for _, e := range s.table.all() {
		for _, h := range e.holders {
			found[h] = true
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b Holder) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Epoch, b.Epoch))
	})
}

// HeldBy returns the streams that one run of a peer holds, in no order.
func (s *State) HeldBy(h Holder) []Stream {
	var held []Stream
	for stream, e := range s.table.all() {
		if slices.Contains(e.holders, h) {
			held = append(held, stream)
		}
	}
	return held
}
