package store

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// twins is a Store and raft's in-memory store, which gets the same calls.
type twins struct {
	dir    string
	store  *Store
	memory *raft.InmemStore

	keys      map[string]bool
	staged    uint64
	covered   uint64            // index of the newest snapshot
	committed map[uint64]uint64 // staged when the entry was stored
}

func (w *twins) reopen(t *rapid.T) {
	if w.store != nil {
		if err := w.store.Close(); err != nil {
			t.Fatalf("Close: %v", err)
		}
	}
	var err error
	if w.store, err = Open(w.dir, Options{MaxAppendEntries: 1 << 30}); err != nil {
		t.Fatalf("Open: %v", err)
	}
	// What was staged and never stored is gone.
	w.staged = w.committed[w.bounds(t).last]
}

type bounds struct{ first, last uint64 }

func (w *twins) bounds(t *rapid.T) bounds {
	var b bounds
	for _, index := range []struct {
		name  string
		of    func(raft.LogStore) (uint64, error)
		value *uint64
	}{
		{"FirstIndex", raft.LogStore.FirstIndex, &b.first},
		{"LastIndex", raft.LogStore.LastIndex, &b.last},
	} {
		got, err := index.of(w.store)
		want, _ := index.of(w.memory)
		if err != nil || got != want {
			t.Fatalf("%s = %d, %v; want %d", index.name, got, err, want)
		}
		*index.value = want
	}
	return b
}

func drawBytes(t *rapid.T, name string, longest int) []byte {
	return rapid.SliceOfN(rapid.Byte(), 0, longest).Draw(t, name)
}

func (w *twins) storeLogs(t *rapid.T) {
	b := w.bounds(t)
	next := b.last + 1
	if b.last == 0 {
		next = w.covered + rapid.Uint64Range(1, 1000).Draw(t, "next")
		w.snapshot(t, next-1)
	}
	var logs []*raft.Log
	for range rapid.IntRange(1, 40).Draw(t, "entries") {
		logs = append(logs, &raft.Log{
			Index:      next,
			Term:       rapid.Uint64().Draw(t, "term"),
			Type:       raft.LogType(rapid.IntRange(0, 5).Draw(t, "type")),
			Data:       drawBytes(t, "data", 3000),
			Extensions: drawBytes(t, "extensions", 20),
			AppendedAt: time.Unix(rapid.Int64Range(0, 1<<33).Draw(t, "seconds"), 123456789),
		})
		w.committed[next] = w.staged
		next++
	}
	if err := w.memory.StoreLogs(logs); err != nil {
		t.Fatal(err)
	}
	var err error
	if len(logs) == 1 {
		err = w.store.StoreLog(logs[0])
	} else {
		err = w.store.StoreLogs(logs)
	}
	if err != nil {
		t.Fatalf("StoreLogs: %v", err)
	}
}

// snapshot takes one that ends with index, as raft does before it removes
// entries up to there.
func (w *twins) snapshot(t *rapid.T, index uint64) {
	if index <= w.covered {
		return
	}
	w.covered = index
	_, trans := raft.NewInmemTransport("a")
	sink, err := w.store.Snapshots().Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{}, 1, trans)
	if err == nil {
		err = sink.Close()
	}
	if err != nil {
		t.Fatalf("take snapshot: %v", err)
	}
}

func (w *twins) deleteRange(t *rapid.T, lowest, highest uint64) {
	if err := w.memory.DeleteRange(lowest, highest); err != nil {
		t.Fatal(err)
	}
	if err := w.store.DeleteRange(lowest, highest); err != nil {
		t.Fatalf("DeleteRange(%d, %d): %v", lowest, highest, err)
	}
}

func (w *twins) requireSame(t *rapid.T) {
	b := w.bounds(t)
	for index := max(b.first, 2) - 2; index <= b.last+2; index++ {
		var got, want raft.Log
		gotErr, wantErr := w.store.GetLog(index, &got), w.memory.GetLog(index, &want)
		if gotErr != wantErr { //nolint:errorlint // raft compares ErrLogNotFound with == too
			t.Fatalf("GetLog(%d) = %v; want %v", index, gotErr, wantErr)
		}
		if !sameLog(got, want) {
			t.Fatalf("entry %+v; want %+v", got, want)
		}
	}
	commit, err := w.store.GetCommitIndex()
	if want := min(w.committed[b.last], b.last); err != nil || b.last > 0 && commit != want || b.last == 0 && commit != 0 {
		t.Fatalf("GetCommitIndex = %d, %v; want %d", commit, err, want)
	}
	for key := range w.keys {
		got, err := w.store.Get([]byte(key))
		want, wantErr := w.memory.Get([]byte(key))
		if !bytes.Equal(got, want) || (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error() {
			t.Fatalf("Get(%q) = %x, %v; want %x, %v", key, got, err, want, wantErr)
		}
	}
}

func (w *twins) set(t *rapid.T) {
	key := rapid.SampledFrom([]string{"a", "CurrentTerm", "LastVoteCand"}).Draw(t, "key")
	value := append([]byte{}, drawBytes(t, "value", 40)...)
	w.keys[key] = true
	if err := errors.Join(w.memory.Set([]byte(key), value), w.store.Set([]byte(key), value)); err != nil {
		t.Fatalf("Set: %v", err)
	}
}

// setNumber uses keys of its own: in memory, numbers live apart.
func (w *twins) setNumber(t *rapid.T) {
	key := fmt.Appendf(nil, "n%d", rapid.IntRange(0, 2).Draw(t, "key"))
	value := rapid.Uint64().Draw(t, "value")
	if err := errors.Join(w.memory.SetUint64(key, value), w.store.SetUint64(key, value)); err != nil {
		t.Fatalf("SetUint64: %v", err)
	}
	got, err := w.store.GetUint64(key)
	want, _ := w.memory.GetUint64(key)
	if err != nil || got != want {
		t.Fatalf("GetUint64(%s) = %d, %v; want %d", key, got, err, want)
	}
}

// Any sequence of calls that raft may make gives what raft's in-memory store
// gives, also when the process ends in between.
func TestStoreActsLikeRaftsInMemoryStore(t *testing.T) {
	root, checks := memoryDir(t), 0
	rapid.Check(t, func(rt *rapid.T) {
		checks++
		w := &twins{
			dir: filepath.Join(root, strconv.Itoa(checks)), memory: raft.NewInmemStore(),
			keys: make(map[string]bool), committed: make(map[uint64]uint64),
		}
		w.reopen(rt)
		defer func() { _ = w.store.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"":          w.requireSame,
			"reopen":    w.reopen,
			"store":     w.storeLogs,
			"storeMore": w.storeLogs,
			"set":       w.set,
			"setNumber": w.setNumber,
			"stage": func(t *rapid.T) {
				w.staged = rapid.Uint64Range(0, 3000).Draw(t, "commit")
				if err := w.store.StageCommitIndex(w.staged); err != nil {
					t.Fatal(err)
				}
			},
			"deleteHead": func(t *rapid.T) {
				if b := w.bounds(t); b.last > 0 {
					highest := rapid.Uint64Range(b.first, b.last).Draw(t, "highest")
					w.snapshot(t, highest)
					w.deleteRange(t, b.first, highest)
				}
			},
			"deleteTail": func(t *rapid.T) {
				if b := w.bounds(t); b.last > 0 {
					w.deleteRange(t, rapid.Uint64Range(b.first, b.last).Draw(t, "lowest"), b.last)
				}
			},
		})
	})
}
