// Package index is the concurrent read side of a backend: where each stream is,
// for any number of readers while one writer follows the state machine.
package index

import (
	"cmp"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/puzpuzpuz/xsync/v4"

	"srsx/fsm"
	"srsx/lb"
)

// Index answers Lookup without lock or allocation. One goroutine at a time may
// write; any number may read.
type Index struct {
	streams *xsync.Map[lb.Stream, *lb.Placement]
	origins atomic.Pointer[map[lb.OriginID]*lb.Origin] // replaced, never changed
}

// New returns an empty index.
func New() *Index {
	x := &Index{streams: xsync.NewMap[lb.Stream, *lb.Placement]()}
	x.origins.Store(&map[lb.OriginID]*lb.Origin{})
	return x
}

// Lookup returns where a stream is placed. The slices in the result are shared
// and must not be changed.
func (x *Index) Lookup(s lb.Stream) (lb.Placement, lb.Origin, bool) {
	p, ok := x.streams.Load(s)
	if !ok {
		return lb.Placement{}, lb.Origin{}, false
	}
	o, ok := (*x.origins.Load())[p.Origin]
	if !ok {
		return lb.Placement{}, lb.Origin{}, false
	}
	return *p, *o, true
}

// Origin returns one origin.
func (x *Index) Origin(id lb.OriginID) (lb.Origin, bool) {
	o, ok := (*x.origins.Load())[id]
	if !ok {
		return lb.Origin{}, false
	}
	return *o, true
}

// Origins returns all origins ordered by id.
func (x *Index) Origins() []lb.Origin {
	known := *x.origins.Load()
	all := make([]lb.Origin, 0, len(known))
	for _, o := range known {
		all = append(all, *o)
	}
	slices.SortFunc(all, func(a, b lb.Origin) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Placements returns all placements ordered by the text of their stream.
func (x *Index) Placements() []*lb.Placement {
	all := make([]*lb.Placement, 0, x.streams.Size())
	for _, p := range x.streams.All() {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *lb.Placement) int { return a.Stream.Compare(b.Stream) })
	return all
}

// Len returns the number of placements.
func (x *Index) Len() int { return x.streams.Size() }

// Put records a placement, Remove forgets one.
func (x *Index) Put(p lb.Placement) { x.streams.Store(p.Stream, &p) }

// Remove forgets the placement of s.
func (x *Index) Remove(s lb.Stream) { x.streams.Delete(s) }

// PutOrigin records an origin.
func (x *Index) PutOrigin(o lb.Origin) {
	x.changeOrigins(func(m map[lb.OriginID]*lb.Origin) { m[o.ID] = &o })
}

// RemoveOrigin forgets an origin. Its placements are removed one by one.
func (x *Index) RemoveOrigin(id lb.OriginID) {
	x.changeOrigins(func(m map[lb.OriginID]*lb.Origin) { delete(m, id) })
}

func (x *Index) changeOrigins(change func(map[lb.OriginID]*lb.Origin)) {
	next := maps.Clone(*x.origins.Load())
	change(next)
	x.origins.Store(&next)
}

// Reset makes the index that of a state.
func (x *Index) Reset(s *fsm.State) {
	origins := make(map[lb.OriginID]*lb.Origin)
	for _, o := range s.Origins() {
		origins[o.ID] = &o
	}
	x.origins.Store(&origins)
	for stream := range x.streams.All() {
		if _, placed := s.Placement(stream); !placed {
			x.streams.Delete(stream)
		}
	}
	for p := range s.Placements() {
		x.Put(p)
	}
}
