package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"srsx/fsm"
)

// RestoreSnapshot replaces the state of the whole cluster by a backup, all but
// the cluster's own identity. It may be called at any peer, and returns once this
// one has the new state; only ctx bounds how long that takes. What was proposed
// meanwhile has an unknown outcome.
//
// An error of fsm.Restore, ErrTooLarge, ErrNoLeader: nothing was done.
func (n *Node) RestoreSnapshot(ctx context.Context, r io.Reader) error {
	if err := n.refused(); err != nil && !errors.Is(err, ErrHalted) {
		return err
	}
	state, err := n.readBackup(r) // before anybody is bothered with it
	if err != nil {
		return err
	}
	ctx, done := until(ctx, n.closing, ErrClosed)
	defer done()
	var index uint64
	err = n.tryLeaders(ctx, func(ctx context.Context, leader string) (err error) {
		if leader == n.config.ID {
			index, err = n.restoreHere(ctx, func() (*fsm.State, error) { return state, nil })
		} else {
			index, err = n.sendBackup(ctx, leader, state)
		}
		return err
	}, refusedWhole)
	if err != nil {
		return fmt.Errorf("restore snapshot: %w", err)
	}
	if err = n.Await(ctx, index); err != nil {
		return fmt.Errorf("%w: snapshot restored by the leader, not here: %w", ErrUnknownOutcome, err)
	}
	return nil
}

// readBackup reads a backup whole: raft panics on one that it cannot read.
func (n *Node) readBackup(r io.Reader) (*fsm.State, error) {
	limited := &io.LimitedReader{R: r, N: n.config.BackupSize + 1}
	state, err := fsm.Restore(limited, n.config.Limits)
	if limited.N <= 0 {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, n.config.BackupSize)
	}
	return state, err
}

// restoreHere makes the state that read returns that of the cluster, if this peer
// leads, and returns the index at which a peer has it. One at a time: each needs
// memory for another two states.
func (n *Node) restoreHere(ctx context.Context, read func() (*fsm.State, error)) (index uint64, err error) {
	select {
	case n.restoring <- struct{}{}:
		defer func() { <-n.restoring }()
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: another snapshot is being restored", ErrNoLeader)
	}
	if _, err = n.awaitEstablished(ctx); err != nil {
		return 0, err
	}
	state, err := read()
	if err != nil {
		return 0, err
	}
	n.View(func(s *fsm.State) {
		if c, ok := s.Cluster(); ok {
			state.Rename(c)
		}
	})
	if err = n.replaceState(ctx, state); err != nil {
		return 0, err
	}
	return n.mark(ctx)
}

func (n *Node) replaceState(ctx context.Context, state *fsm.State) error {
	var backup bytes.Buffer
	if _, err := state.Snapshot().WriteTo(&backup); err != nil {
		return err
	}
	size := backup.Len()
	meta := &raft.SnapshotMeta{Version: raft.SnapshotVersionMax, Index: state.Index(), Size: int64(size)}
	restored := make(chan error, 1)
	n.flights.watch(func() { restored <- n.raft.Restore(meta, &backup, 0) })
	select {
	case err := <-restored:
		// Raft also says so of what it has taken, when it is succeeded then.
		if notTaken(err) && backup.Len() == size {
			return fmt.Errorf("%w: %w", ErrNotLeader, err)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, context.Cause(ctx))
	}
}

// mark appends an entry without commands and returns its index. The state then
// knows its place in the log again, which it does not from the backup.
func (n *Node) mark(ctx context.Context) (index uint64, err error) {
	var entry raft.ApplyFuture
	err = n.flights.answered(ctx, func() raft.Future {
		entry = n.raft.Apply(fsm.AppendBatchHead(nil, time.Now(), 0), n.config.Timeout)
		return entry
	})
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	return entry.Index(), nil
}

// A backup goes to the leader in parts, which the leader fetches when it is ready
// for them: so nothing of it waits in queues in front of what is urgent, and the
// leader keeps nothing for a peer that is gone.
//
// The request to restore: number of the backup, its size. Its reply: error, or 0
// and index. The request for a part: number of the backup, offset. Its reply: the
// part, empty at the end.

// backupPart bounds a part, in bytes: what the cluster port sends in one write.
const backupPart = 256 << 10

// offers are the backups that this peer has leaders fetch.
type offers struct {
	mu      sync.Mutex // guards what follows
	last    uint64
	backups map[uint64][]byte
}

// add offers a backup until withdraw is called.
func (o *offers) add(backup []byte) (number uint64, withdraw func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.backups == nil {
		o.backups = make(map[uint64][]byte)
	}
	o.last++
	number = o.last
	o.backups[number] = backup
	return number, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.backups, number)
	}
}

// part returns what a backup has from an offset on, up to a part of it.
func (o *offers) part(number, offset uint64) ([]byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	backup, offered := o.backups[number]
	if !offered || offset > uint64(len(backup)) {
		return nil, false
	}
	rest := backup[offset:]
	return rest[:min(len(rest), backupPart)], true
}

// sendBackup has the leader restore a state, and returns the index at which a
// peer has it.
func (n *Node) sendBackup(ctx context.Context, leader string, state *fsm.State) (index uint64, err error) {
	var backup bytes.Buffer
	if _, err = state.Snapshot().WriteTo(&backup); err != nil {
		return 0, err
	}
	number, withdraw := n.offers.add(backup.Bytes())
	defer withdraw()
	request := binary.AppendUvarint(binary.AppendUvarint(nil, number), uint64(backup.Len())) //nolint:gosec // a length
	reply, err := n.config.RPC.Call(ctx, leader, kindRestore, request)
	if errors.Is(err, ErrUnsent) {
		return 0, err
	}
	if err != nil {
		return 0, fmt.Errorf("%w: send to %s: %w", ErrUnknownOutcome, leader, err)
	}
	m := &message{rest: reply}
	if err = m.problem(); err != nil {
		return 0, err
	}
	if index = m.uvarint(); m.end() != nil {
		return 0, fmt.Errorf("%w: %w", ErrUnknownOutcome, malformed("reply", leader))
	}
	return index, nil
}

func (n *Node) answerRestore(ctx context.Context, from string, request []byte) ([]byte, error) {
	m := &message{rest: request}
	b := &remoteBackup{node: n, ctx: ctx, from: from, number: m.uvarint(), size: m.uvarint()}
	if m.end() != nil {
		return nil, malformed("restore", from)
	}
	if err := n.refused(); err != nil && !errors.Is(err, ErrHalted) {
		return appendError(nil, err), nil
	}
	if b.size > uint64(n.config.BackupSize) { //nolint:gosec // not negative
		return appendError(nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, b.size)), nil
	}
	n.log.WarnContext(ctx, "a peer has the state of the cluster replaced by a backup", "peer", from, "bytes", b.size)
	index, err := n.restoreHere(ctx, func() (*fsm.State, error) { return n.readBackup(b) })
	reply := appendError(nil, err)
	if err == nil {
		reply = binary.AppendUvarint(reply, index)
	}
	return reply, nil
}

func (n *Node) answerBackup(_ context.Context, from string, request []byte) ([]byte, error) {
	m := &message{rest: request}
	number, offset := m.uvarint(), m.uvarint()
	if m.end() != nil {
		return nil, malformed("request for a backup", from)
	}
	part, ok := n.offers.part(number, offset)
	if !ok {
		return nil, fmt.Errorf("backup %d is not on offer any more", number)
	}
	return part, nil
}

// remoteBackup reads a backup that another peer offers.
type remoteBackup struct {
	node         *Node
	ctx          context.Context //nolint:containedctx // of the request that it is for
	from         string
	number, size uint64
	offset       uint64 // of what comes after part
	part         []byte
}

// Read implements io.Reader.
func (b *remoteBackup) Read(p []byte) (int, error) {
	if len(b.part) == 0 {
		if b.offset >= b.size {
			return 0, io.EOF
		}
		request := binary.AppendUvarint(binary.AppendUvarint(nil, b.number), b.offset)
		part, err := b.node.config.RPC.Call(b.ctx, b.from, kindBackup, request)
		if err != nil {
			return 0, fmt.Errorf("fetch backup from %s: %w", b.from, err)
		}
		if len(part) == 0 {
			return 0, io.ErrUnexpectedEOF
		}
		b.part = part
		b.offset += uint64(len(part))
	}
	read := copy(p, b.part)
	b.part = b.part[read:]
	return read, nil
}
