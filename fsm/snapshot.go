package fsm

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
)

// SnapshotVersion is the version of the snapshots that are written. Every
// version up to it is read.
const SnapshotVersion = 1

// The types of blocks, in the order in which they stand.
const (
	blockHead       = 'h' // what the state is as a whole
	blockOrigins    = 'o' // ordered by id
	blockPlacements = 'p' // ordered by generation
	blockEnd        = 'e' // what must have come before
)

// Snapshot is a state as it was at one index. It may be read by one goroutine
// while the state that it was taken from goes on.
type Snapshot struct {
	index    uint64
	sequence uint64
	now      int64 // unix ms
	cluster  Cluster
	origins  []*Origin // ordered by id
	rows     rows
}

// Index returns the log index at which the snapshot was taken.
func (s *Snapshot) Index() uint64 { return s.index }

// Len returns the number of placements.
func (s *Snapshot) Len() int { return s.rows.len }

// Hash returns a number that is equal for equal states, whichever way they came
// about: by a log, by a snapshot, on any peer.
func (s *Snapshot) Hash() uint64 {
	h := fnv.New64a()
	_, _ = s.WriteTo(h) // a hash takes everything
	return h.Sum64()
}

// Hash returns the hash of a snapshot of now.
func (s *State) Hash() uint64 { return s.Snapshot().Hash() }

// Snapshot returns the state as it is now. It copies the origins and what lists
// the pages; each page is copied when, and if, the writer next changes it.
func (s *State) Snapshot() *Snapshot {
	snapshot := &Snapshot{
		index: s.index, sequence: s.sequence, now: s.now, cluster: s.cluster,
		origins: make([]*Origin, len(s.homes.ordered)),
		rows: rows{
			records: s.placed.records.view(),
			names:   s.placed.names.view(),
			paths:   s.placed.paths.view(),
			tenures: s.placed.tenures.view(),
			origins: make([]uint32, len(s.homes.slots)),
			len:     s.placed.len,
		},
	}
	for i, h := range s.homes.ordered {
		snapshot.origins[i] = h.origin
		snapshot.rows.origins[h.slot] = uint32(i)
	}
	return snapshot
}

// WriteTo writes the snapshot; equal states give equal bytes. The layout is that
// of blockWriter; what is in the blocks:
//
//	head        index, sequence, now; founded, id, secret
//	origins     registration; state, weight pinned; drain until, up since
//	placements  see rowWriter
//	end         origins, placements, index, sequence
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	bw := newBlockWriter(w, SnapshotVersion)
	bw.payload = s.appendHead(bw.payload)
	bw.flush(blockHead)
	for _, o := range s.origins {
		bw.payload = appendOrigin(bw.payload, o)
		bw.added(blockOrigins)
	}
	bw.flush(blockOrigins)
	s.rows.write(bw)
	bw.flush(blockPlacements)
	for _, n := range s.totals() {
		bw.payload = binary.AppendUvarint(bw.payload, n)
	}
	bw.flush(blockEnd)
	if bw.err != nil {
		return bw.written, fmt.Errorf("write snapshot: %w", bw.err)
	}
	return bw.written, nil
}

// totals is what the end says, and a reader must have found.
func (s *Snapshot) totals() [4]uint64 {
	return [4]uint64{uint64(len(s.origins)), uint64(s.rows.len), s.index, s.sequence}
}

func (s *Snapshot) appendHead(b []byte) []byte {
	b = binary.AppendUvarint(binary.AppendUvarint(b, s.index), s.sequence)
	b = binary.AppendVarint(b, s.now)
	b = append(b, flags(s.cluster.ID != ""))
	if s.cluster.ID != "" {
		b = Found(s.cluster).appendTo(b)
	}
	return b
}

func appendOrigin(b []byte, o *Origin) []byte {
	b = append(appendRegistration(b, *o), byte(o.State), flags(o.WeightPinned))
	return appendTime(appendTime(b, o.DrainUntil), o.UpSince)
}

func (r *reader) origin() Origin {
	o := readRegistration(r)
	o.State = OriginState(r.below(uint64(Draining)+1, "state"))
	o.WeightPinned = r.flags(1) != 0
	o.DrainUntil, o.UpSince = r.time(), r.time()
	return o
}

// Restore reads a snapshot and returns the state that it was taken from, under
// the given limits; what exceeds them stays. ErrVersion: a newer version wrote
// it. ErrCorrupt: it is not whole.
func Restore(r io.Reader, limits Limits) (*State, error) {
	s, err := restore(r, limits)
	if err != nil {
		return nil, fmt.Errorf("restore snapshot: %w", err)
	}
	return s, nil
}

func restore(from io.Reader, limits Limits) (*State, error) {
	br := &blockReader{r: from}
	version, err := br.open()
	switch {
	case err != nil:
		return nil, err
	case version > SnapshotVersion:
		return nil, fmt.Errorf("version %d: %w", version, ErrVersion)
	case version == 0:
		return nil, fmt.Errorf("%w: version 0", ErrCorrupt)
	}
	s := &restorer{state: NewState(limits)}
	for expected := byte(blockHead); ; {
		kind, payload, err := br.next()
		if err != nil {
			return nil, err
		}
		r := &reader{text: payload}
		if expected, err = s.block(kind, expected, r); err != nil {
			return nil, err
		}
		if err := r.end(); err != nil {
			return nil, fmt.Errorf("block %q: %w", kind, err)
		}
		if kind == blockEnd {
			return s.state, br.done()
		}
	}
}

// restorer fills a state from blocks.
type restorer struct {
	state *State
	rows  rowReader
}

// block reads one block, of which the type is expected or a later one, and
// returns what may follow.
func (s *restorer) block(kind, expected byte, r *reader) (byte, error) {
	switch {
	case kind == blockHead && expected == blockHead:
		s.head(r)
		return blockOrigins, nil
	case kind == blockOrigins && expected == blockOrigins:
		s.origins(r)
		return blockOrigins, nil
	case kind == blockPlacements && (expected == blockOrigins || expected == blockPlacements):
		for r.text != "" && r.err == nil {
			s.rows.read(r, s.state)
		}
		return blockPlacements, nil
	case kind == blockEnd && expected != blockHead:
		s.end(r)
		return 0, nil
	default:
		return 0, fmt.Errorf("%w: block %q out of place", ErrCorrupt, kind)
	}
}

func (s *restorer) head(r *reader) {
	s.state.index, s.state.sequence, s.state.now = r.uvarint(), r.uvarint(), r.millis()
	if r.flags(1) != 0 {
		s.state.cluster = readCluster(r)
	}
}

func readCluster(r *reader) Cluster {
	c := Cluster(readFound(r))
	if c.ID == "" {
		r.fail("cluster without id")
	}
	return c
}

func (s *restorer) origins(r *reader) {
	for r.text != "" {
		o := r.origin()
		if all := s.state.homes.ordered; len(all) > 0 && all[len(all)-1].origin.ID >= o.ID {
			r.fail("origins out of order")
		}
		if r.err == nil {
			s.state.homes.put(&o)
		}
	}
}

// end compares what was read with what should have been.
func (s *restorer) end(r *reader) {
	have := [4]uint64{uint64(len(s.state.homes.ordered)), uint64(s.state.placed.len), s.state.index, s.state.sequence}
	for i, n := range have {
		if said := r.uvarint(); r.err == nil && said != n {
			r.fail(fmt.Sprintf("total %d is %d, said to be %d", i, n, said))
		}
	}
	s.state.watchAll(s.rows.idle)
}
