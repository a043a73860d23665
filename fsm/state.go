package fsm

import (
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
	"time"
)

// Why a command was refused. A refused command has changed nothing.
var (
	ErrUnknownOrigin = errors.New("origin not known")
	ErrUnknownStream = errors.New("stream not placed")
	ErrOriginDown    = errors.New("origin is down")
	ErrDraining      = errors.New("origin is draining")
	ErrFull          = errors.New("cap reached")
	ErrStale         = errors.New("command is based on older state")
	ErrTooLong       = errors.New("name too long")
)

// MaxPart is how many bytes each part of the name of a placed stream may have.
const MaxPart = 512

// Limits caps what the state may hold. Zero means no cap.
type Limits struct {
	Origins            int
	Placements         int
	PlacementsPerVHost int
}

// State is the agreed state: origins and placements. It has one writer, Apply;
// nothing may read it meanwhile. Snapshots may be read at any time.
type State struct {
	limits   Limits
	index    uint64
	sequence uint64 // commands applied, refused ones included
	now      int64  // unix ms: the latest stamp
	cluster  Cluster
	homes    homes
	placed   store
	expiry   expiry
	changes  []Change // made by the entry that is being applied
}

// NewState returns an empty state.
func NewState(limits Limits) *State {
	return &State{limits: limits, homes: newHomes(), placed: newStore(table{seed: maphash.MakeSeed()})}
}

// Index returns the log index of the last entry that was applied.
func (s *State) Index() uint64 { return s.index }

// Sequence returns how many commands have been applied. An entry carries many,
// so placements take their generation from here and not from the index.
func (s *State) Sequence() uint64 { return s.sequence }

// Now returns the time inside the machine: the latest stamp of any entry.
func (s *State) Now() time.Time { return timeOf(s.now) }

// Len returns the number of placements.
func (s *State) Len() int { return s.placed.len }

// Origin returns one origin. The slices in it are shared: do not change them.
func (s *State) Origin(id OriginID) (Origin, bool) {
	h := s.homes.byID[id]
	if h == nil {
		return Origin{}, false
	}
	return *h.origin, true
}

// Origins returns all origins ordered by id.
func (s *State) Origins() []Origin {
	all := make([]Origin, len(s.homes.ordered))
	for i, h := range s.homes.ordered {
		all[i] = *h.origin
	}
	return all
}

// StreamsOn returns how many streams are placed on an origin.
func (s *State) StreamsOn(id OriginID) int {
	h := s.homes.byID[id]
	if h == nil {
		return 0
	}
	return h.streams
}

// Placement returns where a stream is placed. Its holders are shared: do not
// change them.
func (s *State) Placement(stream Stream) (Placement, bool) {
	n, ok := s.placed.find(stream)
	if !ok {
		return Placement{}, false
	}
	return s.placement(n, stream), true
}

// Placements yields all placements in no order.
func (s *State) Placements() iter.Seq[Placement] {
	return func(yield func(Placement) bool) {
		for n := range s.placed.records.used {
			if s.placed.records.at(n).generation != 0 && !yield(s.placement(n, s.placed.stream(n))) {
				return
			}
		}
	}
}

func (s *State) placement(n uint32, stream Stream) Placement {
	r := s.placed.records.at(n)
	t := s.placed.tenures.at(r.tenure)
	o := s.homes.slots[r.home].origin
	return Placement{
		Stream: stream, Origin: o.ID, Incarnation: o.Incarnation, Generation: r.generation,
		PlacedAt: timeOf(r.placedAt()), Publishing: r.publishing(),
		Holders: t.holders, IdleSince: timeOf(t.idleSince), Orphaned: t.orphaned,
	}
}

// usable returns nil when a stream may be placed on the given incarnation of an
// origin now, by what is agreed; else the error that Place would return.
func (s *State) usable(id OriginID, inc Incarnation) (*home, error) {
	h := s.homes.byID[id]
	switch {
	case h == nil:
		return nil, ErrUnknownOrigin
	case h.origin.Incarnation != inc:
		return nil, ErrStale
	case h.origin.State == Down:
		return nil, ErrOriginDown
	case h.origin.State == Draining:
		return nil, ErrDraining
	case h.full():
		return nil, ErrFull
	default:
		return h, nil
	}
}

// room returns nil when the caps allow one more placement.
func (s *State) room(vhost string) error {
	if m := s.limits.Placements; m > 0 && s.placed.len >= m {
		return fmt.Errorf("%w: %d placements", ErrFull, m)
	}
	if m := s.limits.PlacementsPerVHost; m > 0 && s.placed.vhosts[vhost] >= m {
		return fmt.Errorf("%w: %d placements in vhost %s", ErrFull, m, vhost)
	}
	return nil
}

// live reports whether a placement still leads to its origin. That it is of the
// present incarnation goes without saying: those of others are gone.
func (s *State) live(n uint32) bool { return s.homeOf(n).origin.State != Down }

func (s *State) homeOf(n uint32) *home { return s.homes.slots[s.placed.records.at(n).home] }

// insert places a stream that is not placed. Of the record, generation, stamp,
// path and tenure are given.
func (s *State) insert(name string, h *home, r record) uint32 {
	r.home = h.slot
	n := s.placed.add(r, name)
	h.append(n, &s.placed.records)
	return n
}

// place places a stream that is not placed, now.
func (s *State) place(stream Stream, h *home, publishing bool, t tenure) uint32 {
	st := &s.placed
	n := s.insert(stream.Name, h, record{
		generation: s.sequence, stamp: stampOf(s.now, publishing, len(stream.Name)),
		path: st.paths.take(stream.VHost, stream.App, &st.table), tenure: st.tenures.take(t),
	})
	if t.idleSince != 0 {
		s.watch(n)
	}
	return n
}

// remove forgets a placement.
func (s *State) remove(n uint32) {
	s.homeOf(n).unlink(n, &s.placed.records)
	s.placed.remove(n)
}

// setTenure changes who holds a placement, and watches it when nobody does.
func (s *State) setTenure(n uint32, t tenure) {
	s.placed.setTenure(n, t)
	if t.idleSince != 0 {
		s.watch(n)
	}
}

// home is an origin and the placements on it: a list through their records, so
// that all of them can go without a look at the others.
type home struct {
	origin      *Origin // replaced, never changed: snapshots share it
	hash        uint64  // of the id, for the policy
	slot        uint32
	streams     int
	first, last uint32 // records, oldest first; or none
}

func (h *home) full() bool { return h.origin.MaxStreams > 0 && h.streams >= int(h.origin.MaxStreams) }

// append puts a new record at the end of the list.
func (h *home) append(n uint32, records *arena[record]) {
	r := records.edit(n)
	r.prev, r.next = h.last, none
	if h.last == none {
		h.first = n
	} else {
		records.edit(h.last).next = n
	}
	h.last = n
	h.streams++
}

// unlink takes a record out of the list.
func (h *home) unlink(n uint32, records *arena[record]) {
	r := *records.at(n)
	if r.prev == none {
		h.first = r.next
	} else {
		records.edit(r.prev).next = r.next
	}
	if r.next == none {
		h.last = r.prev
	} else {
		records.edit(r.next).prev = r.prev
	}
	h.streams--
}

// homes holds the origins.
type homes struct {
	byID    map[OriginID]*home
	ordered []*home // by id: no choice has to sort them
	slots   []*home // by home.slot; nil: free
	free    []uint32
}

func newHomes() homes { return homes{byID: make(map[OriginID]*home)} }

func (hs *homes) find(id OriginID) (at int, known bool) {
	return slices.BinarySearchFunc(hs.ordered, id, func(h *home, id OriginID) int { return cmp.Compare(h.origin.ID, id) })
}

// put records an origin, a new one or the next state of a known one.
func (hs *homes) put(o *Origin) *home {
	if h := hs.byID[o.ID]; h != nil {
		h.origin = o
		return h
	}
	h := &home{origin: o, hash: hashText(hashStart, string(o.ID)), first: none, last: none}
	if last := len(hs.free) - 1; last >= 0 {
		h.slot, hs.free = hs.free[last], hs.free[:last]
		hs.slots[h.slot] = h
	} else {
		h.slot = uint32(len(hs.slots))
		hs.slots = append(hs.slots, h)
	}
	hs.byID[o.ID] = h
	at, _ := hs.find(o.ID)
	hs.ordered = slices.Insert(hs.ordered, at, h)
	return h
}

// remove forgets an origin without placements.
func (hs *homes) remove(h *home) {
	at, _ := hs.find(h.origin.ID)
	hs.ordered = slices.Delete(hs.ordered, at, at+1)
	delete(hs.byID, h.origin.ID)
	hs.slots[h.slot] = nil
	hs.free = append(hs.free, h.slot)
}
