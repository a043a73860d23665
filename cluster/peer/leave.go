package peer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"srsx/cluster"
	"srsx/cluster/gossip"
)

const (
	// leaveTimeout is how long a peer that leaves waits until it may: a restarting
	// one comes back, a replica votes in the place of the only voter.
	leaveTimeout   = 10 * time.Second
	goodbyeTimeout = 5 * time.Second
)

// ErrLeaving means that a peer was told to leave twice.
var ErrLeaving = errors.New("this peer is about to leave already")

// Leave takes this peer out of the cluster for good; then Left is closed. An error
// says why it cannot go now, and it stays a member: ErrLeaving, cluster.ErrNoLeader, or
// a [*quorum.NeededError] when the others had no majority without it.
//
// The last member may leave as well: nobody is left to agree. Its data stays, and
// started again it goes on with the cluster.
func (p *Peer) Leave(ctx context.Context) error {
	if !p.leaving.TryLock() {
		return ErrLeaving
	}
	defer p.leaving.Unlock()
	if err := p.beRemoved(ctx); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	p.sayGoodbye(ctx)
	return nil
}

// beRemoved has the others take this peer out of Raft. It tells them first that it
// leaves, or they would let it in again.
func (p *Peer) beRemoved(ctx context.Context) error {
	servers := p.Servers()
	if len(servers) == 0 || len(servers) == 1 && servers[0].ID == p.id {
		return nil
	}
	if err := p.setLeaving(true); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	err := p.remove(ctx, removal{ID: p.id}, func(error) bool { return true })
	if err == nil {
		return nil
	}
	if errors.Is(err, cluster.ErrNoLeader) {
		err = fmt.Errorf("%w: nobody can agree to it; stop this peer instead, and srsx force-leave it when there is a majority", err)
	}
	return errors.Join(err, p.setLeaving(false))
}

func (p *Peer) setLeaving(leaving bool) error {
	return p.gossip.UpdateMeta(func(m *gossip.Meta) { m.Leaving = leaving })
}

func (p *Peer) sayGoodbye(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
	defer cancel()
	if err := p.gossip.Leave(ctx); err != nil {
		p.log.WarnContext(ctx, "not all peers heard that this one leaves", "err", err)
	}
	p.log.InfoContext(ctx, "left the cluster")
	select {
	case <-p.left:
	default:
		close(p.left)
	}
}
