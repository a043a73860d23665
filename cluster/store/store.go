package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	logFile      = "raft.db"
	cacheEntries = 1024 // followers ask for the newest entries; raft keeps 128 of them in flight at most
)

// Options of [Open]. The zero value of each field means the default.
type Options struct {
	// LockTimeout is how long Open waits for another process to let go of the
	// directory; 2 s by default, for a peer that is restarted.
	LockTimeout time.Duration

	// MaxAppendEntries is the raft.Config field of the same name, 64 by default
	// as in raft. It decides how much raft may replay at its start: see [MaxReplay].
	MaxAppendEntries int

	// StallLimit is how long a write may take before OnStall; 4 s by default.
	StallLimit time.Duration

	// OnStall is called once when a write has not returned within StallLimit,
	// OnRecover when it has returned after all and no other is overdue. Both run
	// on one goroutine of the store, one after the other, and must not call Close.
	OnStall, OnRecover func(Stall)

	// Logger receives what raft's snapshot store has to say; nil discards it.
	Logger hclog.Logger
}

func (o Options) withDefaults() Options {
	if o.LockTimeout == 0 {
		o.LockTimeout = 2 * time.Second
	}
	if o.MaxAppendEntries == 0 {
		o.MaxAppendEntries = raft.DefaultConfig().MaxAppendEntries
	}
	if o.StallLimit == 0 {
		o.StallLimit = 4 * time.Second
	}
	if o.OnStall == nil {
		o.OnStall = func(Stall) {}
	}
	if o.OnRecover == nil {
		o.OnRecover = func(Stall) {}
	}
	if o.Logger == nil {
		o.Logger = hclog.NewNullLogger()
	}
	return o
}

// Store is the log, the stable store and the snapshots of one raft peer. Its
// methods may be called from several goroutines at once, as raft does.
type Store struct {
	path      string // of the log file
	lock      *os.File
	disk      *boltDisk
	watched   *watchdog
	cached    *raft.LogCache
	snapshots *snapshots

	staged  atomic.Uint64 // commit index that goes out with the next StoreLogs
	promise uint64        // GetCommitIndex never says more: see MaxReplay

	settingMu sync.Mutex // held over the whole of one Set
	settings  atomic.Pointer[settings]

	closeOnce sync.Once
	closeErr  error
}

var (
	_ raft.CommitTrackingLogStore = (*Store)(nil)
	_ raft.MonotonicLogStore      = (*Store)(nil)
	_ raft.StableStore            = (*Store)(nil)
)

// Open locks dir, made where it does not exist, and opens the log and the
// snapshots in it after reading all of both: what Open returns has been found
// whole. It returns an error matching [ErrLocked] when another process has the
// directory, and one matching [ErrDamaged] when what is there is not what was
// stored. The latter names the file and says what an operator can do.
func Open(dir string, o Options) (*Store, error) {
	o = o.withDefaults()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create raft directory: %w", err)
	}
	lock, err := lockDir(dir, o.LockTimeout)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	s := &Store{path: filepath.Join(dir, logFile), lock: lock}
	if err := s.open(dir, o); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open(dir string, o Options) (err error) {
	if s.snapshots, err = openSnapshots(dir, o.Logger); err != nil {
		return err
	}
	kept, err := s.snapshots.survey()
	if err != nil {
		return err
	}
	if err = s.openLog(kept, o.LockTimeout); err != nil {
		return err
	}
	s.watched = watch(s.disk, o.StallLimit, o.OnStall, o.OnRecover)
	if s.cached, err = raft.NewLogCache(cacheEntries, stored{s.watched}); err != nil {
		return err
	}
	first, last, err := s.verify()
	if err != nil {
		return err
	}
	if err = kept.meet(first, last, s.path); err != nil {
		return err
	}
	s.promise = kept.usable + MaxReplay(o.MaxAppendEntries)
	return nil
}

// openLog makes the log where there never was one, and otherwise opens it only
// after [inspect] has found it safe to map.
func (s *Store) openLog(kept survey, lockTimeout time.Duration) error {
	_, err := os.Stat(s.path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && kept.any():
		return damaged(s.path, errors.New("the log is missing beside its snapshots"))
	case errors.Is(err, fs.ErrNotExist):
		err = createLog(s.path, lockTimeout)
	case err == nil:
		err = inspect(s.path)
	}
	if err != nil {
		return err
	}
	s.disk, err = openBolt(s.path, lockTimeout)
	return err
}

// verify reads every entry and setting once. Raft panics on an entry that it
// cannot read; here the operator gets an error instead.
func (s *Store) verify() (first, last uint64, err error) {
	err = contain(func() (err error) {
		if err = s.loadSettings(); err != nil {
			return err
		}
		if first, err = s.disk.FirstIndex(); err != nil {
			return err
		}
		if last, err = s.disk.LastIndex(); err != nil {
			return err
		}
		return s.readAll(first, last)
	})
	if err != nil && !errors.Is(err, ErrDamaged) {
		err = damaged(s.path, err)
	}
	return first, last, err
}

// readAll also stages the commit index of the newest entry: what is stored next
// without a word from raft must not say less.
func (s *Store) readAll(first, last uint64) error {
	for index := max(first, 1); index <= last; index++ {
		_, commit, err := s.read(s.disk, index)
		if errors.Is(err, raft.ErrLogNotFound) {
			return fmt.Errorf("entry %d of %d to %d is missing", index, first, last)
		}
		if err != nil {
			return err
		}
		s.staged.Store(commit)
	}
	return nil
}

// read returns the entry as it was given to StoreLogs, and the commit index
// that was stored with it.
func (s *Store) read(from interface {
	GetLog(index uint64, log *raft.Log) error
}, index uint64,
) (raft.Log, uint64, error) {
	// Decoded into a fresh value: bolt's decoder fills slices that it finds, and
	// those of a value used before may belong to the cache.
	var l raft.Log
	if err := from.GetLog(index, &l); err != nil {
		if errors.Is(err, raft.ErrLogNotFound) {
			return l, 0, raft.ErrLogNotFound // raft compares with ==
		}
		return l, 0, fmt.Errorf("read entry %d of %s: %w", index, s.path, err)
	}
	commit, err := unseal(&l)
	if err == nil && l.Index != index {
		err = fmt.Errorf("it says that it is entry %d", l.Index)
	}
	if err != nil {
		return l, 0, damaged(s.path, fmt.Errorf("entry %d: %w", index, err))
	}
	return l, commit, nil
}

// Snapshots returns the snapshot store beside the log.
func (s *Store) Snapshots() raft.SnapshotStore { return s.snapshots }

// Close waits for writes under way, a stalled one too, and gives up the
// directory. It may be called more than once.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		var errs []error
		if s.disk != nil {
			errs = append(errs, s.disk.Close())
		}
		if s.watched != nil {
			s.watched.close()
		}
		s.closeErr = errors.Join(append(errs, s.lock.Close())...)
	})
	return s.closeErr
}
