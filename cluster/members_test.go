package cluster_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"srsx/cluster"
	"srsx/cluster/clustertest"
)

func serverOf(p *clustertest.Peer, id string) (cluster.Server, bool) {
	servers := p.Node.Servers()
	i := slices.IndexFunc(servers, func(s cluster.Server) bool { return s.ID == id })
	if i < 0 {
		return cluster.Server{}, false
	}
	return servers[i], true
}

func TestPeerJoinsIsPromotedAndLeaves(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	names := placeMany(t, c.Leader(), "before", 10)
	caller := c.Followers()[0]
	joiner := c.NewPeer()
	if has, err := joiner.Node.HasState(); has || err != nil {
		t.Errorf("HasState of a new peer = %t, %v; want false", has, err)
	}
	if err := caller.Node.AddNonvoter(soon(t), joiner.ID, joiner.ID); err != nil {
		t.Fatal(err)
	}
	c.WaitLeader()
	c.RequireSame()
	if s, ok := serverOf(joiner, joiner.ID); !ok || s.Voter {
		t.Errorf("the joiner is %+v, %t; want a replica", s, ok)
	}
	if got := known(joiner, names...); got != len(names) {
		t.Errorf("the joiner knows %d of %d", got, len(names))
	}
	for _, step := range []struct {
		do    func() error
		voter bool
	}{
		{func() error { return caller.Node.Promote(soon(t), joiner.ID) }, true},
		{func() error { return caller.Node.Promote(soon(t), joiner.ID) }, true},
		{func() error { return caller.Node.AddNonvoter(soon(t), joiner.ID, "elsewhere") }, true},
		{func() error { return caller.Node.AddNonvoter(soon(t), joiner.ID, joiner.ID) }, true},
		{func() error { return caller.Node.Demote(soon(t), joiner.ID) }, false},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		if s, ok := serverOf(c.Leader(), joiner.ID); !ok || s.Voter != step.voter {
			t.Errorf("the joiner is %+v, %t; want voter %t", s, ok, step.voter)
		}
	}
	if err := caller.Node.Remove(soon(t), joiner.ID); err != nil {
		t.Fatal(err)
	}
	if _, ok := serverOf(c.Leader(), joiner.ID); ok {
		t.Error("the peer is still a member")
	}
	if err := caller.Node.Remove(soon(t), joiner.ID); !errors.Is(err, cluster.ErrUnknownMember) {
		t.Errorf("Remove of a stranger = %v; want ErrUnknownMember", err)
	}
	self := []cluster.Server{{ID: caller.ID, Addr: caller.ID, Voter: true}}
	if err := caller.Node.Bootstrap(soon(t), self); !errors.Is(err, cluster.ErrHasState) {
		t.Errorf("Bootstrap over a cluster = %v; want ErrHasState", err)
	}
}

func TestLeaderRemovesItself(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	old := c.Leader()
	if err := old.Node.Remove(soon(t), old.ID); err != nil {
		t.Fatal(err)
	}
	c.Eventually("elect another", func() bool { l := c.Leader(); return l != nil && l != old })
	propose(t, c.Leader(), place("after", "peer"))
	if known(old, "after") != 0 {
		t.Error("a removed peer is told of new placements")
	}
}

func TestLeadershipMovesToAFreshPeerOnly(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Replicas: 1})
	propose(t, c.Leader(), putOrigin())
	old, to := c.Leader(), c.Followers()[0]
	if to.ID == c.Peer(3).ID {
		to = c.Followers()[1]
	}
	term := old.Node.Status().Term
	if err := old.Node.TransferLeadership(soon(t), c.Peer(3).ID); !errors.Is(err, cluster.ErrNotFresh) {
		t.Errorf("TransferLeadership to a replica = %v; want ErrNotFresh", err)
	}
	if err := old.Node.TransferLeadership(soon(t), "nobody"); !errors.Is(err, cluster.ErrUnknownMember) {
		t.Errorf("TransferLeadership to a stranger = %v; want ErrUnknownMember", err)
	}
	to.Kill()
	if err := old.Node.TransferLeadership(soon(t), to.ID); !errors.Is(err, cluster.ErrNotFresh) {
		t.Errorf("TransferLeadership to a dead peer = %v; want ErrNotFresh", err)
	}
	if s := old.Node.Status(); s.Term != term || !s.Established {
		t.Errorf("refused transfers left %+v; want term %d", s, term)
	}
	propose(t, old, place("meanwhile", old.ID))
	to.Start()
	c.WaitLeader()
	c.RequireSame()
	if err := c.Peer(3).Node.TransferLeadership(soon(t), to.ID); err != nil {
		t.Fatal(err)
	}
	if leader := c.WaitLeader(); leader != to {
		t.Errorf("leader = %s; want %s", leader.ID, to.ID)
	}
}

func TestShutdownHandsOver(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: func(p *clustertest.Peer, c *cluster.Config) {
		longTimeouts(p, c)
		c.Processes = nil // nobody sees that the leader is gone
	}})
	propose(t, c.Leader(), putOrigin())
	old, follower := c.Leader(), c.Followers()[0]
	began := time.Now()
	old.Stop()
	propose(t, follower, place("after", follower.ID))
	if took := time.Since(began); took > longTimeout/2 {
		t.Errorf("the next proposal took %v; want less than it takes to miss a leader", took)
	}
	if _, ok := serverOf(follower, old.ID); !ok {
		t.Error("a stopped peer is not a member any more")
	}
}

func TestChurn(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 5})
	propose(t, c.Leader(), putOrigin())
	var acked []string
	for round := range 4 {
		steady := c.Followers()[0]
		l := startLoad(t, steady, 4)
		leaver := c.Leader()
		joiner := c.NewPeer()
		if err := steady.Node.AddNonvoter(soon(t), joiner.ID, joiner.ID); err != nil {
			t.Fatal(err)
		}
		if err := steady.Node.Promote(soon(t), joiner.ID); err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 {
			leaver.Kill()
		}
		remove(t, c, steady, leaver.ID)
		if leaver.Node != nil {
			leaver.Stop()
		}
		grow(c, []*load{l})
		l.end()
		l.requireOnly(t, "unknown", "refused")
		acked = append(acked, l.acked...)
		c.WaitLeader()
		c.RequireSame()
	}
	for _, p := range c.Peers() {
		if got := known(p, acked...); got != len(acked) {
			t.Errorf("%s knows %d of %d acknowledged placements", p.ID, got, len(acked))
		}
		if s := p.Node.Servers(); len(s) != 5 {
			t.Errorf("%s knows members %v; want five", p.ID, s)
		}
	}
	for _, p := range c.Peers()[:2] {
		p.Kill()
	}
	propose(t, c.Followers()[0], place(fmt.Sprint("quorum of ", len(acked)), "peer"))
}

// remove repeats what has an unknown outcome, as its caller would.
func remove(t *testing.T, c *clustertest.Cluster, by *clustertest.Peer, id string) {
	t.Helper()
	c.Eventually("remove "+id, func() bool {
		err := by.Node.Remove(soon(t), id)
		if err != nil && !errors.Is(err, cluster.ErrUnknownOutcome) && !errors.Is(err, cluster.ErrUnknownMember) {
			t.Fatal(err)
		}
		_, ok := serverOf(by, id)
		return !ok
	})
}
