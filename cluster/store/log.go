package store

import (
	"fmt"

	"github.com/hashicorp/raft"
)

// stored is what the cache reads from and writes to. By the time it is asked to
// write, the entries are on disk: raft.LogCache turns an error of the store
// below it into text, and a full disk should stay recognisable as ENOSPC.
type stored struct{ raft.LogStore }

func (stored) StoreLogs([]*raft.Log) error { return nil }

// FirstIndex returns the index of the oldest entry, 0 when there is none.
func (s *Store) FirstIndex() (uint64, error) { return s.cached.FirstIndex() }

// LastIndex returns the index of the newest entry, 0 when there is none.
func (s *Store) LastIndex() (uint64, error) { return s.cached.LastIndex() }

// IsMonotonic tells raft that the log has no gaps, so that it removes the
// entries before an installed snapshot. A missing entry is damage then, and
// Open can tell.
func (s *Store) IsMonotonic() bool { return true }

// GetLog reads one entry into l. Its slices are shared with other readers.
// It returns [raft.ErrLogNotFound] when there is no such entry and an error
// matching [ErrDamaged] when the entry is not what was stored.
func (s *Store) GetLog(index uint64, l *raft.Log) error {
	entry, _, err := s.read(s.cached, index)
	if err != nil {
		return err
	}
	*l = entry
	return nil
}

// StoreLog stores one entry as StoreLogs does.
func (s *Store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs writes entries with consecutive indexes, and with them the staged
// commit index, all or nothing, and returns when they are durable. After an
// error the entries before these are as they were.
//
// Entries that leave a gap behind the newest one take the place of the whole
// log: a snapshot covers what was there. Raft removes the old entries itself
// after it has installed a snapshot, unless it is killed in between.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	if len(logs) == 0 {
		return nil
	}
	from, to := logs[0].Index, logs[len(logs)-1].Index
	if err := s.closeGap(from, to); err != nil {
		return err
	}
	commit := s.staged.Load()
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		if l.Index != from+uint64(i) {
			return fmt.Errorf("store entries from %d: entry %d follows %d", from, l.Index, logs[i-1].Index)
		}
		sealed[i] = seal(l, commit)
	}
	if err := s.watched.StoreLogs(sealed); err != nil {
		return fmt.Errorf("store entries %d to %d in %s: %w", from, to, s.path, err)
	}
	return s.cached.StoreLogs(sealed)
}

// closeGap sees to it that the entries from..to will touch what is stored.
func (s *Store) closeGap(from, to uint64) error {
	first, last, err := s.bounds()
	if err != nil || last == 0 || from <= last+1 && to+1 >= first {
		return err
	}
	if to < first {
		return fmt.Errorf("store entries %d to %d in %s: it holds %d to %d", from, to, s.path, first, last)
	}
	return s.DeleteRange(first, last)
}

func (s *Store) bounds() (first, last uint64, err error) {
	if first, err = s.FirstIndex(); err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", s.path, err)
	}
	if last, err = s.LastIndex(); err != nil {
		return 0, 0, fmt.Errorf("read %s: %w", s.path, err)
	}
	return first, last, nil
}

// DeleteRange removes the entries from lowest to highest, both included, from
// the head or the tail of the log, or all of it. It refuses to make a hole.
func (s *Store) DeleteRange(lowest, highest uint64) error {
	first, last, err := s.bounds()
	if err != nil || last == 0 || lowest > last || highest < first {
		return err
	}
	if lowest > first && highest < last {
		return fmt.Errorf("remove entries %d to %d from %s: it would leave a hole in %d to %d",
			lowest, highest, s.path, first, last)
	}
	lowest, highest = max(lowest, first), min(highest, last)
	step := highest - lowest + 1
	if lowest == first {
		step = removedAtOnce
	}
	for ; lowest <= highest; lowest += step {
		through := min(highest, lowest+step-1)
		if err := s.cached.DeleteRange(lowest, through); err != nil {
			return fmt.Errorf("remove entries %d to %d from %s: %w", lowest, through, s.path, err)
		}
	}
	return nil
}

// removedAtOnce is how many entries of the head go in one transaction. Those of
// a snapshot, 8192, take 30 to 150 ms together, and StoreLogs waits for as long.
// The tail goes in one, or a crash in between would leave a hole in it.
const removedAtOnce = 512

// StageCommitIndex keeps index until the next StoreLogs takes it to disk
// together with its entries.
func (s *Store) StageCommitIndex(index uint64) error {
	s.staged.Store(index)
	return nil
}

// GetCommitIndex returns the commit index that went to disk with the newest
// entry, or 0 when there is none. It is never above the newest index, and never
// more than [MaxReplay] above the snapshot that raft starts from.
func (s *Store) GetCommitIndex() (uint64, error) {
	last, err := s.LastIndex()
	if err != nil || last == 0 {
		return 0, err
	}
	_, commit, err := s.read(s.cached, last)
	if err != nil {
		return 0, err
	}
	return min(commit, last, s.promise), nil
}

// MaxReplay returns how many entries after the newest snapshot raft 1.8.0 can
// apply in NewRaft with RestoreCommittedLogs. It hands them to the state machine
// in batches of maxAppendEntries through a channel of 128 batches, but starts
// the reader of that channel only afterwards: one batch more and NewRaft never
// returns. [Store.GetCommitIndex] therefore promises no more than that, and what
// lies above waits for a quorum, as it would without commit tracking.
//
// Let snapshots come well before: SnapshotThreshold, plus what arrives in one
// SnapshotInterval and while a snapshot is written, must stay below MaxReplay
// for a peer that restarts alone to know all that it knew.
func MaxReplay(maxAppendEntries int) uint64 {
	const fsmQueue = 128 // raft 1.8.0, api.go: capacity of fsmMutateCh
	return fsmQueue * uint64(max(maxAppendEntries, 1))
}
