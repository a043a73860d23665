package raftlb_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"srsx/cluster"
	"srsx/cluster/clustertest"
	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/lbtest"
	"srsx/lb/raftlb"
)

// realPeers are balancers over nodes that agree by Raft.
type realPeers struct {
	*clustertest.Cluster

	mu        sync.Mutex // guards balancers
	balancers map[string]*raftlb.Balancer
}

// startCluster runs n peers until the test ends.
func startCluster(t *testing.T, n int) *realPeers {
	t.Helper()
	r := &realPeers{balancers: make(map[string]*raftlb.Balancer)}
	r.Cluster = clustertest.Start(t, clustertest.Config{Voters: n, Tune: func(p *clustertest.Peer, c *cluster.Config) {
		b := raftlb.New(raftlb.Config{Holder: fsm.Holder{Peer: p.ID, Epoch: uint64(time.Now().UnixNano())}, LeaseTTL: 3 * time.Second})
		c.Observer, c.Answer, c.Witness = b, b.Answer, b.Witness
		c.OnLeadership = func(l cluster.Leadership) { b.Lead(l.Established) }
		r.mu.Lock()
		defer r.mu.Unlock()
		r.balancers[p.ID] = b
	}})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	for _, p := range r.Peers() {
		running.Go(func() { r.of(p).Run(ctx, p.Node) })
	}
	for _, p := range r.Peers() {
		r.awaitReady(t, p)
	}
	return r
}

func (r *realPeers) of(p *clustertest.Peer) *raftlb.Balancer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.balancers[p.ID]
}

// awaitReady waits until the leader answers the peer.
func (r *realPeers) awaitReady(t *testing.T, p *clustertest.Peer) {
	t.Helper()
	eventually(t, "the leader answers", func() bool {
		_, err := p.Node.Ask(t.Context(), []byte("\x02{}"))
		return err == nil && r.of(p).Decisive() == nil
	})
}

func TestContractOverRaft(t *testing.T) {
	for _, role := range []string{"leader", "follower"} {
		t.Run(role, func(t *testing.T) {
			lbtest.Run(t, func(t *testing.T) lb.Balancer {
				t.Helper()
				c := startCluster(t, 3)
				if role == "leader" {
					return c.of(c.WaitLeader())
				}
				c.WaitLeader()
				return c.of(c.Followers()[0])
			})
		})
	}
}

func registerOrigins(t *testing.T, b *raftlb.Balancer, ids ...string) {
	t.Helper()
	for _, id := range ids {
		o, _ := lbtest.Origin(t, id)
		if err := b.Register(t.Context(), lb.Registration{Origin: o}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTwoPeersRaceForTenThousandStreams(t *testing.T) {
	c := startCluster(t, 3)
	followers := c.Followers()
	registerOrigins(t, c.of(followers[0]), "x", "y", "z")
	const streams, callers = 10_000, 64
	got := make([][]lb.OriginID, 2)
	var racing sync.WaitGroup
	for i, p := range followers[:2] {
		got[i] = make([]lb.OriginID, streams)
		for caller := range callers {
			racing.Go(func() {
				for n := caller; n < streams; n += callers {
					l, err := c.of(p).Acquire(t.Context(), want(fmt.Sprintf("s%d", n)))
					if err != nil {
						t.Errorf("Acquire: %v", err)
						return
					}
					got[i][n] = l.Origin.ID
				}
			})
		}
	}
	racing.Wait()
	if !slices.Equal(got[0], got[1]) {
		t.Error("two peers got different origins for a stream")
	}
	c.RequireSame()
}

func TestMinorityServesTheKnownAndRefusesTheNew(t *testing.T) {
	c := startCluster(t, 3)
	leader := c.WaitLeader()
	alone := c.Followers()[0]
	registerOrigins(t, c.of(leader), "x", "y")
	known, err := c.of(leader).Acquire(t.Context(), want("known"))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the placement reaches all", func() bool {
		_, _, ok := c.of(alone).Lookup(known.Placement.Stream)
		return ok
	})
	c.Partition(alone)
	if l, err := c.of(alone).Acquire(t.Context(), want("known")); err != nil || l.Origin.ID != known.Origin.ID {
		t.Errorf("Acquire of a known stream = %s, %v; want %s", l.Origin.ID, err, known.Origin.ID)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := c.of(alone).Acquire(ctx, want("new")); !errors.Is(err, lb.ErrUndecided) {
		t.Errorf("Acquire of a new stream = %v; want ErrUndecided", err)
	}
	c.Heal()
	eventually(t, "the majority knows who holds the stream", func() bool {
		p, _, _ := c.of(leader).Lookup(known.Placement.Stream)
		return len(p.Holders) == 2
	})
	if _, err := c.of(alone).Acquire(t.Context(), want("new")); err != nil {
		t.Errorf("Acquire after the split = %v", err)
	}
}

func TestNextLeaderDecides(t *testing.T) {
	c := startCluster(t, 3)
	leader := c.WaitLeader()
	registerOrigins(t, c.of(leader), "x", "y")
	var rest []*clustertest.Peer
	for _, p := range c.Peers() {
		if p != leader {
			rest = append(rest, p)
		}
	}
	c.Partition(leader)
	c.WaitLeader(rest...)
	for _, p := range rest {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if _, err := c.of(p).Acquire(ctx, want("new")); err != nil {
			t.Errorf("Acquire at the majority = %v", err)
		}
		cancel()
	}
}
