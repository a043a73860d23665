package cluster_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"srsx/cluster"
	"srsx/cluster/clustertest"
	"srsx/fsm"
)

// Where something has to happen without waiting for a timeout, the timeouts are
// long, so that a slow machine is not taken for a peer that waits.
const (
	longMultiplier = 10
	longTimeout    = longMultiplier * heartbeat
)

func longTimeouts(_ *clustertest.Peer, c *cluster.Config) { c.Multiplier = longMultiplier }

func TestDeadProcessIsSucceededAtOnce(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: longTimeouts})
	propose(t, c.Leader(), putOrigin())
	var took []time.Duration
	for range 4 {
		leader, follower := c.Leader(), c.Followers()[0]
		began := time.Now()
		leader.Kill()
		repeat(t, follower, place(leader.ID+time.Now().String(), follower.ID))
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
		c.ElectAnew()
	}
	// One election may still fail: two that start at once, where a disk was slow.
	if slices.Sort(took); took[2] > longTimeout/2 {
		t.Errorf("the next proposal took %v; want them not to wait for a timeout", took)
	}
}

// repeat proposes until the outcome is known, as the caller of a lost leader does.
func repeat(t *testing.T, p *clustertest.Peer, command fsm.Command) {
	t.Helper()
	for {
		_, err := p.Node.Propose(soon(t), command)
		if err == nil {
			return
		}
		if !errors.Is(err, cluster.ErrUnknownOutcome) {
			t.Fatalf("Propose at %s: %v", p.ID, err)
		}
	}
}

func TestBrokenViewOfOnePeerDeposesNobody(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
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
	c := clustertest.Start(t, clustertest.Config{Voters: 5, Tune: longTimeouts})
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
	if took := time.Since(began); took > longTimeout/2 {
		t.Errorf("took %v; want less than a timeout", took)
	}
}
