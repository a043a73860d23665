package cluster

import (
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// journal is the log as raft sees it.
type journal struct {
	raft.LogStore
	tracking raft.CommitTrackingLogStore // the same log, where it tracks commits
	// appended is called after entries up to last were stored.
	appended atomic.Pointer[func(last uint64)]
}

func newJournal(logs raft.LogStore) *journal {
	j := &journal{LogStore: logs}
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

// committed returns up to where the log says that its entries are committed.
func (j *journal) committed() (uint64, error) {
	if j.tracking == nil {
		return 0, nil
	}
	return j.tracking.GetCommitIndex()
}
