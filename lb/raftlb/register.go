package raftlb

import (
	"context"

	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/decide"
)

// Register implements lb.Balancer. A heartbeat that says nothing new is answered
// at once, since SRS waits for the answer; the leader hears of it with the next
// news.
func (b *Balancer) Register(ctx context.Context, r lb.Registration) error {
	node, err := b.peer()
	if err != nil {
		return err
	}
	known, ok := b.Replica.Origin(r.Origin.ID)
	if ok && decide.Same(known, r.Origin) && known.State != lb.Down {
		b.soft.heard(r)
		return nil
	}
	var refused refusal
	if err := ask(ctx, node, questionRegister, r, &refused); err != nil {
		return err
	}
	if err := refused.error(); err != nil {
		return err
	}
	b.soft.heard(r)
	return nil
}

// answerRegister takes a heartbeat that says something new.
func (b *Balancer) answerRegister(ctx context.Context, l *leadership, r lb.Registration) error {
	former, known := b.Replica.Origin(r.Origin.ID)
	if known {
		if err := l.decider.Admit(ctx, former, r); err != nil {
			return err
		}
	}
	var put fsm.PutOrigin
	var news bool
	l.node.View(func(s *fsm.State) { put, news = l.decider.News(s, r) })
	if news {
		results, err := l.node.Propose(ctx, put)
		if err != nil {
			return undecided(err)
		}
		if err := results[0].Err; err != nil {
			return lb.ErrorOf(err)
		}
	}
	l.decider.Heard(former, r)
	return nil
}
