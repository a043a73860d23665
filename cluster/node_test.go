package cluster_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"srsx/cluster/clustertest"
	"srsx/fsm"
)

const origin = fsm.OriginID("origin-1")

func incarnation() fsm.Incarnation {
	return fsm.Incarnation{Server: string(origin), Service: "service", PID: "1"}
}

func putOrigin() fsm.Command {
	return fsm.PutOrigin{Origin: fsm.Origin{ID: origin, Incarnation: incarnation(), IP: "10.0.0.1", Weight: 100}}
}

func stream(i int) fsm.Stream {
	return fsm.Stream{VHost: fsm.DefaultVHost, App: "live", Name: fmt.Sprintf("stream-%d", i)}
}

func place(i int, peer string) fsm.Command {
	return fsm.Place{
		Stream: stream(i), Origin: origin, Incarnation: incarnation(), Publish: true,
		Holder: fsm.Holder{Peer: peer, Epoch: 1},
	}
}

func propose(t *testing.T, p *clustertest.Peer, commands ...fsm.Command) []fsm.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
	defer cancel()
	results, err := p.Node.Propose(ctx, commands...)
	if err != nil {
		t.Fatalf("Propose at %s: %v", p.ID, err)
	}
	for i, r := range results {
		if r.Err != nil {
			t.Fatalf("Propose at %s: command %d: %v", p.ID, i, r.Err)
		}
	}
	return results
}

func placed(p *clustertest.Peer, i int) bool {
	ok := false
	p.Node.View(func(s *fsm.State) { _, ok = s.Placement(stream(i)) })
	return ok
}

func TestThreePeersAgreeAndComeBack(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Verbose: true})
	leader := c.WaitLeader()
	propose(t, leader, putOrigin())
	for i, p := range c.Peers() {
		if r := propose(t, p, place(i, p.ID)); !r[0].Created {
			t.Errorf("Place at %s = %+v; want it created", p.ID, r[0])
		}
		if !placed(p, i) {
			t.Errorf("%s does not know its own placement", p.ID)
		}
	}
	c.RequireSame()
	before := leader.State()
	for _, p := range c.Peers() {
		p.Stop()
	}
	for i := range 3 {
		c.Peer(i).Start()
	}
	c.WaitLeader()
	c.Eventually("know all placements", func() bool {
		for _, p := range c.Peers() {
			if p.State() != before {
				return false
			}
		}
		return true
	})
	start := time.Now()
	propose(t, c.Followers()[0], place(9, "x"))
	t.Log("follower", time.Since(start))
	c.RequireSame()
}
