package fsm

import "hash/maphash"

// record is a placement as it is kept, without pointers: 40 bytes, and its name.
type record struct {
	generation uint64 // 0: no placement has this number
	stamp      uint64 // placed at, unix ms << 16, publishing, length of the name
	name       uint32 // in names
	path       uint32
	tenure     uint32
	home       uint32
	prev, next uint32 // on the same home, in the order of generations; or none
}

const (
	none = 1<<32 - 1

	publishingBit = 1 << 15
	sizeMask      = 1<<15 - 1
)

func (r *record) placedAt() int64  { return int64(r.stamp >> 16) }
func (r *record) publishing() bool { return r.stamp&publishingBit != 0 }
func (r *record) size() int        { return int(r.stamp & sizeMask) }

func stampOf(placedAt int64, publishing bool, size int) uint64 { //nolint:revive // a fact to keep
	stamp := uint64(min(max(placedAt, 0), latest))<<16 | uint64(size)
	if publishing {
		stamp |= publishingBit
	}
	return stamp
}

// store holds the placements. What many of them share is kept once, and so a
// placement is a record, a name and a slot of the table.
type store struct {
	records arena[record]
	names   names
	paths   paths
	tenures tenures
	table   table
	vhosts  map[string]int // placements in each
	len     int
}

func newStore(t table) store {
	return store{
		paths:   paths{numbers: make(map[[2]string]uint32)},
		tenures: tenures{numbers: make(map[string]uint32)},
		table:   t,
		vhosts:  make(map[string]int),
	}
}

// find returns the number of a stream's record.
func (st *store) find(s Stream) (n uint32, ok bool) {
	path, ok := st.paths.numbers[[2]string{s.VHost, s.App}]
	if !ok {
		return 0, false
	}
	return st.under(path, s.Name)
}

// under finds a name on a path.
func (st *store) under(path uint32, name string) (n uint32, ok bool) {
	return st.table.find(st.hash(path, st.table.text(name)), func(n uint32) bool {
		r := st.records.at(n)
		return r.path == path && r.size() == len(name) && string(st.names.bytes(r.name, len(name))) == name
	})
}

func (st *store) hash(path uint32, name uint64) uint64 { return spread(st.paths.at(path).hash, name) }

// add keeps a new record, of which the name is given and path and tenure are
// taken already.
func (st *store) add(r record, name string) uint32 {
	r.name = st.names.add(name)
	n := st.records.add(r)
	st.table.add(st.hash(r.path, st.table.text(name)), n)
	st.vhosts[st.paths.at(r.path).vhost]++
	st.len++
	return n
}

// remove forgets a record. The last one takes all memory with it.
func (st *store) remove(n uint32) {
	r := *st.records.at(n)
	if st.len == 1 {
		*st = newStore(table{seed: st.table.seed})
		return
	}
	st.len--
	name := maphash.Bytes(st.table.seed, st.names.bytes(r.name, r.size()))
	st.table.remove(st.hash(r.path, name), n)
	vhost := st.paths.at(r.path).vhost
	if st.vhosts[vhost]--; st.vhosts[vhost] == 0 {
		delete(st.vhosts, vhost)
	}
	st.names.remove(r.name, r.size())
	st.paths.giveBack(r.path)
	st.tenures.giveBack(r.tenure)
	st.records.remove(n)
}

// setTenure changes who holds a placement.
func (st *store) setTenure(n uint32, v tenure) {
	next := st.tenures.take(v)
	r := st.records.edit(n)
	st.tenures.giveBack(r.tenure)
	r.tenure = next
}

func (st *store) tenure(n uint32) *tenure { return st.tenures.at(st.records.at(n).tenure) }

func (st *store) name(n uint32) string {
	r := st.records.at(n)
	return string(st.names.bytes(r.name, r.size()))
}

func (st *store) stream(n uint32) Stream {
	p := st.paths.at(st.records.at(n).path)
	return Stream{VHost: p.vhost, App: p.app, Name: st.name(n)}
}
