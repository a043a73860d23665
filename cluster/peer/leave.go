package peer

import (
	"context"
	"fmt"

	"srsx/cluster"
	"srsx/cluster/gossip"
)

// Join meets the peers at addresses of gossip.
func (p *Peer) Join(ctx context.Context, addrs ...string) error {
	for _, addr := range addrs {
		if err := gossip.CheckSeed(addr); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	return p.gossip.Join(ctx, addrs...)
}

// Leave takes this peer out of the cluster for good. Then Left is closed.
func (p *Peer) Leave(ctx context.Context) error {
	if err := p.Remove(ctx, p.id); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	if err := p.gossip.Leave(ctx); err != nil {
		p.log.WarnContext(ctx, "not all peers heard that this one leaves", "err", err)
	}
	p.leaving.Do(func() { close(p.left) })
	return nil
}

// ForceLeave declares another peer gone for good, by name or id.
func (p *Peer) ForceLeave(ctx context.Context, name string) error {
	id := p.idOf(name)
	if err := p.gossip.ForceLeave(ctx, name); err != nil {
		return err
	}
	if err := p.Remove(ctx, id); err != nil {
		return fmt.Errorf("force-leave: %w", err)
	}
	return nil
}

// RemoveServer takes a peer out of Raft, by name or id. Alive, it is let in
// again.
func (p *Peer) RemoveServer(ctx context.Context, name string) error {
	return p.Remove(ctx, p.idOf(name))
}

// Transfer has a peer lead, by name or id; the best one if name is empty.
func (p *Peer) Transfer(ctx context.Context, name string) error {
	return p.TransferLeadership(ctx, p.idOf(name))
}

// idOf returns the id of a member by its name; a text that is no name is one.
func (p *Peer) idOf(name string) string {
	for _, m := range p.gossip.Members() {
		if m.Name == name {
			return m.ID
		}
	}
	return name
}

// NameOf returns the name of a member by its id; empty when it is not known.
func (p *Peer) NameOf(id string) string {
	for _, m := range p.gossip.Members() {
		if m.ID == id {
			return m.Name
		}
	}
	return ""
}

var _ cluster.Observer = observer{}
