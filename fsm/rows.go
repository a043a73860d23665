package fsm

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// rows is the placements of a snapshot: what the store held, and the origins by
// their place in the snapshot.
type rows struct {
	records view[record]
	names   nameView
	paths   view[path]
	tenures view[tenure]
	origins []uint32 // by home.slot
	len     int
}

// inOrder returns the records in the order of their generations, which is the
// same on every peer. Their numbers are not: those tell how a peer got here.
func (rs *rows) inOrder() []uint32 {
	order := make([]uint32, 0, rs.len)
	sorted, last := true, uint64(0)
	for n := range rs.records.used {
		if generation := rs.records.at(n).generation; generation != 0 {
			order = append(order, n)
			sorted, last = sorted && last < generation, generation
		}
	}
	if !sorted {
		slices.SortFunc(order, func(a, b uint32) int {
			return cmp.Compare(rs.records.at(a).generation, rs.records.at(b).generation)
		})
	}
	return order
}

// write adds all placements to the blocks. Each is
//
//	generation  uvarint, less that of the one before
//	placed at   varint, unix ms, less that of the one before
//	path        see below: vhost, app
//	origin      uvarint, which one of the origins blocks
//	tenure      see below: count of holders, and each: see below: peer, epoch;
//	            of none: idle since, and flags: orphaned
//	flags       publishing
//	name
//
// What many placements share is spelled out where it first comes up, and is from
// then on the number it got there: numbers count from 0, and the next one that is
// not given yet says that the spelling follows.
func (rs *rows) write(bw *blockWriter) {
	w := rowWriter{
		rows:    rs,
		paths:   numbers{given: make([]uint32, rs.paths.used)},
		tenures: numbers{given: make([]uint32, rs.tenures.used)},
		holders: make(map[Holder]uint32),
	}
	for _, n := range rs.inOrder() {
		bw.payload = w.append(bw.payload, rs.records.at(n))
		bw.added(blockPlacements)
	}
}

// rowWriter knows what was written, to write the next row as what differs.
type rowWriter struct {
	rows       *rows
	generation uint64
	placedAt   int64
	paths      numbers
	tenures    numbers
	holders    map[Holder]uint32
}

// numbers gives what is numbered in the store the next number of a snapshot.
type numbers struct {
	given []uint32 // and 1; 0: none yet
	count uint32
}

func (ns *numbers) of(n uint32) (number uint32, isNew bool) {
	if ns.given[n] == 0 {
		ns.count++
		ns.given[n], isNew = ns.count, true
	}
	return ns.given[n] - 1, isNew
}

func (w *rowWriter) append(b []byte, r *record) []byte {
	b = binary.AppendUvarint(b, r.generation-w.generation)
	b = binary.AppendVarint(b, r.placedAt()-w.placedAt)
	w.generation, w.placedAt = r.generation, r.placedAt()
	b = w.appendPath(b, r.path)
	b = binary.AppendUvarint(b, uint64(w.rows.origins[r.home]))
	b = w.appendTenure(b, r.tenure)
	b = append(b, flags(r.publishing()))
	b = binary.AppendUvarint(b, uint64(r.size()))
	return append(b, w.rows.names.bytes(r.name, r.size())...)
}

func (w *rowWriter) appendPath(b []byte, n uint32) []byte {
	number, isNew := w.paths.of(n)
	b = binary.AppendUvarint(b, uint64(number))
	if isNew {
		p := w.rows.paths.at(n)
		b = appendText(appendText(b, p.vhost), p.app)
	}
	return b
}

func (w *rowWriter) appendTenure(b []byte, n uint32) []byte {
	number, isNew := w.tenures.of(n)
	b = binary.AppendUvarint(b, uint64(number))
	if !isNew {
		return b
	}
	t := w.rows.tenures.at(n)
	b = binary.AppendUvarint(b, uint64(len(t.holders)))
	for _, h := range t.holders {
		b = w.appendHolder(b, h)
	}
	if len(t.holders) == 0 {
		b = append(binary.AppendVarint(b, t.idleSince), flags(t.orphaned))
	}
	return b
}

func (w *rowWriter) appendHolder(b []byte, h Holder) []byte {
	if number, given := w.holders[h]; given {
		return binary.AppendUvarint(b, uint64(number))
	}
	b = binary.AppendUvarint(b, uint64(len(w.holders)))
	w.holders[h] = uint32(len(w.holders))
	return appendHolder(b, h)
}

// rowReader reads what rowWriter wrote into a state.
type rowReader struct {
	generation uint64
	placedAt   int64
	paths      []uint32 // number in the store by the number given
	tenures    []uint32 // likewise
	holders    []Holder
	idle       []uint32 // records that nobody holds
}

func (rr *rowReader) read(r *reader, s *State) {
	before := rr.generation
	rr.generation += r.uvarint()
	rr.placedAt += r.varint()
	path := rr.path(r, &s.placed)
	home := r.below(uint64(len(s.homes.ordered)), "origin")
	tenure := rr.tenure(r, &s.placed)
	publishing := r.flags(1) != 0
	name := r.string()
	if r.err != nil {
		return
	}
	switch _, placed := s.placed.under(path, name); {
	case placed:
		r.fail("stream placed twice")
	case rr.generation <= before || rr.generation > s.sequence:
		r.fail("generation out of order")
	case rr.placedAt < 0 || rr.placedAt > latest:
		r.fail("time out of range")
	case len(name) > MaxPart:
		r.fail("name too long")
	default:
		n := s.insert(name, s.homes.ordered[home], record{
			generation: rr.generation, stamp: stampOf(rr.placedAt, publishing, len(name)), path: path, tenure: tenure,
		})
		if s.placed.tenures.at(tenure).idleSince != 0 {
			rr.idle = append(rr.idle, n)
		}
	}
}

func (rr *rowReader) path(r *reader, st *store) uint32 {
	n := r.below(uint64(len(rr.paths))+1, "path")
	if n < uint64(len(rr.paths)) {
		return st.paths.again(rr.paths[n])
	}
	vhost, app := r.string(), r.string()
	if max(len(vhost), len(app)) > MaxPart {
		r.fail("name too long")
	}
	rr.paths = append(rr.paths, st.paths.take(vhost, app, &st.table))
	return rr.paths[n]
}

func (rr *rowReader) tenure(r *reader, st *store) uint32 {
	n := r.below(uint64(len(rr.tenures))+1, "holders")
	if n < uint64(len(rr.tenures)) {
		return st.tenures.again(rr.tenures[n])
	}
	t := tenure{}
	for n := r.count("count of holders"); n > 0 && r.err == nil; n-- {
		h := rr.holder(r)
		if last := len(t.holders) - 1; last >= 0 && t.holders[last].compare(h) >= 0 {
			r.fail("holders out of order")
		}
		t.holders = append(t.holders, h)
	}
	if len(t.holders) == 0 {
		t.idleSince, t.orphaned = r.varint(), r.flags(1) != 0
		if t.idleSince < 1 || t.idleSince > latest {
			r.fail("time out of range")
		}
	}
	rr.tenures = append(rr.tenures, st.tenures.take(t))
	return rr.tenures[n]
}

func (rr *rowReader) holder(r *reader) Holder {
	n := r.below(uint64(len(rr.holders))+1, "holder")
	if n == uint64(len(rr.holders)) {
		rr.holders = append(rr.holders, Holder{Peer: r.own(), Epoch: r.uvarint()})
	}
	return rr.holders[n]
}
