package fsm

import (
	"bytes"
	"encoding/hex"
	"errors"
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
		tb.Errorf("placements = %+v; want %+v", g, w)
	}
	for _, o := range want.Origins() {
		if g, w := got.StreamsOn(o.ID), want.StreamsOn(o.ID); g != w {
			tb.Errorf("streams on %s = %d; want %d", o.ID, g, w)
		}
	}
	if g, w := got.Due(want.Now().Add(OrphanAfter), 1000), want.Due(want.Now().Add(OrphanAfter), 1000); !reflect.DeepEqual(g, w) {
		tb.Errorf("due = %+v; want %+v", g, w)
	}
	if g, w := got.Hash(), want.Hash(); g != w {
		tb.Errorf("hash = %x; want %x", g, w)
	}
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
