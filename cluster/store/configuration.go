package store

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/raft"
)

// Raft 1.8.0 looks for the configuration of the cluster, in NewRaft, only among
// the entries that it has not just applied, and otherwise takes that of the
// snapshot. With RestoreCommittedLogs it so forgets every change of membership
// between the two: a peer started alone knows of no other, and after a stop of
// all peers nobody calls an election ever again. Therefore the snapshots that
// raft finds at its start come with the configuration of the newest committed
// entry. Where there is no snapshot yet, raft finds one of nothing, with index 0.

// configurations keeps the configuration entries that are in the log, oldest
// first. There are few, and each is small.
type configurations struct {
	mu      sync.Mutex
	entries []raft.Log
}

// note takes over the configurations among entries that were stored.
func (c *configurations) note(logs ...*raft.Log) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range logs {
		if l.Type == raft.LogConfiguration {
			c.entries = append(c.entries, raft.Log{Index: l.Index, Data: l.Data})
		}
	}
}

// forget drops those from lowest to highest, which were removed.
func (c *configurations) forget(lowest, highest uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries = slices.DeleteFunc(c.entries, func(l raft.Log) bool { return l.Index >= lowest && l.Index <= highest })
}

// upTo returns the newest configuration that an entry up to index holds, and
// the index of that entry, 0 when there is none.
func (c *configurations) upTo(index uint64) (found raft.Configuration, at uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.entries {
		if l.Index > index || l.Index < at {
			continue
		}
		// raft.DecodeConfiguration panics on what it does not know.
		if err := contain(func() error { found = raft.DecodeConfiguration(l.Data); return nil }); err != nil {
			return found, 0, fmt.Errorf("configuration in entry %d: %w", l.Index, err)
		}
		at = l.Index
	}
	return found, at, nil
}

// nothing is the snapshot before the first.
const nothing = "nothing"

// knowingSnapshots are snapshots that come with the committed configuration.
type knowingSnapshots struct {
	*snapshots
	store *Store
}

// List returns the snapshots, newest first. Their descriptions hold the newest
// committed configuration, which may be newer than the snapshot.
func (k knowingSnapshots) List() ([]*raft.SnapshotMeta, error) {
	list, err := k.snapshots.List()
	if err != nil {
		return nil, err
	}
	commit, err := k.store.GetCommitIndex()
	if err != nil {
		return nil, err
	}
	newest, at, err := k.store.members.upTo(commit)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", k.store.path, err)
	}
	if len(list) == 0 && at > 0 {
		list = append(list, &raft.SnapshotMeta{ID: nothing, Version: raft.SnapshotVersionMax})
	}
	for _, meta := range list {
		if at > meta.ConfigurationIndex {
			meta.Configuration, meta.ConfigurationIndex = newest, at
		}
	}
	return list, nil
}

// Open is that of snapshots; the one of nothing has no content.
func (k knowingSnapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if id != nothing {
		return k.snapshots.Open(id)
	}
	list, err := k.List()
	if err != nil {
		return nil, nil, err
	}
	if len(list) == 0 || list[0].ID != nothing {
		return nil, nil, errors.New("there is a newer snapshot than the one of nothing")
	}
	return list[0], io.NopCloser(strings.NewReader("")), nil
}
