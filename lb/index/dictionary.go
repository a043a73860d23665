package index

import "sync/atomic"

// dictionary numbers values that many items share, and keeps each as long as an
// item has it. One goroutine takes and gives back; others may load any number
// at any time.
type dictionary[V any, K comparable] struct {
	values  atomic.Pointer[[]atomic.Pointer[V]]
	numbers map[K]uint32
	entries []dictionaryEntry[K] // by number
	free    []uint32
}

type dictionaryEntry[K comparable] struct {
	key  K
	uses int
}

func newDictionary[V any, K comparable]() dictionary[V, K] {
	return dictionary[V, K]{numbers: make(map[K]uint32)}
}

// load returns the value of a number, nil when it has none.
func (d *dictionary[V, K]) load(n uint32) *V {
	values := d.values.Load()
	if values == nil || n >= uint32(len(*values)) {
		return nil
	}
	return (*values)[n].Load()
}

// take returns the number of a key for one more item. A new one is made: the
// value, and the key that is kept, which equals key.
func (d *dictionary[V, K]) take(key K, made func() (K, *V)) uint32 {
	n, ok := d.numbers[key]
	if !ok {
		n = d.number()
		own, value := made()
		d.numbers[own] = n
		d.entries[n].key = own
		(*d.values.Load())[n].Store(value)
	}
	d.entries[n].uses++
	return n
}

// number returns one that is free.
func (d *dictionary[V, K]) number() uint32 {
	if last := len(d.free) - 1; last >= 0 {
		n := d.free[last]
		d.free = d.free[:last]
		return n
	}
	n := uint32(len(d.entries))
	d.entries = append(d.entries, dictionaryEntry[K]{})
	var old []atomic.Pointer[V]
	if values := d.values.Load(); values != nil {
		old = *values
	}
	if len(d.entries) > len(old) {
		grown := make([]atomic.Pointer[V], 2*len(old)+8)
		for i := range old {
			grown[i].Store(old[i].Load())
		}
		d.values.Store(&grown)
	}
	return n
}

// giveBack says that an item is gone.
func (d *dictionary[V, K]) giveBack(n uint32) {
	e := &d.entries[n]
	if e.uses--; e.uses > 0 {
		return
	}
	delete(d.numbers, e.key)
	*e = dictionaryEntry[K]{}
	(*d.values.Load())[n].Store(nil)
	d.free = append(d.free, n)
}
