package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"
)

// recoverState brings m to what this peer's disk says is agreed: the latest
// snapshot that can be read and all entries behind it that are known to be
// committed. A peer restarted without a majority so serves what it knew.
func recoverState(m *machine, j *journal, snapshots *readableSnapshots) error {
	index, err := restoreLatest(m, j, snapshots)
	if err != nil {
		return err
	}
	committed, err := j.committed()
	if err != nil {
		return fmt.Errorf("read commit index: %w", err)
	}
	for next := index + 1; next <= committed; next++ {
		var entry raft.Log
		if err := j.GetLog(next, &entry); err != nil {
			return fmt.Errorf("read committed log entry %d: %w", next, err)
		}
		if errors.Is(m.apply(&entry).err, ErrHalted) {
			break
		}
	}
	return nil
}

// restoreLatest restores the latest snapshot that can be read, and returns its
// index, 0 if there is none. Those that cannot be read are left out of snapshots:
// raft takes the first it sees.
func restoreLatest(m *machine, j *journal, snapshots *readableSnapshots) (index uint64, err error) {
	list, err := snapshots.List()
	if err != nil {
		return 0, fmt.Errorf("list snapshots: %w", err)
	}
	var unread error
	for _, meta := range list {
		err := restoreOne(m, snapshots, meta)
		if err == nil {
			index = meta.Index
			break
		}
		m.log.Warn("snapshot cannot be read", "snapshot", meta.ID, "err", err)
		snapshots.without = append(snapshots.without, meta.ID)
		unread = errors.Join(unread, fmt.Errorf("snapshot %s: %w", meta.ID, err))
	}
	if err := checkContinues(j, index); err != nil {
		return 0, errors.Join(err, unread)
	}
	return index, nil
}

func restoreOne(m *machine, snapshots raft.SnapshotStore, meta *raft.SnapshotMeta) error {
	_, source, err := snapshots.Open(meta.ID)
	if err != nil {
		return err
	}
	err = m.Restore(source)
	_ = source.Close() // read to its end or useless
	if err != nil {
		return err
	}
	// The snapshot may stand for an index that its state has not heard of.
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied = max(m.applied, meta.Index)
	m.settled = true
	return nil
}

// checkContinues makes sure that the log goes on where the snapshot ends. A
// later snapshot that cannot be read took the entries between with it; raft
// would find out when it needs them, and panic.
func checkContinues(j *journal, snapshot uint64) error {
	first, err := j.FirstIndex()
	if err != nil {
		return fmt.Errorf("read first index of log: %w", err)
	}
	if first > snapshot+1 {
		return fmt.Errorf("the log starts at entry %d, the latest readable snapshot ends at %d: "+
			"restore the snapshot, or remove the directory to join as a new peer", first, snapshot)
	}
	return nil
}

// quiet is how long nothing is applied before it is kept how far that was.
const quiet = 250 * time.Millisecond

// keepHighWater sees to it that a peer restarted alone knows also the last
// entries before a pause, which are the most when many were placed at once.
func (n *Node) keepHighWater(ctx context.Context) {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	kept, _ := n.machine.position()
	for before := kept; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		applied, _ := n.machine.position()
		if applied != kept && applied == before {
			if err := n.keepWithin(ctx, applied); err != nil {
				n.log.DebugContext(ctx, "commit index not kept", "err", err)
			} else {
				kept = applied
			}
		}
		before = applied
	}
}

// keepWithin does not wait for a disk that hangs any longer than ctx.
func (n *Node) keepWithin(ctx context.Context, applied uint64) error {
	kept := make(chan error, 1)
	go func() { kept <- n.journal.keep(applied) }()
	select {
	case err := <-kept:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readableSnapshots leaves out snapshots that could not be read.
type readableSnapshots struct {
	raft.SnapshotStore
	without []string
}

// List implements raft.SnapshotStore.
func (s *readableSnapshots) List() ([]*raft.SnapshotMeta, error) {
	list, err := s.SnapshotStore.List()
	return slices.DeleteFunc(list, func(meta *raft.SnapshotMeta) bool {
		return slices.Contains(s.without, meta.ID)
	}), err
}

// undoHalfBootstrap makes a peer new again that crashed while it founded a cluster,
// so that it can found it once more: raft stores the term 1 first, and then the
// entry that names the members. Nobody is ever elected for that term, so this peer
// has promised nothing in it.
func undoHalfBootstrap(c Config) error {
	const raftTerm = "CurrentTerm"
	if term, _ := c.Stable.GetUint64([]byte(raftTerm)); term != 1 {
		return nil // an error is most likely that there is none; of others raft tells next
	}
	last, err := c.Logs.LastIndex()
	if err != nil {
		return fmt.Errorf("read last index of log: %w", err)
	}
	snapshots, err := c.Snapshots.List()
	if err != nil {
		return fmt.Errorf("list snapshots: %w", err)
	}
	if last > 0 || len(snapshots) > 0 {
		return nil
	}
	c.Log.Info("the founding of a cluster was cut short; it begins anew")
	if err := c.Stable.SetUint64([]byte(raftTerm), 0); err != nil {
		return fmt.Errorf("undo half a founding: %w", err)
	}
	return nil
}

// The files of a manual recovery, in Config.RecoveryDir.
const (
	peersFile     = "peers.json"
	peersInfo     = "peers.info"
	peersIngested = "peers.json.ingested"
)

const peersHelp = `When a majority of the peers is lost for good, the rest can go on without them:

1. Stop all peers that are left.
2. On each of them put a file peers.json beside this file, the same on all, that
   lists those that are left:

   [
     {"id": "<node id>", "address": "<host:port of -cluster>", "non_voter": false}
   ]

   The node id is in the file node-id of each peer's data directory.
3. Start them. Each reads the file once and renames it to peers.json.ingested.

All entries in the logs count as agreed then, also those that no majority had.
`

// recoverPeers carries out peers.json, if there is one: the servers in it become
// the members, whatever the log says. The file is renamed afterwards; after a
// crash in between it is carried out once more, which changes nothing.
func recoverPeers(c Config, j *journal, snapshots *readableSnapshots) error {
	if c.RecoveryDir == "" {
		return nil
	}
	if err := explainPeers(filepath.Join(c.RecoveryDir, peersInfo)); err != nil {
		return err
	}
	path := filepath.Join(c.RecoveryDir, peersFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	configuration, err := raft.ReadConfigJSON(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	m := newMachine(c.Limits, nobody{}, c.Log)
	if _, err := restoreLatest(m, j, snapshots); err != nil {
		return err
	}
	if err := raft.RecoverCluster(c.raftConfig(), m, j, c.Stable, snapshots, c.Transport, configuration); err != nil {
		return fmt.Errorf("recover by %s: %w", path, err)
	}
	if err := os.Rename(path, filepath.Join(c.RecoveryDir, peersIngested)); err != nil {
		return fmt.Errorf("mark %s as done: %w", path, err)
	}
	c.Log.Warn("membership replaced by file", "file", path, "servers", len(configuration.Servers))
	return nil
}

func explainPeers(path string) error {
	_, err := os.Stat(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(path, []byte(peersHelp), 0o600); err != nil {
		return fmt.Errorf("write help for recovery: %w", err)
	}
	return nil
}
