package fsm

import (
	"fmt"
	"slices"
)

// Place asks that a stream be placed on the chosen incarnation of an origin and
// held. A live placement wins over the choice and is held instead; one whose
// origin is down is replaced.
type Place struct {
	Stream      Stream
	Origin      OriginID
	Incarnation Incarnation
	Holder      Holder
	Publish     bool
}

func (c Place) apply(s *State) Result {
	n, placed := s.placed.find(c.Stream)
	if placed && s.live(n) {
		return s.hold(n, c)
	}
	if max(len(c.Stream.VHost), len(c.Stream.App), len(c.Stream.Name)) > MaxPart {
		return Result{Err: fmt.Errorf("place: %w: more than %d bytes", ErrTooLong, MaxPart)}
	}
	h, err := s.usable(c.Origin, c.Incarnation)
	if err != nil {
		return Result{Err: fmt.Errorf("place on %s: %w", c.Origin, err)}
	}
	change := Change{Kind: Placed, Stream: c.Stream, Origin: c.Origin, Generation: s.sequence}
	if placed {
		change.Kind, change.From, change.Reason = Replaced, s.homeOf(n).origin.ID, "origin down"
		s.remove(n)
	} else if err := s.room(c.Stream.VHost); err != nil {
		return Result{Err: err}
	}
	s.note(change)
	n = s.place(c.Stream, h, c.Publish, tenure{holders: []Holder{c.Holder}})
	if c.Publish {
		s.noteStream(Published, n, c.Stream, "")
	}
	return Result{Placement: s.placement(n, c.Stream), Created: true}
}

// hold adds a holder to a live placement, or says again what it holds.
func (s *State) hold(n uint32, c Place) Result {
	if t := s.placed.tenure(n); !t.has(c.Holder) {
		s.setTenure(n, t.with(c.Holder))
		s.noteStream(Held, n, c.Stream, "")
	}
	if r := s.placed.records.at(n); c.Publish && !r.publishing() {
		s.placed.records.edit(n).stamp |= publishingBit
		s.noteStream(Published, n, c.Stream, "")
	}
	return Result{Placement: s.placement(n, c.Stream)}
}

// Unpublish records that the publisher of a placement has gone.
type Unpublish struct {
	Stream     Stream
	Generation uint64
}

func (c Unpublish) apply(s *State) Result {
	n, ok := s.fenced(c.Stream, c.Generation)
	if !ok {
		return Result{}
	}
	if s.placed.records.at(n).publishing() {
		s.placed.records.edit(n).stamp &^= publishingBit
		s.noteStream(Unpublished, n, c.Stream, "")
	}
	return Result{Placement: s.placement(n, c.Stream)}
}

// fenced finds the placement that a command was based on; it may be gone, and
// the stream be placed anew.
func (s *State) fenced(stream Stream, generation uint64) (n uint32, ok bool) {
	n, ok = s.placed.find(stream)
	return n, ok && s.placed.records.at(n).generation == generation
}

// Release records that a peer's last session on a placement has ended. The
// placement stays for ReleaseAfter; see Expire.
type Release struct {
	Stream     Stream
	Generation uint64
	Holder     Holder
}

func (c Release) apply(s *State) Result {
	n, ok := s.fenced(c.Stream, c.Generation)
	if !ok {
		return Result{}
	}
	return s.letGo(n, c.Stream, c.Holder)
}

func (s *State) letGo(n uint32, stream Stream, h Holder) Result {
	if t := s.placed.tenure(n); t.has(h) {
		s.setTenure(n, t.without(h, s.now))
		s.noteStream(Held, n, stream, "")
	}
	return Result{Placement: s.placement(n, stream)}
}

// Undo takes back a placement that its only holder made in vain.
type Undo struct {
	Stream     Stream
	Generation uint64
	Holder     Holder
}

func (c Undo) apply(s *State) Result {
	n, ok := s.fenced(c.Stream, c.Generation)
	if !ok {
		return Result{}
	}
	if !slices.Equal(s.placed.tenure(n).holders, []Holder{c.Holder}) {
		return s.letGo(n, c.Stream, c.Holder)
	}
	return s.drop(n, c.Stream, Released, "origin not reached")
}

// Move places a placed stream on another origin. Who held it holds nothing: the
// sessions on the old origin end, and come back.
type Move struct {
	Stream      Stream
	To          OriginID
	Incarnation Incarnation
}

func (c Move) apply(s *State) Result {
	n, ok := s.placed.find(c.Stream)
	if !ok {
		return Result{Err: ErrUnknownStream}
	}
	from := s.homeOf(n).origin
	if from.ID == c.To && from.Incarnation == c.Incarnation {
		return Result{Placement: s.placement(n, c.Stream)}
	}
	to, err := s.usable(c.To, c.Incarnation)
	if err != nil {
		return Result{Err: fmt.Errorf("move to %s: %w", c.To, err)}
	}
	s.remove(n)
	n = s.place(c.Stream, to, false, tenure{idleSince: max(s.now, 1)})
	s.note(Change{
		Kind: Moved, Stream: c.Stream, Origin: c.To, From: from.ID,
		Generation: s.sequence, Reason: "by operator",
	})
	return Result{Placement: s.placement(n, c.Stream)}
}

// Forget removes a placement.
type Forget struct{ Stream Stream }

func (c Forget) apply(s *State) Result {
	n, ok := s.placed.find(c.Stream)
	if !ok {
		return Result{Err: ErrUnknownStream}
	}
	return s.drop(n, c.Stream, Forgotten, "by operator")
}

func (s *State) drop(n uint32, stream Stream, kind ChangeKind, reason string) Result {
	s.noteStream(kind, n, stream, reason)
	s.remove(n)
	return Result{}
}
