package peer

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"

	"srsx/cluster"
	"srsx/cluster/founding"
	"srsx/cluster/gossip"
	"srsx/cluster/quorum"
)

// newFounding returns this peer's part in founding a cluster; see
// [Config.Expect].
func (p *Peer) newFounding() *founding.Participant {
	return founding.NewParticipant(founding.Config{
		Self: founding.Peer{ID: p.id, Name: p.config.Name, Expect: p.config.Expect, NonVoter: p.config.NonVoter},
		File: p.config.Dir.Path("founding"),
		View: p.foundingView,
		Send: func(ctx context.Context, to string, message []byte) error { return p.gossip.Send(ctx, to, message) },
		Found: func(ctx context.Context, proposal founding.Proposal) error {
			servers, err := p.firstServers(proposal)
			if err != nil {
				return err
			}
			return p.Bootstrap(ctx, servers)
		},
		Log: p.log,
	})
}

// meet finds the peers of -join, and then takes part in founding a cluster or
// keeps others from founding a second one. Where a join fails nothing is founded,
// and nobody founds alone before it has looked for a cluster that is there.
func (p *Peer) meet(ctx context.Context) error {
	member := p.isMember()
	if err := p.joinFirst(ctx); err != nil {
		if !member {
			return err
		}
		// It remembers where the others were, and goes on looking for them.
		p.log.WarnContext(ctx, "nobody answers yet", "err", err)
	}
	if p.config.Expect == 1 && !member {
		select {
		case <-p.gossip.Tried():
		case <-ctx.Done():
			return nil
		}
	}
	return p.founding.Serve(ctx)
}

func (p *Peer) joinFirst(ctx context.Context) error {
	if len(p.config.Join) == 0 {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, p.config.JoinTimeout)
	defer cancel()
	if err := p.gossip.Join(limited, p.config.Join...); err != nil && ctx.Err() == nil {
		return fmt.Errorf("-join: %w", err)
	}
	return nil
}

// isMember reports whether this peer is, or was, part of a cluster, or may be: it
// founds none then.
func (p *Peer) isMember() bool {
	has, err := p.HasState()
	return has || err != nil || p.seated()
}

func (p *Peer) foundingView() founding.View {
	v := founding.View{Member: p.isMember()}
	for _, m := range p.gossip.Members() {
		if m.ID != p.id {
			v.Peers = append(v.Peers, founding.Peer{
				ID: m.ID, Name: m.Name, Present: m.State == gossip.Alive, Gone: m.State == gossip.Left,
				Cluster: m.Cluster, Expect: int(m.Expect), NonVoter: m.NonVoter,
			})
		}
	}
	return v
}

// firstServers are the members with which a cluster is founded: as many voters as
// are of use, the others replicas.
func (p *Peer) firstServers(proposal founding.Proposal) ([]cluster.Server, error) {
	var peers []quorum.Peer
	for _, id := range proposal.Peers {
		addr := p.resolve(id)
		if addr == "" {
			return nil, fmt.Errorf("peer %s of the proposal is not known any more", id)
		}
		peers = append(peers, quorum.Peer{ID: raft.ServerID(id), Address: raft.ServerAddress(addr)})
	}
	var servers []cluster.Server
	for _, s := range quorum.First(peers, settings()).Servers {
		servers = append(servers, cluster.Server{ID: string(s.ID), Addr: string(s.Address), Voter: s.Suffrage == raft.Voter})
	}
	return servers, nil
}

// Join meets the peers at addresses of gossip.
func (p *Peer) Join(ctx context.Context, addrs ...string) error {
	for _, addr := range addrs {
		if err := gossip.CheckSeed(addr); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	return p.gossip.Join(ctx, addrs...)
}
