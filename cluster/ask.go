package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// The reply to a question: error, or 0 and the place up to which the leader had
// applied the log when it had answered, then the answer. Who asked can apply as
// much, see hints, and so need not wait for raft to learn of what the answer says.

// serve answers the other peers.
func (n *Node) serve() {
	n.config.RPC.Handle(kindPropose, n.answerPropose)
	n.config.RPC.Handle(kindAsk, n.answerAsk)
	n.config.RPC.Handle(kindReadIndex, n.answerReadIndex)
	n.config.RPC.Handle(kindConfirm, n.answerConfirm)
	n.config.RPC.Handle(kindChange, n.answerChange)
	n.config.RPC.Handle(kindPosition, n.answerPosition)
	n.config.RPC.Handle(kindDeath, n.answerDeath)
	n.config.RPC.Handle(kindCommitted, n.answerCommitted)
	n.config.RPC.Handle(kindWitness, n.answerWitness)
	n.config.RPC.Handle(kindRestore, n.answerRestore)
	n.config.RPC.Handle(kindBackup, n.answerBackup)
}

// errNoAnswer means that the program set no Config.Answer.
var errNoAnswer = errors.New("no questions are answered here")

// Ask puts a question to the leader, which answers by its Config.Answer, with
// all applied that is agreed; here, when this peer leads. While nobody leads, it
// waits. An answer's error comes back as its text.
//
// ErrNoLeader, ErrFenced, ErrHalted, ErrClosed: the question was not put.
// ErrUnknownOutcome: the leader was lost meanwhile.
func (n *Node) Ask(ctx context.Context, question []byte) ([]byte, error) {
	if err := n.refused(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.config.Timeout)
	defer cancel()
	var answer []byte
	err := n.tryLeaders(ctx, func(ctx context.Context, leader string) (err error) {
		if leader == n.config.ID {
			answer, err = n.answer(ctx, leader, question)
		} else {
			answer, err = n.ask(ctx, leader, question)
		}
		return err
	}, refusedWhole)
	return answer, err
}

func (n *Node) ask(ctx context.Context, leader string, question []byte) ([]byte, error) {
	reply, err := n.config.RPC.Call(ctx, leader, kindAsk, question)
	if errors.Is(err, ErrUnsent) {
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("%w: ask %s: %w", ErrUnknownOutcome, leader, err)
	}
	m := &message{rest: reply}
	if err := m.problem(); err != nil {
		return nil, err
	}
	at := place{index: m.uvarint(), term: m.uvarint()}
	if m.failed {
		return nil, malformed("answer", leader)
	}
	n.hints.add(at)
	return m.rest, nil
}

func (n *Node) answer(ctx context.Context, from string, question []byte) ([]byte, error) {
	if err := n.refused(); err != nil {
		return nil, err
	}
	if n.config.Answer == nil {
		return nil, errNoAnswer
	}
	if _, err := n.awaitEstablished(ctx); err != nil {
		return nil, err
	}
	return n.config.Answer(ctx, from, question)
}

func (n *Node) answerAsk(ctx context.Context, from string, question []byte) ([]byte, error) {
	answer, err := n.answer(ctx, from, question)
	if err != nil {
		return appendError(nil, err), nil
	}
	at := n.machine.last()
	const head = 1 + 2*binary.MaxVarintLen64
	reply := append(make([]byte, 0, head+len(answer)), codeNone)
	reply = binary.AppendUvarint(binary.AppendUvarint(reply, at.index), at.term)
	return append(reply, answer...), nil
}
