package fsm

import (
	"fmt"
	"slices"
)

// Place asks that a stream be placed on the chosen incarnation of an origin and
// held. A live placement wins over the choice and is held instead; one whose
// origin is down or has restarted is replaced.
type Place struct {
	Stream      Stream
	Origin      OriginID
	Incarnation Incarnation
	Holder      Holder
	Publish     bool
}

func (c Place) apply(s *State) Result {
	old := s.table.get(c.Stream)
	if old != nil && s.live(old) {
		return s.hold(c.Stream, old, c.Holder, c.Publish)
	}
	if err := s.usable(c.Origin, c.Incarnation); err != nil {
		return Result{Err: fmt.Errorf("place on %s: %w", c.Origin, err)}
	}
	if old == nil {
		if err := s.room(c.Stream.VHost); err != nil {
			return Result{Err: err}
		}
	}
	change := Change{Kind: Placed, Stream: c.Stream, Origin: c.Origin, Generation: s.sequence}
	if old != nil {
		change.Kind, change.From, change.Reason = Replaced, old.home.id, "origin down or restarted"
		s.remove(c.Stream)
	}
	e := &entry{
		home: s.names.home(c.Origin, c.Incarnation), generation: s.sequence, placedAt: s.now.UnixMilli(),
		holders: s.names.only(c.Holder), publishing: c.Publish,
	}
	s.insert(c.Stream, e)
	changes := []Change{change}
	if c.Publish {
		changes = append(changes, Change{Kind: Published, Stream: c.Stream, Origin: c.Origin, Generation: s.sequence})
	}
	return Result{Placement: e.placement(c.Stream), Created: true, Changes: changes}
}

// hold adds a holder to a live placement, or says again what it holds.
func (s *State) hold(stream Stream, e *entry, h Holder, publish bool) Result { //nolint:revive // publish is a fact of the command
	next := *e
	next.idleSince, next.orphaned = 0, false
	var changes []Change
	if !slices.Contains(e.holders, h) {
		next.holders = s.names.only(h)
		if len(e.holders) > 0 {
			next.holders = append(slices.Clone(e.holders), h)
		}
		changes = append(changes, Change{Kind: Held, Stream: stream, Origin: e.home.id, Generation: e.generation})
	}
	if publish && !e.publishing {
		next.publishing = true
		changes = append(changes, Change{Kind: Published, Stream: stream, Origin: e.home.id, Generation: e.generation})
	}
	s.update(stream, &next)
	return Result{Placement: next.placement(stream), Changes: changes}
}

// Unpublish records that the publisher of a placement has gone.
type Unpublish struct {
	Stream     Stream
	Generation uint64
}

func (c Unpublish) apply(s *State) Result {
	e := s.table.get(c.Stream)
	if e == nil || e.generation != c.Generation || !e.publishing {
		return Result{}
	}
	next := *e
	next.publishing = false
	s.update(c.Stream, &next)
	return Result{Placement: next.placement(c.Stream), Changes: []Change{
		{Kind: Unpublished, Stream: c.Stream, Origin: e.home.id, Generation: e.generation},
	}}
}

// Release records that a peer's last session on a placement has ended. The
// placement stays for ReleaseAfter; see Expire.
type Release struct {
	Stream     Stream
	Generation uint64
	Holder     Holder
}

func (c Release) apply(s *State) Result {
	e := s.table.get(c.Stream)
	if e == nil || e.generation != c.Generation {
		return Result{}
	}
	return s.letGo(c.Stream, e, c.Holder)
}

func (s *State) letGo(stream Stream, e *entry, h Holder) Result {
	if !slices.Contains(e.holders, h) {
		return Result{Placement: e.placement(stream)}
	}
	next := *e
	next.holders = nil
	switch rest := slices.DeleteFunc(slices.Clone(e.holders), func(o Holder) bool { return o == h }); len(rest) {
	case 0:
		next.idleSince = max(s.now.UnixMilli(), 1)
	case 1:
		next.holders = s.names.only(rest[0])
	default:
		next.holders = rest
	}
	s.update(stream, &next)
	return Result{Placement: next.placement(stream), Changes: []Change{
		{Kind: Held, Stream: stream, Origin: e.home.id, Generation: e.generation},
	}}
}

// Undo takes back a placement that its only holder made in vain.
type Undo struct {
	Stream     Stream
	Generation uint64
	Holder     Holder
}

func (c Undo) apply(s *State) Result {
	e := s.table.get(c.Stream)
	if e == nil || e.generation != c.Generation {
		return Result{}
	}
	if !slices.Equal(e.holders, []Holder{c.Holder}) {
		return s.letGo(c.Stream, e, c.Holder)
	}
	return s.drop(c.Stream, e, Released, "origin not reached")
}

// Move places a placed stream on another origin. Who held it holds nothing: the
// sessions on the old origin end, and come back.
type Move struct {
	Stream      Stream
	To          OriginID
	Incarnation Incarnation
}

func (c Move) apply(s *State) Result {
	e := s.table.get(c.Stream)
	if e == nil {
		return Result{Err: ErrUnknownStream}
	}
	if e.home.id == c.To && e.home.incarnation == c.Incarnation {
		return Result{Placement: e.placement(c.Stream)}
	}
	if err := s.usable(c.To, c.Incarnation); err != nil {
		return Result{Err: fmt.Errorf("move to %s: %w", c.To, err)}
	}
	s.remove(c.Stream)
	next := &entry{
		home: s.names.home(c.To, c.Incarnation), generation: s.sequence,
		placedAt: s.now.UnixMilli(), idleSince: max(s.now.UnixMilli(), 1),
	}
	s.insert(c.Stream, next)
	return Result{Placement: next.placement(c.Stream), Changes: []Change{
		{Kind: Moved, Stream: c.Stream, Origin: c.To, From: e.home.id, Generation: s.sequence, Reason: "by operator"},
	}}
}

// Forget removes a placement.
type Forget struct{ Stream Stream }

func (c Forget) apply(s *State) Result {
	e := s.table.get(c.Stream)
	if e == nil {
		return Result{Err: ErrUnknownStream}
	}
	return s.drop(c.Stream, e, Forgotten, "by operator")
}

func (s *State) room(vhost string) error {
	if m := s.limits.Placements; m > 0 && s.table.len >= m {
		return fmt.Errorf("%w: %d placements", ErrFull, m)
	}
	if m := s.limits.PlacementsPerVHost; m > 0 && s.vhosts[vhost] >= m {
		return fmt.Errorf("%w: %d placements in vhost %s", ErrFull, m, vhost)
	}
	return nil
}

func (s *State) insert(stream Stream, e *entry) {
	stream.VHost, stream.App = s.names.take(stream.VHost), s.names.take(stream.App)
	s.table.put(stream, e)
	s.streams[e.home.id]++
	s.vhosts[stream.VHost]++
}

// update replaces an entry under the strings that the table has already: a map
// keeps those of the last write, and would hold on to each caller's own.
func (s *State) update(stream Stream, e *entry) {
	stream.VHost, stream.App = s.names.texts[stream.VHost].text, s.names.texts[stream.App].text
	s.table.put(stream, e)
}

func (s *State) drop(stream Stream, e *entry, kind ChangeKind, reason string) Result {
	s.remove(stream)
	return Result{Changes: []Change{{Kind: kind, Stream: stream, Origin: e.home.id, Generation: e.generation, Reason: reason}}}
}

func (s *State) remove(stream Stream) {
	e := s.table.get(stream)
	s.table.remove(stream)
	s.names.giveBack(stream.VHost)
	s.names.giveBack(stream.App)
	count(s.streams, e.home.id)
	count(s.vhosts, stream.VHost)
}

func count[K comparable](m map[K]int, k K) {
	if m[k]--; m[k] <= 0 {
		delete(m, k)
	}
}
