package cluster_test

import (
	"slices"
	"testing"
	"time"

	"srsx/cluster"
	"srsx/cluster/clustertest"
)

// impatient sets the timeouts to what they are in a cluster by default.
func impatient(_ *clustertest.Peer, c *cluster.Config) { c.Multiplier = 1 }

func TestDeadProcessIsSucceededAtOnce(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: impatient})
	propose(t, c.Leader(), putOrigin())
	var took []time.Duration
	for range 4 {
		leader, follower := c.Leader(), c.Followers()[0]
		began := time.Now()
		leader.Kill()
		propose(t, follower, place(leader.ID+time.Now().String(), follower.ID))
		took = append(took, time.Since(began))
		leader.Start()
		c.WaitLeader()
		// Each peer has one such election in 10 s, unless it starts anew.
		for _, p := range c.Followers() {
			p.Stop()
			p.Start()
		}
		c.WaitLeader().Stop()
		for i := range 3 {
			if p := c.Peer(i); p.Node == nil {
				p.Start()
			}
		}
		c.WaitLeader()
	}
	slices.Sort(took)
	if took[1] > heartbeat {
		t.Errorf("the next proposal took %v; want most without waiting for a heartbeat", took)
	}
	t.Log(took)
}

func TestBrokenViewOfOnePeerDeposesNobody(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: impatient})
	propose(t, c.Leader(), putOrigin())
	leader, term := c.Leader(), c.Leader().Node.Status().Term
	c.Reset(c.Followers()[0], leader)
	for began := time.Now(); time.Since(began) < 2*heartbeat; {
		propose(t, leader, place(time.Now().String(), leader.ID))
	}
	if s := leader.Node.Status(); s.Term != term || !s.Established {
		t.Errorf("the leader is %+v; want it to lead as before, in term %d", s, term)
	}
}

func TestMajoritysViewDeposes(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 5, Tune: impatient})
	leader := c.Leader()
	for _, p := range c.Followers()[:2] {
		c.Reset(p, leader)
	}
	// Two of five are not enough, whatever the others do meanwhile.
	propose(t, leader, putOrigin())
	if s := leader.Node.Status(); !s.Established {
		t.Errorf("two of five deposed the leader: %+v", s)
	}
	began := time.Now()
	for _, p := range c.Followers() {
		c.Reset(p, leader)
	}
	c.Eventually("elect another", func() bool { l := c.Leader(); return l != nil && l != leader })
	if took := time.Since(began); took > heartbeat {
		t.Errorf("took %v; want less than a heartbeat's timeout", took)
	}
}
