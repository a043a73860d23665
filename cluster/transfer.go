package cluster

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Position is how far a peer is.
type Position struct {
	Term    uint64 // the latest it knows of
	Last    uint64 // index of its last log entry
	Applied uint64
	// Healthy means that it is neither fenced nor halted.
	Healthy bool
}

// Position asks a peer how far it is.
func (n *Node) Position(ctx context.Context, id string) (Position, error) {
	if id == n.config.ID {
		return n.position(), nil
	}
	reply, err := n.config.RPC.Call(ctx, id, kindPosition, nil)
	if err != nil {
		return Position{}, fmt.Errorf("ask %s for its position: %w", id, err)
	}
	m := &message{rest: reply}
	p := Position{Term: m.uvarint(), Last: m.uvarint(), Applied: m.uvarint(), Healthy: m.octet() == 1}
	if m.end() != nil {
		return Position{}, malformed("position", id)
	}
	return p, nil
}

func (n *Node) position() Position {
	applied, halted := n.machine.position()
	return Position{Term: n.raft.CurrentTerm(), Last: n.raft.LastIndex(), Applied: applied, Healthy: halted == nil && !n.fenced.Load()}
}

func (n *Node) answerPosition(context.Context, string, []byte) ([]byte, error) {
	p := n.position()
	b := binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(nil, p.Term), p.Last), p.Applied)
	if p.Healthy {
		return append(b, 1), nil
	}
	return append(b, 0), nil
}

// freshLag is how many entries behind the leader a server may be to take over:
// it has to get them all while nobody's proposals are taken.
const freshLag = 1024

// positionTimeout bounds how long a server may take to say how far it is.
const positionTimeout = 250 * time.Millisecond

// transfers remembers to whom leadership could not be handed over in this term.
// A second transfer to a server that hangs would block in hashicorp/raft for
// ever, and with it every proposal (issue 696 there).
type transfers struct {
	mu     sync.Mutex
	term   uint64
	failed []string
}

func (t *transfers) mayTry(term uint64, id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.term != term {
		t.term, t.failed = term, nil
	}
	return !slices.Contains(t.failed, id)
}

func (t *transfers) fail(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = append(t.failed, id)
}

// transferHere hands leadership to the given voter, or to the freshest. It
// returns once this peer does not lead any more.
func (n *Node) transferHere(ctx context.Context, id string) error {
	to, err := n.freshest(ctx, id)
	if err != nil {
		return err
	}
	err = n.flights.answered(ctx, func() raft.Future {
		return n.raft.LeadershipTransferToServer(raft.ServerID(to.ID), raft.ServerAddress(to.Addr))
	})
	if err != nil && n.raft.State() == raft.Leader {
		n.transfers.fail(to.ID)
		return fmt.Errorf("hand over to %s: %w", to.ID, err)
	}
	return nil
}

// freshest returns the voter, other than this peer, that is furthest among those
// that may take over; or the given one, if it may.
func (n *Node) freshest(ctx context.Context, id string) (Server, error) {
	ctx, cancel := context.WithTimeout(ctx, positionTimeout)
	defer cancel()
	type answer struct {
		server   Server
		position Position
		err      error
	}
	answers := make(chan answer, len(n.Servers()))
	asked := 0
	term := n.raft.CurrentTerm()
	for _, s := range n.Servers() {
		if !s.Voter || s.ID == n.config.ID || id != "" && s.ID != id || !n.transfers.mayTry(term, s.ID) {
			continue
		}
		asked++
		go func() {
			p, err := n.Position(ctx, s.ID)
			answers <- answer{s, p, err}
		}()
	}
	best := answer{err: ErrNotFresh}
	for range asked {
		a := <-answers
		fresh := a.err == nil && a.position.Healthy && a.position.Last+freshLag >= n.raft.LastIndex()
		if fresh && (best.err != nil || a.position.Last > best.position.Last) {
			best = a
		}
	}
	return best.server, best.err
}
