package fsm

import (
	"fmt"
	"time"
)

// PutOrigin records an origin: a new one, a new incarnation of a known one,
// whose old placements go, or new endpoints. It comes up. State, DrainUntil,
// UpSince and WeightPinned are the machine's to keep, not the command's to set.
type PutOrigin struct{ Origin Origin }

func (c PutOrigin) apply(s *State) Result {
	next := c.Origin
	next.State, next.DrainUntil, next.UpSince, next.WeightPinned = Up, time.Time{}, s.Now(), false
	h := s.homes.byID[next.ID]
	if h == nil {
		if m := s.limits.Origins; m > 0 && len(s.homes.ordered) >= m {
			return Result{Err: fmt.Errorf("%w: %d origins", ErrFull, m)}
		}
		s.homes.put(&next)
		s.note(Change{Kind: OriginCameUp, Origin: next.ID, Reason: "new"})
		return Result{}
	}
	old := h.origin
	if old.WeightPinned {
		next.Weight, next.WeightPinned = old.Weight, true
	}
	next.DrainUntil = old.DrainUntil
	if old.Incarnation == next.Incarnation {
		next.State, next.UpSince = old.State, old.UpSince
		h.origin = &next
		s.note(Change{Kind: OriginChanged, Origin: next.ID})
		return Result{}
	}
	s.dropPlacements(h, "origin restarted")
	if !next.DrainUntil.IsZero() {
		next.State = Draining
	}
	h.origin = &next
	s.note(Change{Kind: OriginCameUp, Origin: next.ID, Reason: "new incarnation"})
	return Result{}
}

// SetUp records that an incarnation of an origin was found alive, or dead.
type SetUp struct {
	ID          OriginID
	Incarnation Incarnation
	Up          bool
	Reason      string
}

func (c SetUp) apply(s *State) Result {
	h := s.homes.byID[c.ID]
	if h == nil {
		return Result{Err: ErrUnknownOrigin}
	}
	if h.origin.Incarnation != c.Incarnation {
		return Result{Err: ErrStale}
	}
	if (h.origin.State != Down) == c.Up {
		return Result{}
	}
	next := *h.origin
	kind := OriginWentDown
	next.State = Down
	if c.Up {
		kind, next.UpSince = OriginCameUp, s.Now()
		next.State = Up
		if !next.DrainUntil.IsZero() {
			next.State = Draining
		}
	}
	h.origin = &next
	s.note(Change{Kind: kind, Origin: c.ID, Reason: c.Reason})
	return Result{}
}

// forever is the deadline of a drain that has none: a drain must be told from
// no drain while the origin is down.
var forever = timeOf(latest) //nolint:gochecknoglobals // a constant that Go cannot spell

// Drain stops new streams on an origin until Ready. A zero Until: no deadline.
type Drain struct {
	ID    OriginID
	Until time.Time
}

func (c Drain) apply(s *State) Result {
	return s.changeOrigin(c.ID, OriginDrains, func(o *Origin) {
		o.DrainUntil = timeOf(min(millisOf(c.Until), latest))
		if o.DrainUntil.IsZero() {
			o.DrainUntil = forever
		}
		if o.State == Up {
			o.State = Draining
		}
	})
}

// DrainOver records that a drain's deadline has passed: the placements on the
// origin go, and with them the sessions.
type DrainOver struct{ ID OriginID }

func (c DrainOver) apply(s *State) Result {
	h := s.homes.byID[c.ID]
	if h == nil {
		return Result{Err: ErrUnknownOrigin}
	}
	if !h.origin.drained(s.Now()) {
		return Result{Err: ErrStale}
	}
	next := *h.origin
	next.DrainUntil = forever
	s.dropPlacements(h, "drained")
	h.origin = &next
	s.note(Change{Kind: OriginDrained, Origin: c.ID})
	return Result{}
}

// drained reports whether the deadline of a drain has passed.
func (o *Origin) drained(now time.Time) bool {
	return !o.DrainUntil.IsZero() && !o.DrainUntil.Equal(forever) && !now.Before(o.DrainUntil)
}

// Ready ends a drain.
type Ready struct{ ID OriginID }

func (c Ready) apply(s *State) Result {
	return s.changeOrigin(c.ID, OriginCameUp, func(o *Origin) {
		o.DrainUntil = time.Time{}
		if o.State == Draining {
			o.State = Up
		}
	})
}

// Weigh sets the weight of an origin.
type Weigh struct {
	ID     OriginID
	Weight uint32
}

func (c Weigh) apply(s *State) Result {
	return s.changeOrigin(c.ID, OriginChanged, func(o *Origin) { o.Weight, o.WeightPinned = c.Weight, true })
}

// RemoveOrigin forgets an origin and its placements.
type RemoveOrigin struct{ ID OriginID }

func (c RemoveOrigin) apply(s *State) Result {
	h := s.homes.byID[c.ID]
	if h == nil {
		return Result{Err: ErrUnknownOrigin}
	}
	s.dropPlacements(h, "origin removed")
	s.homes.remove(h)
	s.note(Change{Kind: OriginRemoved, Origin: c.ID})
	return Result{}
}

func (s *State) changeOrigin(id OriginID, kind ChangeKind, change func(*Origin)) Result {
	h := s.homes.byID[id]
	if h == nil {
		return Result{Err: ErrUnknownOrigin}
	}
	next := *h.origin
	change(&next)
	h.origin = &next
	s.note(Change{Kind: kind, Origin: id})
	return Result{}
}

// dropPlacements releases all placements on an origin, oldest first.
func (s *State) dropPlacements(h *home, reason string) {
	for n := h.first; n != none; n = h.first {
		s.noteStream(Released, n, s.placed.stream(n), reason)
		s.remove(n)
	}
}
