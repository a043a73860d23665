package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"
)

// memoryDir is a directory in memory where there is one: for tests that open a
// store very often and are not about what survives.
func memoryDir(t *testing.T) string {
	t.Helper()
	const memory = "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "srsx-store-*") //nolint:usetesting // t.TempDir is on disk
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatalf("Open(%s): %v", dir, err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func reopen(t *testing.T, s *Store) *Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return open(t, filepath.Dir(s.path))
}

// entries returns entries whose content tells them apart.
func entries(from, to uint64, size int) []*raft.Log {
	logs := make([]*raft.Log, 0, to-from+1)
	for index := from; index <= to; index++ {
		data := bytes.Repeat([]byte{byte(index), byte(index >> 8)}, size/2)
		logs = append(logs, &raft.Log{Index: index, Term: 1 + index/10, Data: data, AppendedAt: time.Unix(1e9, int64(index))})
	}
	return logs
}

func mustStore(t *testing.T, s *Store, logs []*raft.Log) {
	t.Helper()
	if err := s.StoreLogs(logs); err != nil {
		t.Fatalf("StoreLogs: %v", err)
	}
}

func sameLog(a, b raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && a.AppendedAt.Equal(b.AppendedAt) &&
		bytes.Equal(a.Data, b.Data) && bytes.Equal(a.Extensions, b.Extensions)
}

func requireBounds(t *testing.T, s *Store, wantFirst, wantLast uint64) {
	t.Helper()
	first, last, err := s.bounds()
	if err != nil || first != wantFirst || last != wantLast {
		t.Fatalf("log from %d to %d, %v; want %d to %d", first, last, err, wantFirst, wantLast)
	}
}

func requireLogs(t *testing.T, s *Store, want []*raft.Log) {
	t.Helper()
	for _, w := range want {
		var got raft.Log
		if err := s.GetLog(w.Index, &got); err != nil || !sameLog(got, *w) {
			t.Fatalf("GetLog(%d) = %+v, %v; want %+v", w.Index, got, err, *w)
		}
	}
}

func requireCommit(t *testing.T, s *Store, want uint64) {
	t.Helper()
	if got, err := s.GetCommitIndex(); err != nil || got != want {
		t.Fatalf("GetCommitIndex = %d, %v; want %d", got, err, want)
	}
}

// takeSnapshot takes a snapshot of content that ends with the entry index.
func takeSnapshot(t *testing.T, s *Store, index uint64, content string) (id string) {
	t.Helper()
	_, transport := raft.NewInmemTransport("a")
	sink, err := s.Snapshots().Create(raft.SnapshotVersionMax, index, 1, raft.Configuration{}, 1, transport)
	if err != nil {
		t.Fatalf("Create: %v", err)
	}
	if _, err := sink.Write([]byte(content)); err != nil {
		t.Fatalf("Write: %v", err)
	}
	if err := sink.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return sink.ID()
}

func TestCommitIndexTravelsWithTheEntries(t *testing.T) {
	s := open(t, t.TempDir())
	requireCommit(t, s, 0)
	stage := func(index uint64) {
		if err := s.StageCommitIndex(index); err != nil {
			t.Fatal(err)
		}
	}
	stage(3)
	requireCommit(t, s, 0) // nothing has taken it to disk
	mustStore(t, s, entries(1, 5, 10))
	requireCommit(t, s, 3)
	stage(9) // a leader may commit more than this peer has
	mustStore(t, s, entries(6, 8, 10))
	requireCommit(t, s, 8)
	stage(12)

	s = reopen(t, s)
	requireCommit(t, s, 8)
	mustStore(t, s, entries(9, 9, 10)) // without a word from raft, as its bootstrap does
	requireCommit(t, s, 9)

	// The tail of a batch goes; what its head says about the commit stays.
	if err := s.DeleteRange(7, 9); err != nil {
		t.Fatal(err)
	}
	requireCommit(t, s, 6)
	s = reopen(t, s)
	requireCommit(t, s, 6)
}

func TestExtensionsOfOthersSurvive(t *testing.T) {
	s := open(t, t.TempDir())
	logs := entries(1, 2, 10)
	logs[0].Extensions = []byte("chunk 1 of 2")
	mustStore(t, s, logs)
	if got := string(logs[0].Extensions); got != "chunk 1 of 2" {
		t.Errorf("StoreLogs changed the entry of its caller: Extensions %q", got)
	}
	requireLogs(t, s, logs) // from the cache
	s = reopen(t, s)
	requireLogs(t, s, logs) // from the disk
	var got raft.Log
	if err := s.GetLog(2, &got); err != nil || got.Extensions != nil {
		t.Errorf("Extensions = %x, %v; want nil as before", got.Extensions, err)
	}
}

// A variable that raft uses for one entry after another must not let the second
// write into the first, which the cache still holds.
func TestReadersDoNotWriteIntoTheCache(t *testing.T) {
	s := open(t, t.TempDir())
	logs := entries(1, cacheEntries+10, 64) // the cache has lost the first
	mustStore(t, s, logs)
	var l raft.Log
	for _, index := range []uint64{cacheEntries, 1} {
		if err := s.GetLog(index, &l); err != nil {
			t.Fatal(err)
		}
	}
	requireLogs(t, s, logs)
}

func TestLogHasNoHoles(t *testing.T) {
	s := open(t, t.TempDir())
	mustStore(t, s, entries(1, 10, 10))
	if err := s.DeleteRange(4, 6); err == nil || !strings.Contains(err.Error(), "hole") {
		t.Errorf("DeleteRange in the middle = %v; want a refusal", err)
	}
	holed := append(entries(11, 12, 10), entries(14, 14, 10)...)
	if err := s.StoreLogs(holed); err == nil {
		t.Error("StoreLogs of 11, 12, 14 succeeded; want a refusal")
	}
	requireBounds(t, s, 1, 10)
	for _, outside := range [][2]uint64{{11, 20}, {0, 0}} {
		if err := s.DeleteRange(outside[0], outside[1]); err != nil {
			t.Errorf("DeleteRange%v = %v; want nothing to do", outside, err)
		}
	}
	requireBounds(t, s, 1, 10)
}

func TestHeadOfManyTransactionsIsRemoved(t *testing.T) {
	s := open(t, memoryDir(t))
	const last = 3*removedAtOnce + 100
	logs := entries(1, last, 10)
	mustStore(t, s, logs)
	if err := s.DeleteRange(0, 2*removedAtOnce+1); err != nil {
		t.Fatal(err)
	}
	requireBounds(t, s, 2*removedAtOnce+2, last)
	requireLogs(t, s, logs[2*removedAtOnce+1:])
	if err := s.DeleteRange(1, 1<<63); err != nil {
		t.Fatal(err)
	}
	requireBounds(t, s, 0, 0)
}

// A peer killed between the installation of a snapshot and the removal of the
// entries before it goes on behind the snapshot.
func TestEntriesBehindAGapReplaceTheLog(t *testing.T) {
	s := open(t, t.TempDir())
	mustStore(t, s, entries(1, 10, 10))
	takeSnapshot(t, s, 500, "")
	s = reopen(t, s)
	requireBounds(t, s, 1, 10)
	mustStore(t, s, entries(501, 503, 10))
	requireBounds(t, s, 501, 503)
	s = reopen(t, s)
	requireBounds(t, s, 501, 503)
	if err := s.StoreLogs(entries(7, 8, 10)); err == nil {
		t.Error("StoreLogs far before the first entry succeeded; want a refusal")
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	began := time.Now()
	_, err := Open(dir, Options{LockTimeout: 100 * time.Millisecond})
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir) {
		t.Fatalf("second Open = %v; want %v with the directory", err, ErrLocked)
	}
	if waited := time.Since(began); waited < 100*time.Millisecond {
		t.Errorf("refused after %s; want a wait of 100ms", waited)
	}
	// One that waits gets its turn.
	second := make(chan error)
	go func() {
		waiting, err := Open(dir, Options{LockTimeout: time.Minute})
		if err == nil {
			err = waiting.Close()
		}
		second <- err
	}()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-second; err != nil {
		t.Errorf("Open that waited = %v; want success", err)
	}
}

// A tool for bbolt files knows nothing of the lock on the directory.
func TestFileHeldByABoltToolIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	tool, err := bbolt.Open(s.path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tool.Close() }()
	if _, err := Open(dir, Options{LockTimeout: 50 * time.Millisecond}); !errors.Is(err, ErrLocked) {
		t.Errorf("Open = %v; want %v", err, ErrLocked)
	}
}

// An operator shrinks the file with `bbolt compact`, which writes a list of free
// pages into the copy.
func TestCompactedFileIsWhole(t *testing.T) {
	s := open(t, t.TempDir())
	logs := entries(1, 400, 600)
	mustStore(t, s, logs)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	compact(t, s.path)
	s = open(t, filepath.Dir(s.path))
	requireLogs(t, s, logs)
	mustStore(t, s, entries(401, 500, 600))
	requireBounds(t, reopen(t, s), 1, 500)
}

func compact(t *testing.T, path string) {
	t.Helper()
	from, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	to, err := bbolt.Open(path+".compact", 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(bbolt.Compact(to, from, 1<<16), from.Close(), to.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".compact", path); err != nil {
		t.Fatal(err)
	}
}

func TestFailedOpenLeavesTheDirectoryFree(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	mustStore(t, s, entries(1, 10, 10))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(s.path)
	if err = errors.Join(err, os.Truncate(s.path, 5000)); err != nil {
		t.Fatal(err)
	}
	if _, err = Open(dir, Options{}); !errors.Is(err, ErrDamaged) {
		t.Fatalf("Open = %v; want %v", err, ErrDamaged)
	}
	if err = os.WriteFile(s.path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err = Open(dir, Options{LockTimeout: time.Millisecond})
	if err != nil {
		t.Fatalf("Open of the restored file: %v", err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Errorf("Close, twice: %v", err)
	}
}

func TestLogIsMadeInOneStep(t *testing.T) {
	dir := t.TempDir()
	// What a crash while it was made leaves.
	if err := os.WriteFile(filepath.Join(dir, logFile+".new"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	requireBounds(t, s, 0, 0)
	if names := fmt.Sprint(readNames(t, dir)); names != "[raft.db snapshots]" {
		t.Errorf("directory holds %s; want [raft.db snapshots]", names)
	}
}

func readNames(t *testing.T, dir string) []string {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range found {
		names = append(names, entry.Name())
	}
	return names
}
