package fsm

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// everyState is the state after everyLog.
func everyState(tb testing.TB) *State {
	tb.Helper()
	s := NewState(Limits{})
	for i, batch := range everyLog() {
		s.Apply(uint64(10+i), stamp(i), batch...)
	}
	return s
}

func snapshotOf(tb testing.TB, s *State) []byte {
	tb.Helper()
	var b bytes.Buffer
	n, err := s.Snapshot().WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		tb.Fatalf("WriteTo = %d, %v; wrote %d bytes", n, err, b.Len())
	}
	return b.Bytes()
}

func placements(s *State) []Placement {
	return slices.SortedFunc(s.Placements(), func(a, b Placement) int { return a.Stream.Compare(b.Stream) })
}

// same fails unless two states agree in all that can be seen of them.
func same(tb testing.TB, got, want *State) {
	tb.Helper()
	if got.Index() != want.Index() || got.Sequence() != want.Sequence() || !got.Now().Equal(want.Now()) || got.Len() != want.Len() {
		tb.Errorf("index, sequence, now, len = %d, %d, %s, %d; want %d, %d, %s, %d", got.Index(), got.Sequence(), got.Now(), got.Len(),
			want.Index(), want.Sequence(), want.Now(), want.Len())
	}
	gotCluster, _ := got.Cluster()
	if wantCluster, _ := want.Cluster(); gotCluster != wantCluster {
		tb.Errorf("cluster = %s; want %s, or another secret", gotCluster.ID, wantCluster.ID)
	}
	if g, w := got.Origins(), want.Origins(); !reflect.DeepEqual(g, w) {
		tb.Errorf("origins = %+v; want %+v", g, w)
	}
	if g, w := placements(got), placements(want); !reflect.DeepEqual(g, w) {
		tb.Errorf("%d placements; want %d, or others", len(g), len(w))
	}
	for _, o := range want.Origins() {
		if g, w := got.StreamsOn(o.ID), want.StreamsOn(o.ID); g != w {
			tb.Errorf("streams on %s = %d; want %d", o.ID, g, w)
		}
	}
	if g, w := dueSet(got), dueSet(want); !maps.Equal(g, w) {
		tb.Errorf("%d are due; want %d, or others", len(g), len(w))
	}
	if g, w := got.Hash(), want.Hash(); g != w {
		tb.Errorf("hash = %x; want %x", g, w)
	}
}

// dueSet is what will be due, in no order: of what is due at the same time either
// may come first.
func dueSet(s *State) map[Command]bool {
	set := make(map[Command]bool)
	for _, c := range s.Due(s.Now().Add(OrphanAfter), 1<<20) {
		set[c] = true
	}
	return set
}

func TestSnapshotRestores(t *testing.T) {
	for name, s := range map[string]*State{"empty": NewState(Limits{}), "of every command": everyState(t)} {
		t.Run(name, func(t *testing.T) {
			restored, err := Restore(bytes.NewReader(snapshotOf(t, s)), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			same(t, restored, s)
			if a, b := snapshotOf(t, restored), snapshotOf(t, s); !bytes.Equal(a, b) {
				t.Errorf("snapshot of the restored state\n%x; want\n%x", a, b)
			}
		})
	}
}

// TestGoldenSnapshot restores what version 1 wrote, for ever, and writes the
// same as long as version 1 is what is written.
func TestGoldenSnapshot(t *testing.T) {
	const file = "testdata/snapshot-v1.hex"
	now := hex.EncodeToString(snapshotOf(t, everyState(t)))
	if *update {
		if err := os.WriteFile(file, []byte(now+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(golden)); got != now {
		t.Errorf("snapshot is\n%s; want\n%s", now, got)
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(golden)))
	if err != nil {
		t.Fatal(err)
	}
	restored, err := Restore(bytes.NewReader(b), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	same(t, restored, everyState(t))
}

func TestDamagedSnapshotIsRefused(t *testing.T) {
	good := snapshotOf(t, everyState(t))
	for n := range good {
		if _, err := Restore(bytes.NewReader(good[:n]), Limits{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Restore of the first %d of %d bytes = %v; want ErrCorrupt", n, len(good), err)
		}
		for bit := range 8 {
			bad := slices.Clone(good)
			bad[n] ^= 1 << bit
			if _, err := Restore(bytes.NewReader(bad), Limits{}); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Errorf("Restore with bit %d of byte %d flipped = %v; want an error", bit, n, err)
			}
		}
	}
	if _, err := Restore(bytes.NewReader(append(slices.Clip(good), 0)), Limits{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("Restore with a byte after the end = %v; want ErrCorrupt", err)
	}
}

// unsealed is a snapshot as (type, payload) pairs without magic and checksums,
// which a fuzzer would not get right: see sealed.
func unsealed(tb testing.TB, snapshot []byte) []byte {
	tb.Helper()
	br := blockReader{r: bytes.NewReader(snapshot)}
	if _, err := br.open(); err != nil {
		tb.Fatal(err)
	}
	var b []byte
	for {
		kind, payload, err := br.next()
		if err != nil {
			tb.Fatal(err)
		}
		b = append(binary.LittleEndian.AppendUint16(append(b, kind), uint16(len(payload))), payload...)
		if kind == blockEnd {
			return b
		}
	}
}

// sealed makes a file with the right magic, lengths and checksums of what
// unsealed returned, or of anything.
func sealed(b []byte) []byte {
	var file bytes.Buffer
	bw := newBlockWriter(&file, SnapshotVersion)
	for len(b) > 3 {
		kind, length := b[0], min(int(binary.LittleEndian.Uint16(b[1:])), len(b)-3)
		bw.payload = append(bw.payload, b[3:3+length]...)
		bw.flush(kind)
		b = b[3+length:]
	}
	return file.Bytes()
}

// TestFalseSnapshotIsRefused: what no state could have written is refused, even
// with the right checksums.
func TestFalseSnapshotIsRefused(t *testing.T) {
	s := started(Limits{})
	log(s, placeOn("a", "one"), heldByB(placeOn("a", "one")), placeOn("b", "two"), PeerGone{peerA})
	log(s, placeOn("a", "both"), heldByB(placeOn("a", "both")))
	good := unsealed(t, snapshotOf(t, s))
	if _, err := Restore(bytes.NewReader(sealed(good)), Limits{}); err != nil {
		t.Fatalf("Restore of what was not changed = %v", err)
	}
	for i := range good {
		for _, with := range []byte{good[i] + 1, good[i] - 1, 0, 1, 0x7f, 0xff, 'p', 'o', 'e'} {
			bad := slices.Clone(good)
			bad[i] = with
			checkRestore(t, sealed(bad))
		}
	}
	for i := len(good) - 4; i < len(good); i++ { // the totals, a byte each
		bad := slices.Clone(good)
		bad[i]++
		if _, err := Restore(bytes.NewReader(sealed(bad)), Limits{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Restore with a wrong total = %v; want ErrCorrupt", err)
		}
	}
	for _, b := range [][]byte{nil, good[:len(good)/2], append(slices.Clip(good), good...), []byte("h\x00\x00e\x00\x00")} {
		if _, err := Restore(bytes.NewReader(sealed(b)), Limits{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Restore of a false snapshot = %v; want ErrCorrupt", err)
		}
	}
}

// checkRestore restores a file, or sees it refused with a reason. What is taken
// must be a state that writes itself the same ever after.
func checkRestore(tb testing.TB, file []byte) {
	tb.Helper()
	s, err := Restore(bytes.NewReader(file), Limits{})
	if err != nil {
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			tb.Errorf("Restore = %v; want ErrCorrupt or ErrVersion", err)
		}
		return
	}
	if again, err := Restore(bytes.NewReader(snapshotOf(tb, s)), Limits{}); err != nil || again.Hash() != s.Hash() {
		tb.Errorf("what was restored of %x cannot be written and restored again: %v", file, err)
	}
	if s.Len() != len(placements(s)) {
		tb.Errorf("%d placements are counted, %d there", s.Len(), len(placements(s)))
	}
	for p := range s.Placements() {
		if !slices.IsSortedFunc(p.Holders, Holder.compare) || len(slices.Compact(slices.Clone(p.Holders))) != len(p.Holders) {
			tb.Errorf("holders %v are not a sorted set", p.Holders)
		}
	}
	s.Apply(s.Index()+1, s.Now(), s.Due(s.Now(), 100)...)
}

func FuzzRestore(f *testing.F) {
	f.Add(unsealed(f, snapshotOf(f, NewState(Limits{}))))
	f.Add(unsealed(f, snapshotOf(f, everyState(f))))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkRestore(t, b)
		checkRestore(t, sealed(b))
	})
}
