package cluster

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/raft"
)

// Await waits until this peer has applied the log up to index.
func (n *Node) Await(ctx context.Context, index uint64) error {
	w := n.machine.await(index)
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
	case <-n.closing:
	}
	n.machine.leave(w)
	select {
	case <-n.closing:
		return ErrClosed
	default:
		return fmt.Errorf("wait for entry %d: %w", index, context.Cause(ctx))
	}
}

// Barrier returns once this peer's state has all that any peer had proved to be
// agreed before the call: a [Node.View] after it is linearizable. ErrNoLeader:
// no leader could prove that it still leads.
func (n *Node) Barrier(ctx context.Context) error {
	if err := n.refused(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, n.config.Timeout)
	defer cancel()
	index, err := n.reads.join(ctx)
	if err != nil {
		return err
	}
	return n.Await(ctx, index)
}

// readers share the question up to where a read has to have applied. Who comes
// while it is under way waits for the next one: the answer may already be older
// than the read.
type readers struct{ lobby[chan bound] }

// bound is the answer: the last entry that a reader's state has to have.
type bound struct {
	index uint64
	err   error
}

func newReaders() *readers {
	return &readers{newLobby(func(reader chan bound, why error) { reader <- bound{err: why} })}
}

func (r *readers) join(ctx context.Context) (uint64, error) {
	reader := make(chan bound, 1)
	r.put(reader)
	select {
	case answer := <-reader:
		return answer.index, answer.err
	case <-ctx.Done():
		return 0, fmt.Errorf("%w: %w", ErrNoLeader, context.Cause(ctx))
	}
}

// run asks one question after the other.
func (r *readers) run(ctx context.Context, ask func(context.Context) (uint64, error)) {
	for {
		select {
		case <-r.wake:
		case <-ctx.Done():
			return
		}
		round := r.takeAll()
		if len(round) == 0 {
			continue
		}
		index, err := ask(ctx)
		for _, reader := range round {
			reader <- bound{index, err}
		}
	}
}

// readIndex asks whoever leads, until one answers.
func (n *Node) readIndex(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, n.config.Timeout)
	defer cancel()
	var index uint64
	err := n.tryLeaders(ctx, func(ctx context.Context, leader string) (err error) {
		if leader == n.config.ID {
			index, err = n.proveIndex(ctx)
		} else {
			index, err = n.askIndex(ctx, leader)
		}
		return err
	}, func(error) bool { return true })
	return index, err
}

func (n *Node) askIndex(ctx context.Context, leader string) (uint64, error) {
	reply, err := n.config.RPC.Call(ctx, leader, kindReadIndex, nil)
	if err != nil {
		return 0, err
	}
	m := &message{rest: reply}
	if err := m.problem(); err != nil {
		return 0, err
	}
	index := m.uvarint()
	return index, m.end()
}

func (n *Node) answerReadIndex(ctx context.Context, _ string, _ []byte) ([]byte, error) {
	if l, _ := n.leaders.now(); l.Leader != n.config.ID {
		return appendError(nil, ErrNotLeader), nil
	}
	index, err := n.reads.join(ctx)
	reply := appendError(nil, err)
	if err == nil {
		reply = binary.AppendUvarint(reply, index)
	}
	return reply, nil
}

// proveIndex returns the index that the state of a linearizable read has to
// have, which is that of the last entry committed before the call.
func (n *Node) proveIndex(ctx context.Context) (uint64, error) {
	if err := n.refused(); err != nil {
		return 0, err
	}
	// Before an entry of its own term is committed, a leader does not know
	// which entries of former terms are.
	term, err := n.awaitEstablished(ctx)
	if err != nil {
		return 0, err
	}
	committed := n.raft.CommitIndex()
	if err := n.confirmTerm(ctx, term); err != nil {
		return 0, err
	}
	return n.lastApplicable(committed), nil
}

// lastApplicable returns the last entry up to index that reaches the state: raft
// keeps its no-ops and barriers to itself.
func (n *Node) lastApplicable(index uint64) uint64 {
	for ; index > 0; index-- {
		var entry raft.Log
		if err := n.journal.GetLog(index, &entry); err != nil {
			applied, _ := n.machine.position() // a snapshot has it, so it is applied
			return applied
		}
		if entry.Type == raft.LogCommand || entry.Type == raft.LogConfiguration {
			return index
		}
	}
	return 0
}

// confirmTerm returns nil once a majority of the voters, this peer included, has
// said after the call that it knows of no later term. Whoever was elected since
// has the vote of one of them, given after its answer.
//
// Raft's own VerifyLeader does not prove as much: it counts the answers of
// non-voters, and answers to messages sent before the call, such as a leader
// finds in its sockets after it was stopped for a while and succeeded.
func (n *Node) confirmTerm(ctx context.Context, term uint64) error {
	request := binary.AppendUvarint(nil, term)
	err := n.majority(ctx, func(ctx context.Context, id string) bool {
		if id == n.config.ID {
			return n.raft.CurrentTerm() == term && n.raft.State() == raft.Leader
		}
		return n.askYes(ctx, id, kindConfirm, request)
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoLeader, err)
	}
	return nil
}

func (n *Node) answerConfirm(_ context.Context, from string, request []byte) ([]byte, error) {
	m := &message{rest: request}
	term := m.uvarint()
	if m.end() != nil {
		return nil, malformed("confirmation", from)
	}
	return yesOrNo(n.raft.CurrentTerm() == term), nil
}
