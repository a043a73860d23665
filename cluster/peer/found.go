package peer

import (
	"context"
	"time"

	"srsx/cluster"
)

// found founds a cluster of this peer alone when it is to, see Config.Expect.
func (p *Peer) found(ctx context.Context) error {
	if p.config.Expect != 1 {
		return nil
	}
	has, err := p.HasState()
	if err != nil || has {
		return err
	}
	addr, err := p.advertised()
	if err != nil {
		return err
	}
	if err := p.Bootstrap(ctx, []cluster.Server{{ID: p.id, Addr: addr, Voter: true}}); err != nil {
		return err
	}
	p.log.InfoContext(ctx, "founded a cluster")
	return nil
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
		why := p.gossip.Why()
		switch {
		case why != "":
		case len(p.gossip.Members()) < 2:
			why = "no other peer has been met; see -join and -retry-join"
		default:
			why = "the peers that were met have no leader that could let this one in"
		}
		p.log.WarnContext(ctx, "waiting to be let into a cluster", "why", why)
	}
}
