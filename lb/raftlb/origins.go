package raftlb

import (
	"context"

	"srsx/fsm"
	"srsx/lb"
)

func (b *Balancer) status(o lb.Origin) lb.OriginStatus {
	seen := b.soft.of(o.ID)
	status := lb.OriginStatus{Origin: o, LastSeen: seen.at, Load: seen.load}
	if node, err := b.peer(); err == nil {
		node.View(func(s *fsm.State) { status.Streams = s.StreamsOn(o.ID) })
	}
	return status
}

// operate has the cluster agree on an operator's command.
func (b *Balancer) operate(ctx context.Context, c fsm.Command) error {
	node, err := b.peer()
	if err != nil {
		return err
	}
	results, err := node.Propose(ctx, c)
	if err != nil {
		return undecided(err)
	}
	return lb.ErrorOf(results[0].Err)
}
