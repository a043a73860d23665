package peer

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"srsx/cluster"
	"srsx/cluster/quorum"
)

func requireNeeded(t *testing.T, what string, err error) {
	t.Helper()
	if needed := (*quorum.NeededError)(nil); !errors.As(err, &needed) || !strings.Contains(needed.Reason, "no majority") {
		t.Errorf("%s = %v; want a NeededError that says why", what, err)
	}
}

// A fourth peer is a replica, votes when a voter has left, and the one that leaves
// is not let in again, whoever of them leads.
func TestReplicaVotesInThePlaceOfOneThatLeaves(t *testing.T) {
	peers := founders(t)
	leads, others := leader(t, peers...)
	d := start(t, "d", func(c *Config) { c.Join = []string{others[0].gossip.Addr().String()} })
	for _, p := range append(peers, d) {
		eventually(t, "d is a replica, as "+p.config.Name+" knows", p.replicas("d"))
	}
	place(t, d, "one")
	stays := others[1].config.Name
	for _, step := range []struct {
		goes   *running
		voters []string // then
	}{
		{others[0], []string{leads.config.Name, stays, "d"}},
		{leads, []string{stays, "d"}},
	} {
		if err := step.goes.Leave(t.Context()); err != nil {
			t.Fatalf("Leave of %s = %v", step.goes.config.Name, err)
		}
		select {
		case <-step.goes.Left():
		default:
			t.Errorf("%s has left, and Left is open", step.goes.config.Name)
		}
		eventually(t, step.goes.config.Name+" is out and d votes", d.votes(step.voters...))
		step.goes.shutDown(t)
	}
	place(t, d, "two")
}

func TestPeerThatIsNeededStays(t *testing.T) {
	leads, others := leader(t, founders(t)...)
	others[0].kill(t)
	for _, p := range []*running{leads, others[1]} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		requireNeeded(t, "Leave of "+p.config.Name, p.Leave(ctx))
		cancel()
		eventually(t, "gossip has taken back that it leaves", func() bool { return !leavingAt(leads, p.id) })
	}
	requireNeeded(t, "ForceLeave of one that lives", leads.ForceLeave(t.Context(), others[1].config.Name))
	requireNeeded(t, "ForceLeave at a follower", others[1].ForceLeave(t.Context(), leads.config.Name))
	place(t, others[1], "s")
}

func leavingAt(p *running, id string) bool {
	for _, m := range p.gossip.Members() {
		if m.ID == id {
			return m.Leaving
		}
	}
	return false
}

func TestDeadPeerIsTakenOutAtAnyPeer(t *testing.T) {
	leads, others := leader(t, founders(t)...)
	follower, dead := others[0], others[1]
	requireIs(t, "ForceLeave of itself", follower.ForceLeave(t.Context(), follower.config.Name), ErrItself)
	requireIs(t, "ForceLeave of nobody", follower.ForceLeave(t.Context(), "nobody"), cluster.ErrUnknownMember)
	requireIs(t, "Remove of nobody", leads.Remove(t.Context(), "nobody"), cluster.ErrUnknownMember)
	dead.kill(t)
	if err := follower.ForceLeave(t.Context(), dead.config.Name); err != nil {
		t.Fatalf("ForceLeave of a dead peer = %v", err)
	}
	for _, p := range []*running{leads, follower} {
		eventually(t, "the dead one is out", p.votes(leads.config.Name, follower.config.Name))
	}
	// Of two that live one may go, the leader too, and stays out while it runs.
	if err := follower.Remove(t.Context(), leads.id); err != nil {
		t.Fatalf("Remove of the leader = %v", err)
	}
	place(t, follower, "s")
	eventually(t, "one is left", follower.votes(follower.config.Name))
	if !follower.replicas()() {
		t.Errorf("servers = %v; want the one alone", follower.Servers())
	}
}

func TestLastMemberMayLeave(t *testing.T) {
	p := start(t, "a", func(c *Config) { c.Expect = 1 })
	eventually(t, "it votes", p.votes("a"))
	if err := p.Leave(t.Context()); err != nil {
		t.Errorf("Leave of the last member = %v", err)
	}
	select {
	case <-p.Left():
	default:
		t.Error("Left is open")
	}
}

func TestLeaveWithoutALeaderSaysWhatToDo(t *testing.T) {
	leads, others := leader(t, founders(t)...)
	leads.kill(t)
	others[0].kill(t)
	eventually(t, "nobody leads", func() bool { return others[1].Status().Leader == "" })
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := others[1].Leave(ctx)
	requireIs(t, "Leave", err, cluster.ErrNoLeader)
	if err == nil || !strings.Contains(err.Error(), "force-leave") {
		t.Errorf("Leave = %v; want what to do instead", err)
	}
	if leavingAt(others[1], others[1].id) {
		t.Error("it is still about to leave")
	}
}
