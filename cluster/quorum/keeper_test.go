package quorum_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.uber.org/goleak"

	"srsx/cluster/quorum"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nothing is a state machine that holds none.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }
func (nothing) Persist(s raft.SnapshotSink) error   { return s.Close() }
func (nothing) Release()                            {}

// group is some Rafts in one process and what gossip would say of them.
type group struct {
	t  *testing.T
	mu sync.Mutex
	// guarded by mu
	rafts      map[raft.ServerID]*raft.Raft
	transports map[raft.ServerID]*raft.InmemTransport
	peers      map[raft.ServerID]quorum.Peer
	changed    chan struct{}
}

func newGroup(t *testing.T) *group {
	t.Helper()
	return &group{
		t: t, rafts: make(map[raft.ServerID]*raft.Raft), transports: make(map[raft.ServerID]*raft.InmemTransport),
		peers: make(map[raft.ServerID]quorum.Peer), changed: make(chan struct{}, 1),
	}
}

// start runs one more Raft, which founds the group when it is the first.
func (g *group) start(id raft.ServerID) {
	g.t.Helper()
	_, transport := raft.NewInmemTransport(address(string(id)))
	c := raft.DefaultConfig()
	c.LocalID = id
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 300*time.Millisecond, 300*time.Millisecond, 200*time.Millisecond
	c.CommitTimeout = 5 * time.Millisecond
	c.Logger = hclog.NewNullLogger()
	store := raft.NewInmemStore()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.rafts) == 0 {
		first := quorum.First([]quorum.Peer{{ID: id, Address: address(string(id))}}, quorum.Settings{})
		if err := raft.BootstrapCluster(c, store, store, raft.NewInmemSnapshotStore(), transport, first); err != nil {
			g.t.Fatal(err)
		}
	}
	r, err := raft.NewRaft(c, nothing{}, store, store, raft.NewInmemSnapshotStore(), transport)
	if err != nil {
		g.t.Fatal(err)
	}
	for other, t := range g.transports {
		t.Connect(transport.LocalAddr(), transport)
		transport.Connect(address(string(other)), t)
	}
	g.rafts[id], g.transports[id] = r, transport
	g.peers[id] = quorum.Peer{ID: id, Name: "n" + string(id), Address: address(string(id)), Alive: true, Commands: 1, Cluster: ourCluster}
	g.t.Cleanup(func() { g.stop(id) })
	g.kick()
}

func (g *group) stop(id raft.ServerID) {
	g.mu.Lock()
	r := g.rafts[id]
	delete(g.rafts, id)
	if t := g.transports[id]; t != nil {
		t.DisconnectAll()
	}
	for _, t := range g.transports {
		t.Disconnect(address(string(id)))
	}
	p := g.peers[id]
	p.Alive = false
	g.peers[id] = p
	g.mu.Unlock()
	if r != nil {
		_ = r.Shutdown().Error()
	}
	g.kick()
}

func (g *group) change(id raft.ServerID, change func(*quorum.Peer)) {
	g.mu.Lock()
	p := g.peers[id]
	change(&p)
	g.peers[id] = p
	g.mu.Unlock()
	g.kick()
}

func (g *group) kick() {
	select {
	case g.changed <- struct{}{}:
	default:
	}
}

func (g *group) all() (peers []quorum.Peer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.peers {
		peers = append(peers, p)
	}
	return peers
}

func (g *group) contacts(_ context.Context, c raft.Configuration) map[raft.ServerID]quorum.Contact {
	g.mu.Lock()
	defer g.mu.Unlock()
	contacts := make(map[raft.ServerID]quorum.Contact)
	for _, s := range c.Servers {
		if r := g.rafts[s.ID]; r != nil {
			contacts[s.ID] = quorum.Contact{Answered: true, Term: r.CurrentTerm(), LastIndex: r.LastIndex()}
		}
	}
	return contacts
}

// lead keeps the configuration by the first Raft until the test ends.
func (g *group) lead(id raft.ServerID) *quorum.Keeper {
	g.t.Helper()
	g.mu.Lock()
	r := g.rafts[id]
	g.mu.Unlock()
	g.eventually("a leader", func() bool { return r.State() == raft.Leader })
	k := quorum.NewKeeper(quorum.Config{
		Self: id, Raft: r, Answered: answered,
		Settings: quorum.Settings{Stabilization: 50 * time.Millisecond, ReplaceAfter: 500 * time.Millisecond},
		Cluster:  func() string { return ourCluster },
		Commands: func() uint16 { return 1 },
		Peers:    g.all,
		Contacts: g.contacts,
		Changed:  g.changed,
		Log:      slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() { _ = k.Serve(ctx) })
	g.t.Cleanup(func() { cancel(); serving.Wait() })
	return k
}

// is reports whether the configuration is these, as in scene: id, then V or R.
func (g *group) is(words ...string) func() bool {
	return func() bool {
		future := g.rafts["a"].GetConfiguration()
		if future.Error() != nil {
			return false
		}
		var got []string
		for _, s := range future.Configuration().Servers {
			mark := "R"
			if s.Suffrage == raft.Voter {
				mark = "V"
			}
			got = append(got, string(s.ID)+mark)
		}
		slices.Sort(got)
		return slices.Equal(got, words)
	}
}

func (g *group) eventually(what string, condition func() bool) {
	g.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatalf("not within 30 s: %s; %+v", what, g.rafts["a"].GetConfiguration().Configuration())
		}
	}
}

func TestKeeperGrowsAndMendsARealRaft(t *testing.T) {
	g := newGroup(t)
	g.start("a")
	g.lead("a")
	for _, id := range []raft.ServerID{"b", "c", "d"} {
		g.start(id)
	}
	g.eventually("three of four vote", func() bool {
		for _, replica := range []string{"b", "c", "d"} {
			words := []string{"aV"}
			for _, id := range []string{"b", "c", "d"} {
				if id == replica {
					words = append(words, id+"R")
				} else {
					words = append(words, id+"V")
				}
			}
			if g.is(words...)() {
				return true
			}
		}
		return false
	})
	voter, replica := raft.ServerID("b"), raft.ServerID("d")
	for _, s := range g.rafts["a"].GetConfiguration().Configuration().Servers {
		switch {
		case s.ID == "a":
		case s.Suffrage == raft.Voter:
			voter = s.ID
		default:
			replica = s.ID
		}
	}
	g.stop(voter)
	g.eventually(fmt.Sprintf("%s votes in the place of %s", replica, voter), func() bool {
		c := g.rafts["a"].GetConfiguration().Configuration()
		return slices.Contains(c.Servers, raft.Server{ID: replica, Address: address(string(replica)), Suffrage: raft.Voter}) &&
			slices.Contains(c.Servers, raft.Server{ID: voter, Address: address(string(voter)), Suffrage: raft.Nonvoter})
	})
	g.change(voter, func(p *quorum.Peer) { p.Left = true })
	g.eventually("who left is gone", func() bool {
		c := g.rafts["a"].GetConfiguration().Configuration()
		return len(c.Servers) == 3
	})
	g.change(replica, func(p *quorum.Peer) { p.Address = "moved.test:1" })
	g.eventually("an address is taken over, and the vote kept", func() bool {
		c := g.rafts["a"].GetConfiguration().Configuration()
		return slices.Contains(c.Servers, raft.Server{ID: replica, Address: "moved.test:1", Suffrage: raft.Voter})
	})
}

func TestOperatorRemovesWhomTheMajorityDoesNotNeed(t *testing.T) {
	g := newGroup(t)
	g.start("a")
	k := g.lead("a")
	for _, id := range []raft.ServerID{"b", "c"} {
		g.start(id)
	}
	g.eventually("three vote", g.is("aV", "bV", "cV"))
	g.stop("c")
	declare := func(id raft.ServerID) func(context.Context) {
		return func(context.Context) { // else gossip brings it back
			g.change(id, func(p *quorum.Peer) { p.Left = true })
		}
	}
	for what, err := range map[string]error{
		"MayLeave": k.MayLeave(t.Context(), "b"), "Remove": k.Remove(t.Context(), "b", declare("b")),
	} {
		if !isNeeded(err) || !strings.Contains(err.Error(), "nc away") {
			t.Errorf("%s of one that is needed = %v; want a NeededError that says who is away", what, err)
		}
	}
	if peers := g.all(); slices.ContainsFunc(peers, func(p quorum.Peer) bool { return p.Left }) {
		t.Errorf("after a refusal gossip shows %+v; want nobody gone", peers)
	}
	if err := k.Remove(t.Context(), "c", declare("c")); err != nil {
		t.Errorf("Remove of the one that is away = %v", err)
	}
	if !g.is("aV", "bV")() {
		t.Error("it is still there when Remove returns")
	}
	if err := k.Remove(t.Context(), "c", declare("c")); err != nil {
		t.Errorf("Remove once more = %v; want nothing to do", err)
	}
}

func isNeeded(err error) bool {
	var needed *quorum.NeededError
	return errors.As(err, &needed)
}

func TestOnlyVoterGetsASuccessorWhenItLeaves(t *testing.T) {
	g := newGroup(t)
	g.start("a")
	k := g.lead("a")
	g.start("b")
	g.eventually("b is a replica", g.is("aV", "bR"))
	if err := k.MayLeave(t.Context(), "a"); !isNeeded(err) {
		t.Errorf("MayLeave of the only voter = %v; want a NeededError", err)
	}
	g.change("a", func(p *quorum.Peer) { p.Leaving = true })
	g.eventually("b votes, too", g.is("aV", "bV"))
	if err := k.MayLeave(t.Context(), "a"); err != nil {
		t.Errorf("MayLeave of one of two that work = %v", err)
	}
}

// answered is what a node does.
func answered(ctx context.Context, ask func() raft.Future) error {
	answer := make(chan error, 1)
	go func() { answer <- ask().Error() }()
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hungRaft answers nothing, as Raft does while its disk hangs.
type hungRaft struct {
	quorum.Raft
	hang chan struct{}
}

func (r hungRaft) GetConfiguration() raft.ConfigurationFuture { return hungAnswer{hang: r.hang} }

type hungAnswer struct {
	raft.ConfigurationFuture
	hang chan struct{}
}

func (a hungAnswer) Error() error { <-a.hang; return raft.ErrRaftShutdown }

func TestKeeperEndsThoughRaftHangs(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	k := quorum.NewKeeper(quorum.Config{Raft: hungRaft{hang: hang}, Answered: answered, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { _ = k.Serve(ctx); close(ended) }()
	cancel()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("Serve goes on after its context has ended")
	}
}
