package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"srsx/fsm"
)

// A request to propose:
//
//	count of proposals; for each: count of commands, length, commands
//
// Its reply, for each proposal: error, or 0 and index, term, offset.

func encodeProposals(batch []*proposal) []byte {
	size := 0
	for _, p := range batch {
		size += len(p.encoded) + 2*binary.MaxVarintLen32
	}
	b := binary.AppendUvarint(make([]byte, 0, size), uint64(len(batch)))
	for _, p := range batch {
		b = binary.AppendUvarint(b, uint64(p.count)) //nolint:gosec // a length
		b = appendBytes(b, p.encoded)
	}
	return b
}

// decodeProposals reads what a peer proposes. What it cannot read must not enter
// the log: all peers would halt at it.
func decodeProposals(request []byte) ([]*proposal, error) {
	m := &message{rest: request}
	proposals := make([]*proposal, 0, m.count())
	batch, commands := []byte(nil), 0
	for range cap(proposals) {
		count := int(m.uvarint()) //nolint:gosec // checked against the commands below
		p := newProposal(m.bytes(), count)
		p.relayed = true
		proposals = append(proposals, p)
		commands += count
	}
	if err := m.end(); err != nil {
		return nil, err
	}
	for _, p := range proposals {
		batch = fsm.AppendBatchHead(batch[:0], time.Time{}, p.count)
		batch = append(batch, p.encoded...)
		if _, _, err := fsm.DecodeBatch(batch); err != nil {
			return nil, err
		}
	}
	return proposals, nil
}

// answerPropose appends the commands of another peer to the log and says where
// they are.
func (n *Node) answerPropose(ctx context.Context, from string, request []byte) ([]byte, error) {
	proposals, err := decodeProposals(request)
	if err != nil {
		return nil, fmt.Errorf("proposals from %s: %w", from, err)
	}
	if err = n.mayPropose(); err == nil {
		if l, _ := n.leaders.now(); l.Leader != n.config.ID {
			err = ErrNotLeader
		}
	}
	if err != nil {
		settle(proposals, verdict{err: err})
	} else {
		n.queue.put(proposals...)
	}
	const usual = 16 // bytes
	reply := make([]byte, 0, usual*len(proposals))
	for _, p := range proposals {
		v := p.await(ctx)
		if reply = appendError(reply, v.err); v.err == nil {
			reply = binary.AppendUvarint(reply, v.place.index)
			reply = binary.AppendUvarint(reply, v.place.term)
			reply = binary.AppendUvarint(reply, uint64(v.place.offset)) //nolint:gosec // a position in a slice
		}
	}
	return reply, nil
}

// forward sends a batch to the leader and settles it. It gives up when the
// leader changes: what the old one did with the batch is then not known, and it
// may take long to say so. sent is called when the next batch may go.
func (n *Node) forward(ctx context.Context, batch []*proposal, leader string, changed <-chan struct{}, sent func()) {
	release := n.machine.remember()
	defer release()
	ctx, cancel := context.WithTimeout(ctx, n.config.Timeout)
	defer cancel()
	call, done := until(ctx, changed, errLeaderChanged)
	reply, err := n.config.RPC.Call(call, leader, kindPropose, encodeProposals(batch))
	done()
	sent()
	switch {
	case errors.Is(err, ErrUnsent):
		n.retry(batch)
	case err != nil:
		settle(batch, verdict{err: fmt.Errorf("%w: forward to %s: %w", ErrUnknownOutcome, leader, err)})
	default:
		n.finish(ctx, batch, leader, reply)
	}
}

// finish waits until this peer has applied what the leader's reply names, and
// gives each proposal its results.
func (n *Node) finish(ctx context.Context, batch []*proposal, leader string, reply []byte) {
	m := &message{rest: reply}
	places := make([]verdict, len(batch))
	var last place
	for i := range places {
		if places[i].err = m.problem(); places[i].err != nil {
			continue
		}
		at := place{index: m.uvarint(), term: m.uvarint(), offset: int(m.uvarint())} //nolint:gosec // checked in resultsAt
		places[i].place = at
		if at.index > last.index {
			last = at
		}
	}
	if m.end() != nil {
		settle(batch, verdict{err: fmt.Errorf("%w: %w", ErrUnknownOutcome, malformed("reply", leader))})
		return
	}
	err := n.catchUp(ctx, last)
	var refused []*proposal
	for i, p := range batch {
		v := places[i]
		switch {
		case v.err != nil && refusedWhole(v.err):
			refused = append(refused, p)
			continue
		case v.err != nil:
		case err != nil:
			v.err = fmt.Errorf("%w: applied by the leader, not here: %w", ErrUnknownOutcome, err)
		default:
			v.results, v.err = n.resultsAt(v.place, p.count)
		}
		p.done <- v
	}
	if len(refused) > 0 {
		n.retry(refused)
	}
}

// resultsAt returns what the commands at a place of the log did.
func (n *Node) resultsAt(at place, count int) ([]fsm.Result, error) {
	results, ok := n.machine.recall(at.index)
	if !ok || at.offset < 0 || at.offset > len(results)-count {
		return nil, fmt.Errorf("%w: applied, but the results are not known here any more", ErrUnknownOutcome)
	}
	return results[at.offset : at.offset+count : at.offset+count], nil
}
