package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnfinishedSnapshotIsRemoved(t *testing.T) {
	dir := t.TempDir()
	half := filepath.Join(dir, "snapshots", "2-18-1700000000000.tmp")
	if err := os.MkdirAll(half, 0o700); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Stat of the unfinished snapshot = %v; want it gone", err)
	}
}

func TestOpeningADamagedSnapshotNamesIt(t *testing.T) {
	s := open(t, t.TempDir())
	id := takeSnapshot(t, s, 7, "content")
	path := filepath.Join(filepath.Dir(s.path), "snapshots", id)
	if err := os.Truncate(filepath.Join(path, "state.bin"), 3); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Snapshots().Open(id)
	if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
		t.Errorf("Open = %v; want %v and %s", err, ErrDamaged, path)
	}
}

// What is missing here, raft would not miss: it would start with less, and vote.
func TestMissingFilesAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir, older, newer string) error
		names  []string
	}{
		"the log is gone": {
			func(_ *testing.T, dir, _, _ string) error { return os.Remove(filepath.Join(dir, logFile)) },
			[]string{logFile, "missing"},
		},
		"the log is empty": {
			func(_ *testing.T, dir, _, _ string) error { return os.Truncate(filepath.Join(dir, logFile), 0) },
			[]string{logFile},
		},
		"the snapshots are gone": {
			func(_ *testing.T, dir, _, _ string) error { return os.RemoveAll(filepath.Join(dir, "snapshots")) },
			[]string{logFile, "begins with entry 15", "ends with 0"},
		},
		"both snapshots are cut short": {
			func(_ *testing.T, _, older, newer string) error {
				return errors.Join(os.Truncate(filepath.Join(older, "state.bin"), 0), os.Truncate(filepath.Join(newer, "state.bin"), 0))
			},
			[]string{"snapshots"},
		},
		"both descriptions are cut short": {
			func(_ *testing.T, _, older, newer string) error {
				return errors.Join(os.Truncate(filepath.Join(older, "meta.json"), 9), os.Truncate(filepath.Join(newer, "meta.json"), 9))
			},
			[]string{"snapshots", "meta.json"},
		},
		"a description lies": {
			func(t *testing.T, _, _, newer string) error {
				t.Helper()
				path := filepath.Join(newer, "meta.json")
				meta, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				changed := bytes.Replace(meta, []byte(`"Index":20`), []byte(`"Index":70`), 1)
				if bytes.Equal(changed, meta) {
					t.Fatalf("no index in %s", meta)
				}
				return os.WriteFile(path, changed, 0o600)
			},
			[]string{"begins with entry 15", "it says that it ends with entry 70"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			mustStore(t, s, entries(1, 30, 10))
			older := takeSnapshot(t, s, 10, "older")
			newer := takeSnapshot(t, s, 20, "newer")
			if err := errors.Join(s.DeleteRange(1, 14), s.Close()); err != nil {
				t.Fatal(err)
			}
			if err := open(t, dir).Close(); err != nil { // up to here it is whole
				t.Fatal(err)
			}
			snapshots := filepath.Join(dir, "snapshots")
			if err := c.damage(t, dir, filepath.Join(snapshots, older), filepath.Join(snapshots, newer)); err != nil {
				t.Fatal(err)
			}
			requireDamage(t, dir, c.names...)
		})
	}
}

// An installed snapshot has taken the place of the log. Without it the peer
// would fall back behind what it has acknowledged.
func TestDamagedSnapshotWithoutALogIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	mustStore(t, s, entries(1, 30, 10))
	takeSnapshot(t, s, 10, "own")
	installed := takeSnapshot(t, s, 500, "installed")
	if err := errors.Join(s.DeleteRange(1, 30), s.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "snapshots", installed, "state.bin"), 3); err != nil {
		t.Fatal(err)
	}
	requireDamage(t, dir, installed, "a damaged snapshot ended with 500")
}

// Raft would not start from here either, but would not say why.
func TestDamagedFirstSnapshotIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	mustStore(t, s, entries(1, 30, 10))
	first := takeSnapshot(t, s, 10, "first")
	if err := errors.Join(s.Close(), os.Truncate(filepath.Join(dir, "snapshots", first, "state.bin"), 3)); err != nil {
		t.Fatal(err)
	}
	requireDamage(t, dir, first)
}
