package cluster_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"srsx/cluster"
	"srsx/cluster/clustertest"
)

// witnesses are what each peer says to a question, and who has asked.
type witnesses struct {
	mu  sync.Mutex
	yes map[string]bool
	got map[string]string // question and asker
}

func (w *witnesses) tune(p *clustertest.Peer, c *cluster.Config) {
	id := p.ID
	c.Witness = func(_ context.Context, from string, question []byte) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.got[id] = string(question) + " from " + from
		return w.yes[id]
	}
}

func (w *witnesses) say(yes ...*clustertest.Peer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.yes)
	for _, p := range yes {
		w.yes[p.ID] = true
	}
}

func TestMajorityIsThatOfTheVoters(t *testing.T) {
	w := &witnesses{yes: make(map[string]bool), got: make(map[string]string)}
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Replicas: 2, Tune: w.tune})
	voters, replicas := []*clustertest.Peer{c.Peer(0), c.Peer(1), c.Peer(2)}, []*clustertest.Peer{c.Peer(3), c.Peer(4)}
	for _, p := range c.Peers() {
		c.Eventually("know the members", func() bool { return len(p.Node.Servers()) == len(c.Peers()) })
	}
	ask := func(p *clustertest.Peer) error { return p.Node.Majority(soon(t), []byte("well?")) }
	for _, asker := range []*clustertest.Peer{voters[0], voters[1], replicas[0]} {
		w.say(voters[0], voters[2])
		if err := ask(asker); err != nil {
			t.Errorf("Majority by %s with two of three = %v; want nil", asker.ID, err)
		}
		w.say(voters[1], replicas[0], replicas[1])
		if err := ask(asker); !errors.Is(err, cluster.ErrNoMajority) {
			t.Errorf("Majority by %s with one voter and two replicas = %v; want ErrNoMajority", asker.ID, err)
		}
	}
	w.say(voters[1:]...) // so that both have to be asked
	if err := ask(voters[0]); err != nil {
		t.Errorf("Majority = %v; want nil", err)
	}
	w.mu.Lock()
	if got, want := w.got[voters[1].ID], "well? from "+voters[0].ID; got != want {
		t.Errorf("a voter was asked %q; want %q", got, want)
	}
	w.mu.Unlock()
	c.Partition(voters[0])
	ctx, cancel := contextFor(t, 200*time.Millisecond)
	defer cancel()
	if err := voters[0].Node.Majority(ctx, nil); !errors.Is(err, cluster.ErrNoMajority) {
		t.Errorf("Majority by a peer cut off = %v; want ErrNoMajority", err)
	}
	if err := ask(voters[1]); err != nil {
		t.Errorf("Majority of the rest = %v; want nil", err)
	}
}

func TestPeerWithoutWitnessSaysNo(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 1})
	if err := c.Leader().Node.Majority(soon(t), nil); !errors.Is(err, cluster.ErrNoMajority) {
		t.Errorf("Majority = %v; want ErrNoMajority", err)
	}
}
