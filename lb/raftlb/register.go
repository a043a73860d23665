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
	known, ok := b.replica.Origin(r.Origin.ID)
	if ok && decide.Same(known, r.Origin) && known.State != lb.Down {
		b.soft.heard(r)
		return nil
	}
	var answer registered
	if err := ask(ctx, node, questionRegister, r, &answer); err != nil {
		return err
	}
	if err := answer.Refusal.error(); err != nil {
		return err
	}
	if err := node.Await(ctx, answer.Index); err != nil {
		return undecided(err)
	}
	b.soft.heard(r)
	return nil
}

// registered is the leader's answer to a heartbeat that says something new.
type registered struct {
	Refusal refusal
	Index   uint64 // of the log, at which the peer that asked knows of it too
}

// answerRegister takes a heartbeat that says something new.
func (b *Balancer) answerRegister(ctx context.Context, l *leadership, r lb.Registration) error {
	former, known := b.replica.Origin(r.Origin.ID)
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

// index is how far the log has been applied.
func (l *leadership) index() (index uint64) {
	l.node.View(func(s *fsm.State) { index = s.Index() })
	return index
}
