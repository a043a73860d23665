package fsm

import (
	"fmt"
	"slices"
	"time"
)

// Command is one change of the state. Each is safe to repeat, since whoever
// proposed it may not have learnt that it was applied. The set is closed.
type Command interface {
	apply(s *State) Result
	kind() kind
	appendTo(b []byte) []byte // its fields, after its kind
}

// Result is what a command did. Err says why it was refused; Changes lists what
// is different now, in the order in which it changed.
type Result struct {
	Err       error
	Placement Placement // of Place, Hold, Release and Move: as it is now
	Created   bool      // of Place: this command made the placement
	Changes   []Change
}

// ChangeKind says what happened.
type ChangeKind uint8

// What can happen to a stream or an origin.
const (
	Placed ChangeKind = iota
	Replaced
	Moved
	Forgotten
	Released
	Published
	Unpublished
	Held // holders changed; of no interest outside the read index
	OriginChanged
	OriginCameUp
	OriginWentDown
	OriginDrains
	OriginDrained
	OriginRemoved
	Founded // the cluster has its name and secret
)

// Change is one difference that a command made.
type Change struct {
	Kind       ChangeKind
	Stream     Stream   // zero for changes of an origin
	Origin     OriginID // where the stream is now, or the origin concerned
	From       OriginID // where it was: Replaced, Moved
	Generation uint64
	Reason     string
}

// Apply runs the commands of one log entry in order and returns what each did.
// Index is the entry's place in the log and grows; at is the proposer's clock,
// of which milliseconds count. Time inside the machine never goes back.
func (s *State) Apply(index uint64, at time.Time, commands ...Command) []Result {
	s.index = index
	if at = at.UTC().Truncate(time.Millisecond); at.After(s.now) {
		s.now = at
	}
	results := make([]Result, len(commands))
	for i, c := range commands {
		s.sequence++
		results[i] = c.apply(s)
	}
	return results
}

// PutOrigin records an origin: a new one, a new incarnation of a known one,
// whose old placements go, or new endpoints. It comes up.
type PutOrigin struct{ Origin Origin }

func (c PutOrigin) apply(s *State) Result {
	next := c.Origin
	next.WeightPinned, next.DrainUntil = false, time.Time{}
	old, known := s.origins[next.ID]
	if !known && s.limits.Origins > 0 && len(s.origins) >= s.limits.Origins {
		return Result{Err: fmt.Errorf("%w: %d origins", ErrFull, s.limits.Origins)}
	}
	if known && old.WeightPinned {
		next.Weight, next.WeightPinned = old.Weight, true
	}
	var changes []Change
	switch {
	case !known:
		next.State, next.UpSince = Up, s.now
		changes = []Change{{Kind: OriginCameUp, Origin: next.ID, Reason: "new"}}
	case old.Incarnation != next.Incarnation:
		changes = s.dropPlacements(next.ID, Released, "origin restarted")
		delete(s.names.homes, home{old.ID, old.Incarnation})
		next.State, next.DrainUntil, next.UpSince = old.State, old.DrainUntil, s.now
		if old.State != Draining {
			next.State = Up
		}
		changes = append(changes, Change{Kind: OriginCameUp, Origin: next.ID, Reason: "new incarnation"})
	default:
		next.State, next.DrainUntil, next.UpSince = old.State, old.DrainUntil, old.UpSince
		changes = []Change{{Kind: OriginChanged, Origin: next.ID}}
	}
	s.origins[next.ID] = &next
	return Result{Changes: changes}
}

// SetUp records that an incarnation of an origin was found alive, or dead.
type SetUp struct {
	ID          OriginID
	Incarnation Incarnation
	Up          bool
	Reason      string
}

func (c SetUp) apply(s *State) Result {
	o, ok := s.origins[c.ID]
	if !ok {
		return Result{Err: ErrUnknownOrigin}
	}
	if o.Incarnation != c.Incarnation {
		return Result{Err: ErrStale}
	}
	if (o.State != Down) == c.Up {
		return Result{}
	}
	next := *o
	kind := OriginWentDown
	next.State = Down
	if c.Up {
		kind, next.UpSince = OriginCameUp, s.now
		next.State = Up
		if !next.DrainUntil.IsZero() {
			next.State = Draining
		}
	}
	s.origins[c.ID] = &next
	return Result{Changes: []Change{{Kind: kind, Origin: c.ID, Reason: c.Reason}}}
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
		o.DrainUntil = timeOf(millisOf(c.Until))
		if c.Until.IsZero() {
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
	o, ok := s.origins[c.ID]
	if !ok {
		return Result{Err: ErrUnknownOrigin}
	}
	if o.DrainUntil.IsZero() || s.now.Before(o.DrainUntil) {
		return Result{Err: ErrStale}
	}
	if o.DrainUntil.Equal(forever) {
		return Result{Err: ErrStale}
	}
	next := *o
	next.DrainUntil = forever
	s.origins[c.ID] = &next
	changes := s.dropPlacements(c.ID, Released, "drained")
	return Result{Changes: append(changes, Change{Kind: OriginDrained, Origin: c.ID})}
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
	o, ok := s.origins[c.ID]
	if !ok {
		return Result{Err: ErrUnknownOrigin}
	}
	changes := s.dropPlacements(c.ID, Released, "origin removed")
	delete(s.names.homes, home{o.ID, o.Incarnation})
	delete(s.origins, c.ID)
	return Result{Changes: append(changes, Change{Kind: OriginRemoved, Origin: c.ID})}
}

func (s *State) changeOrigin(id OriginID, kind ChangeKind, change func(*Origin)) Result {
	o, ok := s.origins[id]
	if !ok {
		return Result{Err: ErrUnknownOrigin}
	}
	next := *o
	change(&next)
	s.origins[id] = &next
	return Result{Changes: []Change{{Kind: kind, Origin: id}}}
}

// dropPlacements removes all placements on an origin, in the order of their
// names so that every peer reports the same.
func (s *State) dropPlacements(id OriginID, kind ChangeKind, reason string) []Change {
	var changes []Change
	for stream, e := range s.table.all() {
		if e.home.id == id {
			changes = append(changes, Change{Kind: kind, Stream: stream, Origin: id, Generation: e.generation, Reason: reason})
		}
	}
	slices.SortFunc(changes, func(a, b Change) int { return a.Stream.Compare(b.Stream) })
	for _, c := range changes {
		s.remove(c.Stream)
	}
	return changes
}
