package cluster

import (
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// journal is the log as raft sees it.
type journal struct {
	raft.LogStore
	tracking raft.CommitTrackingLogStore // the same log, where it tracks commits
	stable   raft.StableStore
	// appended is called after entries up to last were stored.
	appended atomic.Pointer[func(last uint64)]
}

func newJournal(logs raft.LogStore, stable raft.StableStore) *journal {
	j := &journal{LogStore: logs, stable: stable}
	j.tracking, _ = logs.(raft.CommitTrackingLogStore)
	return j
}

// StoreLogs implements raft.LogStore.
func (j *journal) StoreLogs(entries []*raft.Log) error {
	if err := j.LogStore.StoreLogs(entries); err != nil {
		return err
	}
	if f := j.appended.Load(); f != nil && len(entries) > 0 {
		(*f)(entries[len(entries)-1].Index)
	}
	return nil
}

// StoreLog implements raft.LogStore.
func (j *journal) StoreLog(entry *raft.Log) error { return j.StoreLogs([]*raft.Log{entry}) }

// IsMonotonic implements raft.MonotonicLogStore.
func (j *journal) IsMonotonic() bool {
	m, ok := j.LogStore.(raft.MonotonicLogStore)
	return ok && m.IsMonotonic()
}

// StageCommitIndex implements raft.CommitTrackingLogStore.
func (j *journal) StageCommitIndex(index uint64) error {
	if j.tracking == nil {
		return nil
	}
	return j.tracking.StageCommitIndex(index)
}

// GetCommitIndex implements raft.CommitTrackingLogStore. It returns 0: the node
// has applied what is committed before raft starts. If raft 1.8.0 did, it would
// take no configuration from the entries that it applied, and so know of no
// peers; and it would block for ever on more than 32,768 entries, since it fills
// a channel before it starts the reader.
func (j *journal) GetCommitIndex() (uint64, error) { return 0, nil }

// committed returns up to where this peer's disk says that the log is committed.
func (j *journal) committed() (uint64, error) {
	index, err := j.highWater()
	if err != nil {
		return 0, err
	}
	if j.tracking != nil {
		var tracked uint64
		if tracked, err = j.tracking.GetCommitIndex(); err != nil {
			return 0, err
		}
		index = max(index, tracked)
	}
	last, err := j.LastIndex()
	return min(index, last), err
}

// highWaterKey is where the stable store holds what mark kept.
const highWaterKey = "SrsxCommitted"

func (j *journal) highWater() (uint64, error) {
	index, err := j.stable.GetUint64([]byte(highWaterKey))
	if err != nil && err.Error() == "not found" { // as raft asks, which defines no error for it
		return 0, nil
	}
	return index, err
}

// keep stores that the log is committed up to index. The log itself says so of
// each entry only with the entries that follow, so that is for when none do. An
// entry that is committed stays so, and what takes its place in the log after a
// recovery by hand has higher indexes: what is kept never turns false.
func (j *journal) keep(index uint64) error {
	return j.stable.SetUint64([]byte(highWaterKey), index)
}
