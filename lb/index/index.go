// Package index is the concurrent read side of a backend: where each stream is,
// for any number of readers while one writer follows the state machine.
package index

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"sync/atomic"

	"srsx/fsm"
	"srsx/lb"
)

// Index answers Lookup without lock or allocation, and readers never hold up the
// writer. One goroutine at a time may write; any number may read.
type Index struct{ Finder }

// Finder is the one method of an [Index] that every session needs.
type Finder struct {
	origins atomic.Pointer[map[lb.OriginID]*origin] // replaced, never changed
	table   atomic.Pointer[table]
}

// origin is an origin and what it is now; nil once it was removed.
type origin struct {
	id  lb.OriginID
	now atomic.Pointer[lb.Origin]
}

// New returns an empty index.
func New() *Index {
	x := &Index{}
	x.origins.Store(&map[lb.OriginID]*origin{})
	x.table.Store(newTable())
	return x
}

// Reset makes the index that of a state, at once for every reader.
func (x *Index) Reset(s *fsm.State) {
	next := New()
	for _, o := range s.Origins() {
		next.PutOrigin(o)
	}
	for p := range s.Placements() {
		next.Put(p)
	}
	x.origins.Store(next.origins.Load())
	x.table.Store(next.table.Load())
}

// Follow brings the index up to a change that a command made to s.
func (x *Index) Follow(s *fsm.State, c fsm.Change) {
	switch {
	case c.Kind == fsm.OriginRemoved:
		x.RemoveOrigin(c.Origin)
	case c.Stream.IsZero():
		if o, ok := s.Origin(c.Origin); ok {
			x.PutOrigin(o)
		}
	default:
		if p, ok := s.Placement(c.Stream); ok {
			x.Put(p)
		} else {
			x.Remove(c.Stream)
		}
	}
}

// Lookup returns where a stream is placed. The slices in the result are shared
// and must not be changed.
func (x *Finder) Lookup(s lb.Stream) (lb.Placement, lb.Origin, bool) {
	f, ok := x.table.Load().lookup(&s)
	if !ok {
		return lb.Placement{}, lb.Origin{}, false
	}
	o := f.shared.origin.now.Load()
	if o == nil {
		return lb.Placement{}, lb.Origin{}, false
	}
	return f.placement(s), *o, true
}

// Origin returns one origin.
func (x *Index) Origin(id lb.OriginID) (lb.Origin, bool) {
	o := (*x.origins.Load())[id]
	if o == nil {
		return lb.Origin{}, false
	}
	now := o.now.Load()
	if now == nil {
		return lb.Origin{}, false
	}
	return *now, true
}

// Origins returns all origins ordered by id.
func (x *Index) Origins() []lb.Origin {
	known := *x.origins.Load()
	all := make([]lb.Origin, 0, len(known))
	for _, o := range known {
		if now := o.now.Load(); now != nil {
			all = append(all, *now)
		}
	}
	slices.SortFunc(all, func(a, b lb.Origin) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Placements yields the placements ordered by the text of their stream: those
// of the time of the call that are still there when their turn comes.
func (x *Index) Placements() iter.Seq[lb.Placement] {
	streams := x.table.Load().streams()
	slices.SortFunc(streams, lb.Stream.Compare)
	return func(yield func(lb.Placement) bool) {
		for _, s := range streams {
			if p, _, ok := x.Lookup(s); ok && !yield(p) {
				return
			}
		}
	}
}

// Len returns the number of placements.
func (x *Index) Len() int { return int(x.table.Load().len.Load()) }

// Put records a placement. Its origin must be known.
func (x *Index) Put(p lb.Placement) {
	if o := (*x.origins.Load())[p.Origin]; o != nil {
		x.table.Load().put(p, o)
	}
}

// Remove forgets the placement of s.
func (x *Index) Remove(s lb.Stream) {
	t := x.table.Load()
	if t.remove(s) && t.len.Load() == 0 {
		x.table.Store(newTable()) // gives back the memory of what many have been
	}
}

// PutOrigin records an origin.
func (x *Index) PutOrigin(o lb.Origin) {
	known := *x.origins.Load()
	if k := known[o.ID]; k != nil {
		k.now.Store(&o)
		return
	}
	added := &origin{id: o.ID}
	added.now.Store(&o)
	next := maps.Clone(known)
	next[o.ID] = added
	x.origins.Store(&next)
}

// RemoveOrigin forgets an origin. Its placements are removed one by one.
func (x *Index) RemoveOrigin(id lb.OriginID) {
	known := *x.origins.Load()
	if k := known[id]; k != nil {
		k.now.Store(nil)
		next := maps.Clone(known)
		delete(next, id)
		x.origins.Store(&next)
	}
}
