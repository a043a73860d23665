package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"

	"srsx/fsm"
)

// SnapshotNow writes a snapshot to this peer's disk and shortens its log. It does
// nothing when nothing has changed since the last.
func (n *Node) SnapshotNow(ctx context.Context) error {
	err := n.flights.answered(ctx, n.raft.Snapshot())
	if err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return fmt.Errorf("take snapshot: %w", err)
	}
	return nil
}

// SaveSnapshot writes this peer's state to w, as a backup, and returns the index
// of its last entry. It needs no leader; after [Node.Barrier] the backup has all
// that was agreed before.
func (n *Node) SaveSnapshot(w io.Writer) (index uint64, err error) {
	s := n.machine.capture()
	_, err = s.WriteTo(w)
	return s.Index(), err
}

// RestoreSnapshot replaces the state of the whole cluster by a backup, all but
// the cluster's own identity. Only the leader can. What was proposed meanwhile
// has an unknown outcome. ErrNotLeader: nothing was done.
func (n *Node) RestoreSnapshot(ctx context.Context, r io.Reader) error {
	if err := n.refused(); err != nil && !errors.Is(err, ErrHalted) {
		return err
	}
	state, err := fsm.Restore(r, n.config.Limits) // raft panics when it cannot be read
	if err != nil {
		return err
	}
	if _, err = n.awaitEstablished(ctx); err != nil {
		return err
	}
	n.View(func(s *fsm.State) {
		if c, ok := s.Cluster(); ok {
			state.Rename(c)
		}
	})
	var backup bytes.Buffer
	if _, err = state.Snapshot().WriteTo(&backup); err != nil {
		return err
	}
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: state.Index(), Size: int64(backup.Len())}
	restored := make(chan error, 1)
	n.flights.watch(func() { restored <- n.raft.Restore(meta, &backup, n.config.Timeout) })
	select {
	case err = <-restored:
	case <-ctx.Done():
		return fmt.Errorf("%w: restore snapshot: %w", ErrUnknownOutcome, context.Cause(ctx))
	}
	if notTaken(err) {
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	if err != nil {
		return fmt.Errorf("%w: restore snapshot: %w", ErrUnknownOutcome, err)
	}
	return n.mark(ctx)
}

// mark appends an entry without commands. The state then knows its place in the
// log again, which it does not from the backup.
func (n *Node) mark(ctx context.Context) error {
	entry := fsm.AppendBatchHead(nil, time.Now(), 0)
	if err := n.flights.answered(ctx, n.raft.Apply(entry, n.config.Timeout)); err != nil {
		return fmt.Errorf("%w: restore snapshot: %w", ErrUnknownOutcome, err)
	}
	return nil
}

// keepHouse does once a second what nobody asks for.
func (n *Node) keepHouse(ctx context.Context) {
	tick := time.NewTicker(snapshotInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			n.snapshotByBytes(ctx)
			n.stepAside(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// snapshotByBytes takes a snapshot when much was logged, though in few entries:
// raft looks at their number only.
func (n *Node) snapshotByBytes(ctx context.Context) {
	if n.machine.bytes.Load() < n.config.SnapshotBytes {
		return
	}
	if err := n.SnapshotNow(ctx); err != nil && ctx.Err() == nil {
		n.log.WarnContext(ctx, "no snapshot taken", "err", err)
	}
}

// stepAside hands leadership over when this peer is halted: it still counts and
// stores for the others, but can neither answer nor propose. When all are halted
// at the same entry, none is fit to take over, and it stays.
func (n *Node) stepAside(ctx context.Context) {
	if _, halted := n.machine.position(); halted == nil || n.raft.State() != raft.Leader {
		return
	}
	if err := n.transferHere(ctx, ""); err != nil && ctx.Err() == nil {
		n.log.WarnContext(ctx, "leads although halted", "err", err)
	}
}
