package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// SnapshotNow writes a snapshot to this peer's disk and shortens its log. It does
// nothing when nothing has changed since the last.
func (n *Node) SnapshotNow(ctx context.Context) error {
	err := n.flights.answered(ctx, func() raft.Future { return n.raft.Snapshot() })
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
