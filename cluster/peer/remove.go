package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"srsx/cluster"
	"srsx/cluster/gossip"
	"srsx/cluster/port"
	"srsx/cluster/quorum"
	"srsx/cluster/rpc"
)

const (
	commandTimeout = 10 * time.Second       // of what an operator asks for
	declareTimeout = 2 * time.Second        // until the others have heard who is gone
	removePause    = 100 * time.Millisecond // before a leader is asked once more
)

// Errors of ForceLeave and Remove.
var (
	// ErrItself means that a peer was to send itself off: that is what Leave does.
	ErrItself = errors.New("that is this peer itself: srsx leave takes it out")
	// ErrNoMember means that this peer is in no cluster, and cannot take others out
	// of theirs.
	ErrNoMember = errors.New("this peer is in no cluster: ask one that is")
)

// ForceLeave declares another peer gone for good, by name or id, and takes it out of
// Raft. It may be a newcomer. While it runs on it is not let in again; started
// anew, it is.
//
// It matches cluster.ErrUnknownMember, ErrItself, ErrNoMember, or is a
// [*quorum.NeededError] when the others had no majority without it.
func (p *Peer) ForceLeave(ctx context.Context, name string) error {
	other, err := p.find(name)
	if err == nil && p.isServer(other.ID) {
		return p.expel(ctx, name, other.ID)
	}
	switch {
	case err != nil:
	case other.Cluster != "" && !p.seated():
		err = ErrNoMember
	default:
		err = p.gossip.ForceLeave(ctx, other.ID)
	}
	if err != nil {
		return fmt.Errorf("force-leave %s: %w", name, err)
	}
	return nil
}

// Remove is ForceLeave of a server of Raft, also of one that gossip knows nothing
// of any more.
func (p *Peer) Remove(ctx context.Context, name string) error {
	other, err := p.find(name)
	if err == nil && !p.isServer(other.ID) {
		err = cluster.ErrUnknownMember
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return p.expel(ctx, name, other.ID)
}

func (p *Peer) expel(ctx context.Context, name, id string) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	err := p.remove(ctx, removal{ID: id, Gone: true}, func(err error) bool {
		return !errors.As(err, new(*quorum.NeededError))
	})
	if err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

// removal is what a leader is asked: to take a server out of Raft.
type removal struct {
	ID   string
	Gone bool // it is to be declared gone; else it says itself that it leaves
}

// remove asks whoever leads, as long as again accepts why it was not done.
func (p *Peer) remove(ctx context.Context, r removal, again func(error) bool) error {
	var why error
	for {
		err := p.removeOnce(ctx, r)
		if err == nil {
			return nil
		}
		if why == nil || ctx.Err() == nil { // what ctx has cut short has nothing to tell
			why = err
		}
		if !again(err) {
			return why
		}
		select {
		case <-ctx.Done():
			return why
		case <-time.After(removePause):
		}
	}
}

func (p *Peer) removeOnce(ctx context.Context, r removal) error {
	switch leader := p.Status().Leader; leader {
	case "":
		return cluster.ErrNoLeader
	case p.id:
		return p.removeHere(ctx, r)
	default:
		return p.askToRemove(ctx, leader, r)
	}
}

// removeHere takes a server out, at the leader. A leader that is to go itself hands
// over first, and then it is another's turn.
func (p *Peer) removeHere(ctx context.Context, r removal) error {
	keeper := p.keeper.Load()
	if keeper == nil {
		return cluster.ErrNotLeader
	}
	id := raft.ServerID(r.ID)
	switch {
	case r.ID == p.id:
		if err := keeper.MayLeave(ctx, id); err != nil {
			return err
		}
		if err := p.TransferLeadership(ctx, ""); err != nil {
			return err
		}
		return cluster.ErrNotLeader
	case r.Gone:
		return keeper.Remove(ctx, id, func(ctx context.Context) { p.declareGone(ctx, r.ID) })
	default:
		if err := p.awaitLeaving(ctx, r.ID); err != nil {
			return err
		}
		return keeper.Remove(ctx, id, func(context.Context) {})
	}
}

// declareGone has gossip know that a peer is gone. That this peer knows is enough
// for it not to be let in again; whoever does not hear it now hears it later.
func (p *Peer) declareGone(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, declareTimeout)
	defer cancel()
	err := p.gossip.ForceLeave(ctx, id)
	if err != nil && !errors.Is(err, gossip.ErrUnknownMember) {
		p.log.InfoContext(ctx, "not all peers have heard yet who is gone", "id", id, "err", err)
	}
}

// gossipPause is how long to wait for what gossip brings within a second.
const gossipPause = 10 * time.Millisecond

// awaitLeaving waits until gossip has brought that a peer leaves: removed before, it
// would be let in again.
func (p *Peer) awaitLeaving(ctx context.Context, id string) error {
	for {
		for _, m := range p.gossip.Members() {
			if m.ID == id && (m.Leaving || m.State == gossip.Left) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: gossip has not brought yet that the peer leaves", ctx.Err())
		case <-time.After(gossipPause):
		}
	}
}

// codeNeeded goes before the reason of a [quorum.NeededError].
const codeNeeded = rpc.FirstCode

func (p *Peer) askToRemove(ctx context.Context, leader string, r removal) error {
	request, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = p.calls.Call(ctx, port.Target{ID: leader}, kindRemove, request)
	if refused := (*rpc.CallError)(nil); errors.As(err, &refused) && refused.Code == codeNeeded {
		return &quorum.NeededError{Reason: refused.Text}
	}
	return err
}

func (p *Peer) answerRemove(ctx context.Context, _ port.Peer, request []byte) ([]byte, error) {
	var r removal
	if err := json.Unmarshal(request, &r); err != nil {
		return nil, err
	}
	err := p.removeHere(ctx, r)
	if needed := (*quorum.NeededError)(nil); errors.As(err, &needed) {
		err = &rpc.CallError{Code: codeNeeded, Text: needed.Reason}
	}
	return nil, err
}

// TransferLeadership has a peer lead, by name or id; the best one if name is empty.
func (p *Peer) TransferLeadership(ctx context.Context, name string) error {
	if name == "" {
		return p.Node.TransferLeadership(ctx, "")
	}
	other, err := p.lookUp(name)
	if err != nil {
		return fmt.Errorf("transfer leadership to %s: %w", name, err)
	}
	return p.Node.TransferLeadership(ctx, other.ID)
}
