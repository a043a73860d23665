package peer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"srsx/cluster"
	"srsx/fsm"
	"srsx/test/proxytest"
)

// TestMain sees to it that peers that have ended leave nothing behind. memberlist
// ends its probes by their own timers, which takes seconds after Shutdown, and raft
// does not answer who asked it while it shut down.
func TestMain(m *testing.M) {
	code := m.Run()
	unanswered := goleak.IgnoreAnyFunction("github.com/hashicorp/raft.(*deferError).Error")
	deadline := time.Now().Add(20 * time.Second)
	err := goleak.Find(unanswered)
	for err != nil && time.Now().Before(deadline) {
		err = goleak.Find(unanswered)
	}
	if err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// running is a peer that serves until the test ends, or it is ended before.
type running struct {
	*Peer

	log    *proxytest.Log
	dir    *cluster.DataDir
	stop   context.CancelFunc
	ended  chan error // takes what Serve returns
	served error      // which it was
	over   bool
}

// start runs a peer on loopback, on free ports, in a folder of its own unless
// change says otherwise.
func start(t *testing.T, name string, change func(*Config)) *running {
	t.Helper()
	log := &proxytest.Log{}
	config := Config{
		Name: name, ClusterName: "test", Version: "v", Epoch: uint64(time.Now().UnixMilli()),
		Listen: "127.0.0.1:0", GossipListen: "127.0.0.1:0", Advertise: "127.0.0.1", SystemAddr: "127.0.0.1:1", Multiplier: 2,
		Log: slog.New(slog.NewTextHandler(log, nil)),
	}
	if change != nil {
		change(&config)
	}
	if config.Dir == nil {
		config.Dir = dataDir(t, t.TempDir())
	}
	p, err := Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &running{Peer: p, log: log, dir: config.Dir, stop: cancel, ended: make(chan error, 1)}
	go func() { r.ended <- p.Serve(ctx) }()
	t.Cleanup(func() {
		r.kill(t)
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, log)
		}
	})
	return r
}

func dataDir(t *testing.T, path string) *cluster.DataDir {
	t.Helper()
	dir, err := cluster.OpenDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// kill ends a peer without a word to the others.
func (r *running) kill(t *testing.T) {
	t.Helper()
	r.end(t, r.Close)
}

// shutDown ends a peer that stays a member.
func (r *running) shutDown(t *testing.T) {
	t.Helper()
	r.end(t, func() error { return r.Shutdown(context.WithoutCancel(t.Context())) })
}

func (r *running) end(t *testing.T, how func() error) {
	t.Helper()
	if r.over {
		return
	}
	r.over = true
	if err := how(); err != nil {
		t.Errorf("end %s: %v", r.config.Name, err)
	}
	r.stop()
	select {
	case r.served = <-r.ended:
	case <-time.After(proxytest.Patience):
		t.Errorf("%s serves on", r.config.Name)
	}
	_ = r.dir.Close()
}

// near makes a peer look for another one.
func near(other *running) func(*Config) {
	return func(c *Config) { c.RetryJoin = []string{other.gossip.Addr().String()} }
}

// founders starts three peers that found a cluster.
func founders(t *testing.T) []*running {
	t.Helper()
	peers := []*running{start(t, "a", func(c *Config) { c.Expect = 3 })}
	for _, name := range []string{"b", "c"} {
		peers = append(peers, start(t, name, func(c *Config) {
			c.Expect = 3
			near(peers[0])(c)
		}))
	}
	for _, p := range peers {
		eventually(t, p.config.Name+" knows a, b and c vote", p.votes("a", "b", "c"))
		eventually(t, p.config.Name+" knows the cluster's name", func() bool { return p.clusterID() != "" })
	}
	return peers
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	proxytest.Eventually(t, what, holds)
}

// votes returns a condition: these are the voters, as the peer knows.
func (r *running) votes(names ...string) func() bool {
	slices.Sort(names)
	return func() bool { return slices.Equal(r.seats(func(s cluster.Server) bool { return s.Voter }), names) }
}

// replicas returns a condition: these are the members that do not vote.
func (r *running) replicas(names ...string) func() bool {
	slices.Sort(names)
	return func() bool { return slices.Equal(r.seats(func(s cluster.Server) bool { return !s.Voter }), names) }
}

// seats returns the names of members, sorted.
func (r *running) seats(which func(cluster.Server) bool) (names []string) {
	for _, s := range r.Servers() {
		if which(s) {
			names = append(names, r.NameOf(s.ID))
		}
	}
	slices.Sort(names)
	return names
}

// says returns a condition: a line of the log has all texts.
func (r *running) says(texts ...string) func() bool {
	return func() bool { return len(r.log.Lines(texts...)) > 0 }
}

// leader returns the peer that leads, and the others.
func leader(t *testing.T, peers ...*running) (leads *running, others []*running) {
	t.Helper()
	eventually(t, "one leads", func() bool {
		leads, others = nil, nil
		for _, p := range peers {
			if p.keeper.Load() != nil {
				leads = p
			} else {
				others = append(others, p)
			}
		}
		return leads != nil && len(others) == len(peers)-1
	})
	return leads, others
}

func stream(name string) fsm.Stream {
	return fsm.Stream{VHost: fsm.DefaultVHost, App: "live", Name: name}
}

// knows reports whether a stream is placed, as the peer knows.
func (r *running) knows(name string) (placed bool) {
	r.View(func(s *fsm.State) { _, placed = s.Placement(stream(name)) })
	return placed
}

// place puts a stream on an origin.
func place(t *testing.T, p *running, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), proxytest.Patience)
	defer cancel()
	incarnation := fsm.Incarnation{Server: "s", Service: "1"}
	_, err := p.Propose(ctx,
		fsm.PutOrigin{Origin: fsm.Origin{ID: "o", Incarnation: incarnation, IP: "10.0.0.1", Weight: 100}},
		fsm.Place{
			Stream: stream(name), Origin: "o", Incarnation: incarnation,
			Publish: true, Holder: fsm.Holder{Peer: p.id, Epoch: 1},
		})
	if err != nil {
		t.Fatalf("place %s at %s: %v", name, p.config.Name, err)
	}
}

func requireIs(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s = %v; want %v", what, err, want)
	}
}
