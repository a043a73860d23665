package fsm

import (
	"cmp"
	"errors"
	"hash/maphash"
	"iter"
	"maps"
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
)

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
	now      time.Time
	cluster  Cluster
	origins  map[OriginID]*Origin // values are replaced, never changed
	streams  map[OriginID]int     // placements on the current incarnation
	vhosts   map[string]int       // placements in each vhost
	names    interner
	table    table
}

// NewState returns an empty state.
func NewState(limits Limits) *State {
	return &State{
		limits:  limits,
		origins: make(map[OriginID]*Origin),
		streams: make(map[OriginID]int),
		vhosts:  make(map[string]int),
		names:   newInterner(),
		table:   newTable(),
	}
}

// Index returns the log index of the last entry that was applied.
func (s *State) Index() uint64 { return s.index }

// Sequence returns how many commands have been applied. An entry carries many,
// so placements take their generation from here and not from the index.
func (s *State) Sequence() uint64 { return s.sequence }

// Now returns the time inside the machine: the latest stamp of any command.
func (s *State) Now() time.Time { return s.now }

// Len returns the number of placements.
func (s *State) Len() int { return s.table.len }

// Origin returns one origin. The slices in it are shared: do not change them.
func (s *State) Origin(id OriginID) (Origin, bool) {
	o, ok := s.origins[id]
	if !ok {
		return Origin{}, false
	}
	return *o, true
}

// Origins returns all origins ordered by id.
func (s *State) Origins() []Origin {
	all := make([]Origin, 0, len(s.origins))
	for _, o := range s.origins {
		all = append(all, *o)
	}
	slices.SortFunc(all, func(a, b Origin) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// StreamsOn returns how many streams are placed on an origin.
func (s *State) StreamsOn(id OriginID) int { return s.streams[id] }

// Placement returns where a stream is placed. Its holders are shared: do not
// change them.
func (s *State) Placement(stream Stream) (Placement, bool) {
	e := s.table.get(stream)
	if e == nil {
		return Placement{}, false
	}
	return e.placement(stream), true
}

// Placements yields all placements in no order.
func (s *State) Placements() iter.Seq[Placement] {
	return func(yield func(Placement) bool) {
		for stream, e := range s.table.all() {
			if !yield(e.placement(stream)) {
				return
			}
		}
	}
}

// usable returns nil when stream may be placed on the given incarnation of an
// origin now, by what is agreed; else the error that Place would return.
func (s *State) usable(id OriginID, inc Incarnation) error {
	o, ok := s.origins[id]
	switch {
	case !ok:
		return ErrUnknownOrigin
	case o.Incarnation != inc:
		return ErrStale
	case o.State == Down:
		return ErrOriginDown
	case o.State == Draining:
		return ErrDraining
	case o.MaxStreams > 0 && s.streams[id] >= int(o.MaxStreams):
		return ErrFull
	default:
		return nil
	}
}

// live reports whether a placement still leads to its origin.
func (s *State) live(e *entry) bool {
	o, ok := s.origins[e.home.id]
	return ok && o.State != Down && o.Incarnation == e.home.incarnation
}

// entry is a placement as it is kept: immutable, its strings shared. One entry
// a stream and a million streams are why it holds no more than this.
type entry struct {
	home       *home
	generation uint64
	placedAt   int64 // unix ms
	idleSince  int64 // unix ms of the last holder's release; 0: held
	holders    []Holder
	publishing bool
	orphaned   bool
}

// home is one incarnation of an origin, shared by the placements on it.
type home struct {
	id          OriginID
	incarnation Incarnation
}

func (e *entry) placement(s Stream) Placement {
	return Placement{
		Stream: s, Origin: e.home.id, Incarnation: e.home.incarnation, Generation: e.generation,
		PlacedAt: time.UnixMilli(e.placedAt).UTC(), Publishing: e.publishing, Holders: e.holders,
		IdleSince: timeOf(e.idleSince), Orphaned: e.orphaned,
	}
}

// shards is how many pieces the table has. A snapshot shares all of them and
// the first write to each then copies one: at a million streams some 250
// entries, so that neither pauses the writer for long.
const shards = 4096

// table maps streams to entries, in shards that snapshots share.
type table struct {
	seed   maphash.Seed
	shards []shard
	len    int
}

type shard struct {
	entries map[Stream]*entry
	shared  bool // a snapshot reads entries: copy before writing
}

func newTable() table {
	return table{seed: maphash.MakeSeed(), shards: make([]shard, shards)}
}

func (t *table) of(s Stream) *shard {
	return &t.shards[maphash.Comparable(t.seed, s)%shards]
}

func (t *table) get(s Stream) *entry { return t.of(s).entries[s] }

func (t *table) put(s Stream, e *entry) {
	sh := t.own(s)
	if _, ok := sh.entries[s]; !ok {
		t.len++
	}
	sh.entries[s] = e
}

func (t *table) remove(s Stream) {
	sh := t.own(s)
	if _, ok := sh.entries[s]; ok {
		t.len--
		delete(sh.entries, s)
	}
}

// own returns the shard of s, no longer shared with any snapshot.
func (t *table) own(s Stream) *shard {
	sh := t.of(s)
	if sh.entries == nil || sh.shared {
		copied := make(map[Stream]*entry, len(sh.entries)+1)
		maps.Copy(copied, sh.entries)
		sh.entries, sh.shared = copied, false
	}
	return sh
}

func (t *table) all() iter.Seq2[Stream, *entry] {
	return func(yield func(Stream, *entry) bool) {
		for i := range t.shards {
			for s, e := range t.shards[i].entries {
				if !yield(s, e) {
					return
				}
			}
		}
	}
}

// interner keeps one copy of what a million placements have in common, as long
// as one of them has it.
type interner struct {
	texts   map[string]*sharedText
	homes   map[home]*home
	holders map[Holder][]Holder
}

type sharedText struct {
	text string
	uses int
}

func newInterner() interner {
	return interner{texts: make(map[string]*sharedText), homes: make(map[home]*home), holders: make(map[Holder][]Holder)}
}

func (n *interner) take(text string) string {
	t, ok := n.texts[text]
	if !ok {
		t = &sharedText{text: text}
		n.texts[text] = t
	}
	t.uses++
	return t.text
}

func (n *interner) giveBack(text string) {
	if t := n.texts[text]; t != nil {
		if t.uses--; t.uses == 0 {
			delete(n.texts, text)
		}
	}
}

func (n *interner) home(id OriginID, inc Incarnation) *home {
	h := home{id, inc}
	if known, ok := n.homes[h]; ok {
		return known
	}
	n.homes[h] = &h
	return &h
}

// only returns the list of one holder, the same one each time.
func (n *interner) only(h Holder) []Holder {
	if known, ok := n.holders[h]; ok {
		return known
	}
	list := []Holder{h}
	n.holders[h] = list
	return list
}
