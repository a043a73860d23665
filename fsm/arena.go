package fsm

import "slices"

// pageSize is how many values an arena copies when it changes one that a view
// shares: of placements 40 KB, some microseconds.
const pageSize = 1024

// arena holds values of one size in pages and numbers them from 0. Pages keep
// the collector from following a million pointers, and are what views share: the
// writer copies a page before it changes it for the first time after view.
type arena[T any] struct {
	pages  []*[pageSize]T
	shared []bool   // a view reads the page of the same number
	free   []uint32 // numbers to be used again
	used   uint32   // numbers from here on were never used
}

// at returns a value to be read until the arena is changed next.
func (a *arena[T]) at(n uint32) *T { return &a.pages[n/pageSize][n%pageSize] }

// edit returns a value to be changed.
func (a *arena[T]) edit(n uint32) *T {
	page := n / pageSize
	if a.shared[page] {
		own := *a.pages[page]
		a.pages[page], a.shared[page] = &own, false
	}
	return &a.pages[page][n%pageSize]
}

// add keeps a value and returns its number.
func (a *arena[T]) add(v T) uint32 {
	n := a.used
	if last := len(a.free) - 1; last >= 0 {
		n, a.free = a.free[last], a.free[:last]
	} else {
		if n/pageSize == uint32(len(a.pages)) {
			a.pages, a.shared = append(a.pages, new([pageSize]T)), append(a.shared, false)
		}
		a.used++
	}
	*a.edit(n) = v
	return n
}

// remove zeroes a value and frees its number.
func (a *arena[T]) remove(n uint32) {
	var zero T
	*a.edit(n) = zero
	a.free = append(a.free, n)
}

// view returns the values as they are now, for another goroutine to read.
func (a *arena[T]) view() view[T] {
	for i := range a.shared {
		a.shared[i] = true
	}
	return view[T]{pages: slices.Clone(a.pages), used: a.used}
}

// view is an arena as it was at one time.
type view[T any] struct {
	pages []*[pageSize]T
	used  uint32
}

func (v view[T]) at(n uint32) *T { return &v.pages[n/pageSize][n%pageSize] }
