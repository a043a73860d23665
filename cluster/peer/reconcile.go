package peer

import (
	"context"
	"slices"
	"time"

	"srsx/cluster"
	"srsx/cluster/gossip"
)

const (
	reconcilePace = 500 * time.Millisecond
	// stable is how long a replica has to be alive before it may vote.
	stable = 2 * time.Second
	// goneAfter is how long a peer may be absent before it is no member.
	goneAfter = 72 * time.Hour
)

// reconcile brings the members of Raft in line with who is there, while this
// peer leads.
func (p *Peer) reconcile(ctx context.Context) error {
	pace := time.NewTicker(reconcilePace)
	defer pace.Stop()
	var ledSince time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.gossip.Events():
		case <-pace.C:
		}
		if !p.Status().Established {
			ledSince = time.Time{}
			continue
		}
		if ledSince.IsZero() {
			ledSince = time.Now()
		}
		if err := p.name(ctx); err != nil {
			p.log.WarnContext(ctx, "cluster not named", "err", err)
			continue
		}
		step, ok := next(p.Servers(), p.gossip.Members(), ledSince, time.Now())
		if !ok {
			continue
		}
		if err := p.take(ctx, step); err != nil && ctx.Err() == nil {
			p.log.WarnContext(ctx, "membership not changed", "change", step.what, "peer", step.name, "err", err)
		}
	}
}

// step is one change of membership.
type step struct {
	what, name, id, addr string
}

const (
	stepAdd     = "add"
	stepPromote = "promote"
	stepDemote  = "demote"
	stepRemove  = "remove"
)

// next returns the next change that brings servers in line with members; ok is
// false when there is none. One at a time, so that each sees what the one before
// has done.
func next(servers []cluster.Server, members []gossip.Member, ledSince, now time.Time) (s step, ok bool) {
	known := make(map[string]gossip.Member, len(members))
	for _, m := range members {
		known[m.ID] = m
	}
	for _, m := range members {
		i := slices.IndexFunc(servers, func(s cluster.Server) bool { return s.ID == m.ID })
		if m.State == gossip.Alive && !m.Leaving && (i < 0 || servers[i].Addr != m.ClusterAddr && !servers[i].Voter) {
			return step{stepAdd, m.Name, m.ID, m.ClusterAddr}, true
		}
	}
	return vote(servers, known, ledSince, now)
}

// vote returns the next change of who votes, or of who is no member any more.
func vote(servers []cluster.Server, known map[string]gossip.Member, ledSince, now time.Time) (s step, ok bool) {
	const few, votersOfFew, votersOfMany = 5, 3, 5
	most := votersOfMany
	if len(servers) <= few {
		most = votersOfFew
	}
	var voters, alive int
	for _, s := range servers {
		if s.Voter {
			voters++
			if known[s.ID].State == gossip.Alive {
				alive++
			}
		}
	}
	for _, s := range servers {
		m, met := known[s.ID]
		absent := now.Sub(latest(m.Since, ledSince))
		switch {
		case met && m.State == gossip.Left && (!s.Voter || alive > (voters-1)/2):
			return step{stepRemove, m.Name, s.ID, ""}, true
		case met && m.State == gossip.Failed && absent > goneAfter && (!s.Voter || alive > (voters-1)/2):
			return step{stepRemove, m.Name, s.ID, ""}, true
		case met && m.State == gossip.Alive && !s.Voter && !m.NonVoter && alive < most && now.Sub(m.Since) > stable:
			return step{stepPromote, m.Name, s.ID, ""}, true
		}
	}
	for _, s := range servers {
		if m := known[s.ID]; s.Voter && voters > most && m.State != gossip.Alive {
			return step{stepDemote, m.Name, s.ID, ""}, true
		}
	}
	return step{}, false
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (p *Peer) take(ctx context.Context, s step) error {
	p.log.InfoContext(ctx, "membership", "change", s.what, "peer", s.name, "id", s.id)
	switch s.what {
	case stepAdd:
		return p.AddNonvoter(ctx, s.id, s.addr)
	case stepPromote:
		return p.Promote(ctx, s.id)
	case stepDemote:
		return p.Demote(ctx, s.id)
	default:
		return p.Remove(ctx, s.id)
	}
}
