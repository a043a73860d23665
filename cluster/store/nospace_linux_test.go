package store

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"
)

// smallDisk mounts a file system of 4 MiB. It takes a user who may mount.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatalf("mount a small disk (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fill leaves no more than leave bytes free, and returns the file to remove.
func fill(t *testing.T, dir string, leave uint64) (ballast string) {
	t.Helper()
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		t.Fatal(err)
	}
	ballast = filepath.Join(dir, "ballast")
	free := disk.Bfree * uint64(disk.Bsize)
	if err := os.WriteFile(ballast, make([]byte, free-min(free, leave)), 0o600); err != nil {
		t.Fatal(err)
	}
	return ballast
}

func TestFullDiskLosesNothing(t *testing.T) {
	dir := smallDisk(t)
	s := open(t, filepath.Join(dir, "raft"))
	before := entries(1, 20, 16<<10)
	mustStore(t, s, before)
	ballast := fill(t, dir, 300<<10)

	var stored []*raft.Log
	var failed error
	for index := uint64(21); failed == nil; index++ {
		next := entries(index, index, 16<<10)
		if failed = s.StoreLogs(next); failed == nil {
			stored = append(stored, next...)
		}
	}
	if !errors.Is(failed, unix.ENOSPC) {
		t.Fatalf("StoreLogs on a full disk = %v; want %v", failed, unix.ENOSPC)
	}
	all := slices.Concat(before, stored)
	last := uint64(len(all))
	if err := s.Set([]byte("LastVoteCand"), make([]byte, 1<<20)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Set on a full disk = %v; want %v", err, unix.ENOSPC)
	}
	if _, err := s.Get([]byte("LastVoteCand")); !errors.Is(err, ErrKeyNotFound) {
		t.Errorf("Get of what was not stored = %v; want %v", err, ErrKeyNotFound)
	}
	requireBounds(t, s, 1, last)
	requireLogs(t, s, all)
	var l raft.Log
	if err := s.GetLog(last+1, &l); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("GetLog of the refused entry = %v; want %v", err, raft.ErrLogNotFound)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	more := entries(last+1, last+20, 16<<10)
	mustStore(t, s, more)
	all = append(all, more...)
	requireLogs(t, s, all)
	s = reopen(t, s)
	requireBounds(t, s, 1, last+20)
	requireLogs(t, s, all)
	if err := s.Close(); err != nil { // before the file system goes
		t.Fatal(err)
	}
}

// A peer starts on a full disk with what it has; a new one says what is wrong.
func TestOpenOnAFullDisk(t *testing.T) {
	dir := smallDisk(t)
	if err := os.MkdirAll(filepath.Join(dir, "raft"), 0o700); err != nil {
		t.Fatal(err)
	}
	ballast := fill(t, dir, 0)
	if s, err := Open(filepath.Join(dir, "raft"), Options{}); err == nil {
		_ = s.Close()
		t.Error("Open of a new store on a full disk succeeded")
	} else if !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrDamaged) {
		t.Errorf("Open of a new store on a full disk = %v; want %v", err, unix.ENOSPC)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s := open(t, filepath.Join(dir, "raft"))
	stored := entries(1, 20, 16<<10)
	mustStore(t, s, stored)
	ballast = fill(t, dir, 0)
	s = reopen(t, s)
	requireLogs(t, s, stored)
	if err := s.StoreLogs(entries(21, 80, 16<<10)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("StoreLogs = %v; want %v", err, unix.ENOSPC)
	}
	if err := errors.Join(s.Close(), os.Remove(ballast)); err != nil {
		t.Fatal(err)
	}
}
