package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// boltDisk is raft-boltdb as it comes.
type boltDisk = raftboltdb.BoltStore

// createLog makes the log under another name and moves it into place, so that a
// log cut to nothing is never taken for one that is new. The settings are there
// from the first day: without them the log is damaged.
func createLog(path string, lockTimeout time.Duration) error {
	making := path + ".new"
	if err := os.Remove(making); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create raft log: %w", err)
	}
	disk, err := openBolt(making, lockTimeout)
	if err != nil {
		return fmt.Errorf("create raft log: %w", err)
	}
	err = disk.Set([]byte(settingsKey), settings(nil).encode())
	if err = errors.Join(err, disk.Close()); err != nil {
		return fmt.Errorf("create raft log %s: %w", making, err)
	}
	if err := os.Rename(making, path); err != nil {
		return fmt.Errorf("create raft log: %w", err)
	}
	if err := syncDir(filepath.Dir(path)); err != nil { // bbolt itself never does
		return fmt.Errorf("create raft log: %w", err)
	}
	return nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// openBolt opens a file that does not exist or that [inspect] has passed.
// It still contains a panic, in case the two of us disagree about the format.
func openBolt(path string, lockTimeout time.Duration) (disk *boltDisk, err error) {
	var file *os.File
	openFile := func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	panicked := true
	err = contain(func() error {
		disk, err = raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: &bbolt.Options{
			Timeout:        lockTimeout,
			NoFreelistSync: true, // one page less to write and sync; the open scans the file instead
			FreelistType:   bbolt.FreelistMapType,
			OpenFile:       openFile,
		}})
		panicked = false
		return err
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("lock %s: %w", path, ErrLocked)
	case panicked:
		_ = file.Close() // and with it the lock, which would outlive the failure
		return nil, damaged(path, err)
	case err != nil:
		return nil, fmt.Errorf("open raft log %s: %w", path, err)
	}
	return disk, nil
}

// contain turns a panic in f, and a fault when it reads a mapped file that is
// shorter than it says, into an error. It cannot do so for goroutines that f starts.
func contain(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return f()
}
