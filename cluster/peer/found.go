package peer

import (
	"context"
	"errors"
	"time"

	"srsx/cluster"
	"srsx/cluster/founding"
	"srsx/cluster/gossip"
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
			servers, err := p.serversOf(proposal)
			if err != nil {
				return err
			}
			p.proposed.Store(new(proposal.Cluster()))
			return p.Bootstrap(ctx, servers)
		},
		Log: p.log,
	})
}

func (p *Peer) foundingView() founding.View {
	has, err := p.HasState()
	v := founding.View{Member: has || err != nil || len(p.Servers()) > 0}
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

var errUnmet = errors.New("a peer of the proposal is not known any more")

// serversOf are the first voters of a cluster.
func (p *Peer) serversOf(proposal founding.Proposal) ([]cluster.Server, error) {
	var servers []cluster.Server
	for _, id := range proposal.Peers {
		addr := p.resolve(id)
		if addr == "" {
			return nil, errUnmet
		}
		servers = append(servers, cluster.Server{ID: id, Addr: addr, Voter: true})
	}
	return servers, nil
}

// waitingPace is how often a peer that waits to be let in says why.
const waitingPace = 10 * time.Second

func (p *Peer) explainWaiting(ctx context.Context) error {
	pace := time.NewTicker(waitingPace)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pace.C:
		}
		if len(p.Servers()) > 0 {
			continue
		}
		why := p.founding.Why()
		if met := p.gossip.Why(); met != "" {
			why = met
		}
		p.log.WarnContext(ctx, "waiting to be let into a cluster", "why", why)
	}
}
