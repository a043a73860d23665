package cluster_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"srsx/cluster"
	"srsx/cluster/clustertest"
	"srsx/fsm"
)

// ledger is an observer that counts what it is told.
type ledger struct {
	mu     sync.Mutex
	index  uint64
	wrong  []string
	placed map[string]int
}

func (l *ledger) Applied(state *fsm.State, _ time.Time, results []fsm.Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if state.Index() <= l.index {
		l.wrong = append(l.wrong, fmt.Sprintf("entry %d after %d", state.Index(), l.index))
	}
	l.index = state.Index()
	for _, r := range results {
		for _, c := range r.Changes {
			if c.Kind == fsm.Placed {
				l.placed[c.Stream.Name]++
			}
		}
	}
}

func (l *ledger) Restored(state *fsm.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.index = state.Index()
	clear(l.placed)
	for p := range state.Placements() {
		l.placed[p.Stream.Name] = 1
	}
}

// ledgers gives each peer one.
func ledgers() (byPeer func(id string) *ledger, tune func(*clustertest.Peer, *cluster.Config)) {
	var mu sync.Mutex
	all := make(map[string]*ledger)
	byPeer = func(id string) *ledger {
		mu.Lock()
		defer mu.Unlock()
		if all[id] == nil {
			all[id] = &ledger{placed: make(map[string]int)}
		}
		return all[id]
	}
	return byPeer, func(p *clustertest.Peer, c *cluster.Config) { c.Observer = byPeer(p.ID) }
}

func TestConcurrentProposalsAreAppliedOnceEverywhere(t *testing.T) {
	ledgerOf, tune := ledgers()
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Replicas: 1, Tune: tune})
	propose(t, c.Leader(), putOrigin())
	const callers, each = 8, 50
	var running sync.WaitGroup
	for _, p := range c.Peers() {
		for caller := range callers {
			running.Go(func() {
				for i := range each {
					name := fmt.Sprintf("%s-%d-%d", p.ID, caller, i)
					results, err := p.Node.Propose(t.Context(), place(name, p.ID))
					if err != nil || !results[0].Created || results[0].Placement.Stream.Name != name {
						t.Errorf("Propose(%s) at %s = %+v, %v; want it created", name, p.ID, results, err)
					}
					if known(p, name) != 1 {
						t.Errorf("%s was acknowledged at %s before it was applied there", name, p.ID)
					}
				}
			})
		}
	}
	running.Wait()
	c.RequireSame()
	for _, p := range c.Peers() {
		l := ledgerOf(p.ID)
		if len(l.wrong) > 0 {
			t.Errorf("%s was told %v", p.ID, l.wrong)
		}
		if want := callers * each * len(c.Peers()); len(l.placed) != want {
			t.Errorf("%s was told of %d placements; want %d", p.ID, len(l.placed), want)
		}
		for name, times := range l.placed {
			if times != 1 {
				t.Errorf("%s was told %d times of %s", p.ID, times, name)
			}
		}
	}
}

func TestRacingPlacementsHaveOneWinner(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	const streams = 100
	var mu sync.Mutex
	winners := make(map[string]int)
	generations := make(map[string][]uint64)
	var running sync.WaitGroup
	for _, p := range c.Peers() {
		running.Go(func() {
			for i := range streams {
				name := fmt.Sprintf("contested-%d", i)
				results, err := p.Node.Propose(t.Context(), place(name, p.ID))
				if err != nil || results[0].Err != nil {
					t.Errorf("Propose at %s = %+v, %v", p.ID, results, err)
					return
				}
				mu.Lock()
				if results[0].Created {
					winners[name]++
				}
				generations[name] = append(generations[name], results[0].Placement.Generation)
				mu.Unlock()
			}
		})
	}
	running.Wait()
	for name, g := range generations {
		if winners[name] != 1 || len(slices.Compact(g)) != 1 {
			t.Errorf("%s has %d winners and generations %v; want one", name, winners[name], g)
		}
	}
	c.RequireSame()
}

func TestEachCommandGetsItsOwnResult(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	for _, p := range c.Peers() {
		results, err := p.Node.Propose(soon(t),
			place("first-"+p.ID, p.ID),
			fsm.Forget{Stream: stream("unknown")},
			place("second-"+p.ID, p.ID),
			fsm.Ready{ID: "nobody"},
		)
		if err != nil {
			t.Fatal(err)
		}
		if r := results[0]; r.Err != nil || r.Placement.Stream.Name != "first-"+p.ID {
			t.Errorf("at %s the first result is %+v", p.ID, r)
		}
		if r := results[1]; !errors.Is(r.Err, fsm.ErrUnknownStream) {
			t.Errorf("at %s the second result is %+v; want ErrUnknownStream", p.ID, r)
		}
		if r := results[2]; r.Err != nil || r.Placement.Stream.Name != "second-"+p.ID {
			t.Errorf("at %s the third result is %+v", p.ID, r)
		}
		if r := results[3]; !errors.Is(r.Err, fsm.ErrUnknownOrigin) {
			t.Errorf("at %s the fourth result is %+v; want ErrUnknownOrigin", p.ID, r)
		}
	}
}

func TestCallLargerThanAnEntryIsSplit(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{
		Voters: 3, Tune: func(_ *clustertest.Peer, c *cluster.Config) { c.EntrySize = 1 << 10 },
	})
	propose(t, c.Leader(), putOrigin())
	for _, p := range c.Peers() {
		names := placeMany(t, p, "many-"+p.ID, 500)
		if got := known(p, names...); got != len(names) {
			t.Errorf("%s knows %d of %d", p.ID, got, len(names))
		}
		propose(t, p, place(strings.Repeat("x", fsm.MaxPart), p.ID))
	}
	c.RequireSame()
}

func TestLeaderDeathLosesNothingAcknowledged(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	for range 3 {
		leader := c.WaitLeader()
		var loads []*load
		for _, p := range c.Peers() {
			loads = append(loads, startLoad(t, p, 4))
		}
		grow(c, loads)
		leader.Kill()
		c.ElectAnew()
		grow(c, loads[:0], survivors(c, loads)...)
		var acked []string
		for _, l := range loads {
			l.end()
			l.requireOnly(t, "unknown", "refused")
			acked = append(acked, l.acked...)
		}
		leader.Start()
		c.WaitLeader()
		c.RequireSame()
		for _, p := range c.Peers() {
			if got := known(p, acked...); got != len(acked) {
				t.Errorf("%s knows %d of %d acknowledged placements", p.ID, got, len(acked))
			}
		}
	}
}

// grow waits until each load has had more acknowledged.
func grow(c *clustertest.Cluster, loads []*load, more ...*load) {
	for _, l := range append(loads, more...) {
		before := l.count()
		c.Eventually("acknowledge more", func() bool { return l.count() > before+50 })
	}
}

// survivors returns the loads at peers that run.
func survivors(c *clustertest.Cluster, loads []*load) []*load {
	var alive []*load
	for i, l := range loads {
		if c.Peer(i).Node != nil {
			alive = append(alive, l)
		}
	}
	return alive
}

func TestMinorityRefusesAndHeals(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	names := placeMany(t, c.Leader(), "before", 10)
	leader := c.Leader()
	c.Partition(leader)
	others := slices.DeleteFunc(c.Peers(), func(p *clustertest.Peer) bool { return p == leader })
	c.WaitLeader(others...)
	names = append(names, placeMany(t, others[0], "majority", 10)...)

	ctx, cancel := contextFor(t, 300*time.Millisecond)
	defer cancel()
	_, err := leader.Node.Propose(ctx, place("minority", leader.ID))
	if !errors.Is(err, cluster.ErrNoLeader) {
		t.Errorf("Propose in a minority = %v; want ErrNoLeader", err)
	}
	if err := leader.Node.Barrier(ctx); !errors.Is(err, cluster.ErrNoLeader) {
		t.Errorf("Barrier in a minority = %v; want ErrNoLeader", err)
	}
	if got := known(leader, "before-3"); got != 1 {
		t.Error("the minority does not serve what was placed before")
	}
	if s := leader.Node.Status(); s.LeaderlessSince.IsZero() || s.Leader != "" {
		t.Errorf("Status in a minority = %+v; want no leader, and since when", s)
	}

	c.Heal()
	c.WaitLeader()
	c.RequireSame()
	if got := known(leader, names...); got != len(names) {
		t.Errorf("the minority knows %d of %d after healing", got, len(names))
	}
	if known(leader, "minority") != 0 {
		t.Error("what was refused was applied")
	}
}

func TestNewerCommandsWaitForEveryMember(t *testing.T) {
	var version uint8
	c := clustertest.Start(t, clustertest.Config{Voters: 1, Tune: func(_ *clustertest.Peer, c *cluster.Config) {
		c.Understood = func() uint8 { return version }
	}})
	if _, err := c.Leader().Node.Propose(soon(t), putOrigin()); !errors.Is(err, cluster.ErrMixedVersions) {
		t.Errorf("Propose what a member does not read = %v; want ErrMixedVersions", err)
	}
	version = fsm.BatchVersion
	propose(t, c.Leader(), putOrigin())
}

func TestUnreadableEntryHalts(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	names := placeMany(t, c.Leader(), "before", 10)
	if err := c.Leader().Node.AppendRaw([]byte{fsm.BatchVersion + 1, 0, 0}); err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Peers() {
		c.Eventually("halt", func() bool { return p.Node.Status().Halted != nil })
		if err := p.Node.Status().Halted; !errors.Is(err, cluster.ErrHalted) || !errors.Is(err, fsm.ErrVersion) {
			t.Errorf("%s halted by %v; want ErrHalted for ErrVersion", p.ID, err)
		}
		if _, err := p.Node.Propose(soon(t), place("after", p.ID)); !errors.Is(err, cluster.ErrHalted) {
			t.Errorf("Propose at a halted peer = %v; want ErrHalted", err)
		}
		if err := p.Node.Barrier(soon(t)); !errors.Is(err, cluster.ErrHalted) {
			t.Errorf("Barrier at a halted peer = %v; want ErrHalted", err)
		}
		if err := p.Node.SnapshotNow(soon(t)); err == nil {
			t.Error("a halted peer took a snapshot")
		}
		if got := known(p, names...); got != len(names) {
			t.Errorf("%s knows %d of %d placements made before", p.ID, got, len(names))
		}
	}
	c.RequireSame()
	// It is no different after a restart.
	p := c.Followers()[0]
	p.Kill()
	p.Start()
	c.Eventually("halt again", func() bool { return p.Node.Status().Halted != nil })
	if got := known(p, names...); got != len(names) {
		t.Errorf("%s knows %d of %d placements after a restart", p.ID, got, len(names))
	}
}

// misread is a log that gives some peer other bytes than were stored.
type misread struct {
	raft.LogStore
	from atomic.Uint64 // index; 0: none
}

func (m *misread) GetLog(index uint64, entry *raft.Log) error {
	err := m.LogStore.GetLog(index, entry)
	if from := m.from.Load(); from > 0 && index >= from && entry.Type == raft.LogCommand {
		entry.Data = []byte{fsm.BatchVersion + 1}
	}
	return err
}

func TestHaltedPeerDoesNotLead(t *testing.T) {
	var logs misread
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: func(p *clustertest.Peer, c *cluster.Config) {
		if p.ID == "peer-2" {
			logs.LogStore = c.Logs
			c.Logs = &logs
		}
	}})
	propose(t, c.Leader(), putOrigin())
	c.RequireSame()
	halted := c.Peer(2)
	logs.from.Store(1)
	propose(t, c.Leader(), place("unreadable", "peer"))
	c.Eventually("halt", func() bool { return halted.Node.Status().Halted != nil })
	if err := c.Leader().Node.TransferLeadership(soon(t), halted.ID); !errors.Is(err, cluster.ErrNotFresh) {
		t.Errorf("TransferLeadership to a halted peer = %v; want ErrNotFresh", err)
	}
	c.Elect(halted)
	c.Eventually("hand leadership to a peer that can answer", func() bool {
		l := c.Leader()
		return l != nil && l != halted
	})
	propose(t, c.Leader(), place("after", "peer"))
}
