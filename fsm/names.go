package fsm

import "slices"

const (
	namePage = 1 << 16              // bytes: larger ones would be copied for longer after a view
	nameUnit = 8                    // bytes: names take whole units, and a freed one fits the next of its size
	perPage  = namePage / nameUnit  // units
	maxUnits = MaxPart/nameUnit + 1 // of one name
)

// names holds the bytes of names. What is freed is used again for names of as
// many units; what many names have been is given back when the last one goes.
type names struct {
	pages  [][]byte
	shared []bool             // a view reads the page
	free   [maxUnits][]uint32 // units where a freed name of so many units began
	used   uint32             // units handed out of the last page
}

func units(size int) uint32 { return uint32((size + nameUnit - 1) / nameUnit) }

// add keeps a name and returns where.
func (n *names) add(name string) uint32 {
	size := units(len(name))
	at := n.room(size)
	copy(n.own(at)[:len(name)], name)
	return at
}

// room returns where a name of so many units can go.
func (n *names) room(size uint32) uint32 {
	if last := len(n.free[size]) - 1; last >= 0 {
		at := n.free[size][last]
		n.free[size] = n.free[size][:last]
		return at
	}
	if len(n.pages) == 0 || n.used+size > perPage {
		if rest := perPage - n.used; len(n.pages) > 0 && rest > 0 {
			n.free[rest] = append(n.free[rest], uint32(len(n.pages))*perPage-rest)
		}
		n.pages, n.shared, n.used = append(n.pages, make([]byte, namePage)), append(n.shared, false), 0
	}
	at := uint32(len(n.pages)-1)*perPage + n.used
	n.used += size
	return at
}

// own returns the bytes from a unit on, no longer shared with a view.
func (n *names) own(at uint32) []byte {
	page := at / perPage
	if n.shared[page] {
		n.pages[page], n.shared[page] = slices.Clone(n.pages[page]), false
	}
	return n.pages[page][at%perPage*nameUnit:]
}

// remove frees the place of a name.
func (n *names) remove(at uint32, size int) {
	if u := units(size); u > 0 {
		n.free[u] = append(n.free[u], at)
	}
}

// view returns the names as they are now, for another goroutine to read.
func (n *names) view() nameView {
	for i := range n.shared {
		n.shared[i] = true
	}
	return slices.Clone(n.pages)
}

func (n *names) bytes(at uint32, size int) []byte { return nameView(n.pages).bytes(at, size) }

type nameView [][]byte

func (v nameView) bytes(at uint32, size int) []byte {
	if size == 0 {
		return nil
	}
	return v[at/perPage][at%perPage*nameUnit:][:size]
}
