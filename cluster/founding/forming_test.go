package founding_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"srsx/cluster/founding"
	"srsx/cluster/gossip"
)

const patience = 60 * time.Second // of a forming that a loaded machine may delay

// node is a peer composed as the cluster composes it: gossip carries what is said
// about founding, and a log is a flag that outlives the node.
type node struct {
	cfg     gossip.Config
	file    string
	expect  int
	cluster *atomic.Pointer[string] // of its log
	gossip  *gossip.Gossip
	part    *founding.Participant
	stop    func()
}

func newNode(t *testing.T, name string, expect int) *node {
	t.Helper()
	return &node{
		cfg: gossip.Config{
			Meta: gossip.Meta{
				ID: uuid.NewString(), Name: name, Version: "1", Epoch: 1, Expect: uint16(expect),
				ClusterAddr: name + ".test:1", SystemAddr: name + ".test:2",
			},
			Label:  "srsx",
			Listen: "127.0.0.1:0",
			Rejoin: time.Second,
			Log:    slog.New(slog.DiscardHandler),
		},
		file:    filepath.Join(t.TempDir(), "promise"),
		expect:  expect,
		cluster: new(atomic.Pointer[string]),
	}
}

func (n *node) start(t *testing.T, seeds ...string) {
	t.Helper()
	n.cfg.Meta.Epoch++
	n.cfg.Seeds = seeds
	if c := n.cluster.Load(); c != nil {
		n.cfg.Meta.Cluster = *c
	}
	n.part = founding.NewParticipant(founding.Config{
		Self: founding.Peer{ID: n.cfg.Meta.ID, Name: n.cfg.Meta.Name, Expect: n.expect},
		File: n.file,
		View: n.view,
		Send: func(ctx context.Context, to string, b []byte) error { return n.gossip.Send(ctx, to, b) },
		Found: func(_ context.Context, p founding.Proposal) error {
			cluster := p.Cluster()
			n.cluster.Store(&cluster)
			return n.gossip.UpdateMeta(func(m *gossip.Meta) { m.Cluster = cluster })
		},
		Log: n.cfg.Log,
	})
	n.cfg.OnMessage = n.part.Deliver
	g, err := gossip.Open(t.Context(), n.cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.gossip = g
	n.cfg.Listen = g.Addr().String() // also after a restart
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = g.Serve(ctx) })
	tasks.Go(func() {
		if err := n.part.Serve(ctx); err != nil {
			t.Errorf("%s: %v", n.cfg.Meta.Name, err)
		}
	})
	n.stop = sync.OnceFunc(func() {
		cancel()
		tasks.Wait()
		_ = g.Close()
	})
	t.Cleanup(n.stop)
}

func (n *node) view() founding.View {
	v := founding.View{Member: n.cluster.Load() != nil}
	for _, m := range n.gossip.Members() {
		if m.ID != n.cfg.Meta.ID {
			v.Peers = append(v.Peers, founding.Peer{
				ID: m.ID, Name: m.Name, Present: m.State == gossip.Alive, Gone: m.State == gossip.Left,
				Cluster: m.Cluster, Expect: int(m.Expect), NonVoter: m.NonVoter,
			})
		}
	}
	return v
}

func (n *node) waitsToBeLetIn() bool {
	why, _ := n.part.Why()
	return strings.Contains(why, "waiting to be let into cluster")
}

func founders(nodes []*node) (found int) {
	for _, n := range nodes {
		if n.cluster.Load() != nil {
			found++
		}
	}
	return found
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func TestEqualPeersFormOneCluster(t *testing.T) {
	for _, c := range []struct{ peers, expect int }{{3, 3}, {4, 3}, {5, 3}} {
		t.Run(fmt.Sprintf("%d expect %d", c.peers, c.expect), func(t *testing.T) {
			nodes := make([]*node, c.peers)
			var seeds []string
			for i := range nodes {
				nodes[i] = newNode(t, fmt.Sprintf("n%d", i), c.expect)
			}
			for _, i := range rand.Perm(c.peers) {
				nodes[i].start(t, seeds...)
				seeds = append(seeds, nodes[i].gossip.Addr().String())
			}
			eventually(t, "a cluster is founded", func() bool { return founders(nodes) > 0 })
			eventually(t, "the others wait to be let in", func() bool {
				for _, n := range nodes {
					if n.cluster.Load() == nil && !n.waitsToBeLetIn() {
						return false
					}
				}
				return true
			})
			if got := founders(nodes); got != 1 {
				t.Errorf("%d peers founded a cluster; want 1", got)
			}
		})
	}
}

func TestRestartedPeersFoundNoSecondCluster(t *testing.T) {
	nodes := []*node{newNode(t, "n0", 3), newNode(t, "n1", 3), newNode(t, "n2", 3)}
	start := func() {
		var seeds []string
		for _, n := range nodes {
			n.start(t, seeds...)
			seeds = append(seeds, n.gossip.Addr().String())
		}
	}
	start()
	eventually(t, "a cluster is founded", func() bool { return founders(nodes) > 0 })
	for _, n := range nodes {
		n.stop()
	}
	start()
	eventually(t, "those who were not let in wait for it", func() bool {
		waiting := 0
		for _, n := range nodes {
			if n.waitsToBeLetIn() {
				waiting++
			}
		}
		return waiting == 2
	})
	if got := founders(nodes); got != 1 {
		t.Errorf("%d peers founded a cluster; want still 1", got)
	}
}
