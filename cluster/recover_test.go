package cluster_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"srsx/cluster"
	"srsx/cluster/clustertest"
)

func TestAllRestartAndNothingIsLost(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Replicas: 1})
	propose(t, c.Leader(), putOrigin())
	for _, p := range c.Peers() {
		placeMany(t, p, p.ID, 100)
	}
	c.RequireSame()
	before, servers := c.Leader().State(), fmt.Sprint(c.Leader().Node.Servers())
	for _, how := range []func(*clustertest.Peer){(*clustertest.Peer).Kill, (*clustertest.Peer).Stop} {
		peers := c.Peers()
		for _, p := range peers {
			how(p)
		}
		for _, p := range peers {
			p.Start()
		}
		c.ElectAnew()
		c.RequireSame()
		if after := c.Leader().State(); after != before {
			t.Errorf("state after restart = %s; want %s", after, before)
		}
		if after := fmt.Sprint(c.Leader().Node.Servers()); after != servers {
			t.Errorf("members after restart = %s; want %s", after, servers)
		}
	}
	propose(t, c.Followers()[0], place("after", "peer"))
	c.RequireSame()
}

// TestFoundingCutShortCanBeginAnew: raft stored the term and not the members.
func TestFoundingCutShortCanBeginAnew(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 1})
	for _, crash := range []struct {
		term     uint64
		hasState bool
	}{{1, false}, {2, true}} { // term 2 is a leader's, who was about to send its log
		p := c.NewPeer()
		p.Kill()
		p.TuneNext(func(config *cluster.Config) {
			if err := config.Stable.SetUint64([]byte("CurrentTerm"), crash.term); err != nil {
				t.Fatal(err)
			}
		})
		p.Start()
		if has, err := p.Node.HasState(); has != crash.hasState || err != nil {
			t.Errorf("HasState with term %d and no log = %t, %v; want %t", crash.term, has, err, crash.hasState)
		}
		err := p.Node.Bootstrap(soon(t), []cluster.Server{{ID: p.ID, Addr: p.ID, Voter: true}})
		if errors.Is(err, cluster.ErrHasState) != crash.hasState {
			t.Errorf("Bootstrap with term %d and no log = %v; want ErrHasState %t", crash.term, err, crash.hasState)
		}
	}
}

func TestPeerAloneServesWhatItKnew(t *testing.T) {
	const count = 5000
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: func(_ *clustertest.Peer, c *cluster.Config) {
		c.EntrySize = 256 // as many entries as thrice the calls
	}})
	propose(t, c.Leader(), putOrigin())
	var names []string
	for i := range 10 {
		names = append(names, placeMany(t, c.Followers()[0], fmt.Sprintf("known-%d", i), count/10)...)
	}
	c.RequireSame()
	alone := c.Followers()[1]
	c.Eventually("keep how far the log is committed", func() bool {
		index, _ := alone.Disk().GetUint64([]byte("SrsxCommitted"))
		return index == alone.Node.Status().Applied
	})
	for _, p := range c.Peers() {
		p.Kill()
	}
	alone.Start()
	if got := known(alone, names...); got != count {
		t.Errorf("alone, it knows %d of %d right after its start", got, count)
	}
	ctx, cancel := contextFor(t, heartbeat)
	defer cancel()
	if _, err := alone.Node.Propose(ctx, place("new", alone.ID)); !errors.Is(err, cluster.ErrNoLeader) {
		t.Errorf("Propose alone = %v; want ErrNoLeader", err)
	}
}

func TestSnapshotAndLogTogetherAreTheState(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: func(_ *clustertest.Peer, c *cluster.Config) {
		c.TrailingEntries = 1
	}})
	propose(t, c.Leader(), putOrigin())
	names := placeMany(t, c.Leader(), "in-snapshot", 200)
	c.RequireSame()
	for _, p := range c.Peers() {
		if err := p.Node.SnapshotNow(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		names = append(names, placeMany(t, c.Leader(), fmt.Sprintf("in-log-%d", i), 5)...)
	}
	c.RequireSame()
	before := c.Leader().State()
	p := c.Followers()[0]
	for _, q := range c.Peers() {
		q.Kill()
	}
	p.Start()
	if got := known(p, names...); got < len(names)-5 {
		t.Errorf("alone, it knows %d of %d", got, len(names))
	}
	for i := range 3 {
		if q := c.Peer(i); q != p {
			q.Start()
		}
	}
	c.ElectAnew()
	c.RequireSame()
	if after := p.State(); after != before {
		t.Errorf("state after restart = %s; want %s", after, before)
	}
}

func TestPeerFarBehindGetsASnapshot(t *testing.T) {
	ledgerOf, observe := ledgers()
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: func(p *clustertest.Peer, c *cluster.Config) {
		observe(p, c)
		c.TrailingEntries = 1
	}})
	propose(t, c.Leader(), putOrigin())
	late := c.Followers()[0]
	late.Kill()
	var names []string
	for i := range 10 {
		names = append(names, placeMany(t, c.Leader(), fmt.Sprintf("missed-%d", i), 50)...)
	}
	for _, p := range c.Peers() {
		if err := p.Node.SnapshotNow(soon(t)); err != nil {
			t.Fatal(err)
		}
	}
	late.Start()
	c.Eventually("bring the late peer up", func() bool { return known(late, names...) == len(names) })
	propose(t, late, place("own", late.ID))
	c.RequireSame()
	if l := ledgerOf(late.ID); len(l.placed) != len(names)+1 {
		t.Errorf("observer knows %d placements; want %d", len(l.placed), len(names)+1)
	}
}

// unreadable hands out snapshots that fsm does not read. That a file is as it was
// written, the store sees to.
type unreadable struct {
	raft.SnapshotStore
	ids []string
}

// spoil makes the snapshots of now unreadable.
func spoil(c *cluster.Config) { spoilNewest(c, math.MaxInt) }

func spoilNewest(c *cluster.Config, count int) {
	u := &unreadable{SnapshotStore: c.Snapshots}
	list, _ := c.Snapshots.List() // one that cannot be listed is not spoilt, and the test fails
	for _, meta := range list[:min(count, len(list))] {
		u.ids = append(u.ids, meta.ID)
	}
	c.Snapshots = u
}

func (u *unreadable) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, source, err := u.SnapshotStore.Open(id)
	if err == nil && slices.Contains(u.ids, id) {
		_ = source.Close()
		source = io.NopCloser(strings.NewReader("not a snapshot"))
	}
	return meta, source, err
}

func TestUnreadableSnapshotNeedsTheLogBehindAnOlderOne(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 1})
	p := c.Leader()
	propose(t, p, putOrigin())
	names := placeMany(t, p, "a", 20)
	if err := p.Node.SnapshotNow(soon(t)); err != nil {
		t.Fatal(err)
	}
	names = append(names, placeMany(t, p, "b", 20)...)
	before := p.State()
	p.Kill()
	p.TuneNext(spoil)
	p.Start() // the log still has everything
	c.ElectAnew()
	if got := known(p, names...); got != len(names) {
		t.Errorf("knows %d of %d", got, len(names))
	}
	if after := p.State(); after != before {
		t.Errorf("state = %s; want %s", after, before)
	}
}

func TestOlderSnapshotAndTheLogReplaceANewOne(t *testing.T) {
	const every = 20
	c := clustertest.Start(t, clustertest.Config{Voters: 1, Tune: func(_ *clustertest.Peer, c *cluster.Config) {
		c.SnapshotEntries = every
	}})
	p := c.Leader()
	propose(t, p, putOrigin())
	var names []string
	for i := range 4 * every {
		names = append(names, placeMany(t, p, fmt.Sprintf("s%d", i), 1)...)
		if i%every == 0 {
			if err := p.Node.SnapshotNow(soon(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := p.State()
	p.Kill()
	p.TuneNext(func(c *cluster.Config) { spoilNewest(c, 1) })
	p.Start()
	c.ElectAnew()
	if after := p.State(); after != before {
		t.Errorf("state = %s, %d of %d placements; want %s", after, known(p, names...), len(names), before)
	}
}

func TestPeersFileReplacesTheMembersOnce(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	names := placeMany(t, c.Leader(), "kept", 50)
	c.RequireSame()
	for _, p := range c.Peers() {
		p.Kill()
	}
	left := c.Peer(2)
	help, err := os.ReadFile(filepath.Join(left.Dir(), "peers.info"))
	if err != nil || !strings.Contains(string(help), "peers.json") {
		t.Errorf("peers.info = %q, %v; want the way to recover", help, err)
	}
	file := filepath.Join(left.Dir(), "peers.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, `[{"id": %q, "address": %q}]`, left.ID, left.ID), 0o600); err != nil {
		t.Fatal(err)
	}
	left.Start()
	c.ElectAnew()
	if s := left.Node.Servers(); len(s) != 1 || s[0].ID != left.ID || !s[0].Voter {
		t.Errorf("members = %v; want only %s", s, left.ID)
	}
	if got := known(left, names...); got != len(names) {
		t.Errorf("knows %d of %d", got, len(names))
	}
	propose(t, left, place("after", left.ID))
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("peers.json is still there: %v", err)
	}
	left.Stop()
	left.Start() // not once more
	c.ElectAnew()
	if known(left, "after") != 1 {
		t.Error("the second start lost what came after the recovery")
	}
}

func TestPeersFileAndTheLogDoWithoutASnapshot(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	names := placeMany(t, c.Leader(), "kept", 50)
	c.RequireSame()
	left := c.Peer(2)
	if err := left.Node.SnapshotNow(soon(t)); err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Peers() {
		p.Kill()
	}
	file := filepath.Join(left.Dir(), "peers.json")
	if err := os.WriteFile(file, fmt.Appendf(nil, `[{"id": %q, "address": %q}]`, left.ID, left.ID), 0o600); err != nil {
		t.Fatal(err)
	}
	left.TuneNext(spoil)
	left.Start()
	c.ElectAnew()
	if got := known(left, names...); got != len(names) {
		t.Errorf("knows %d of %d", got, len(names))
	}
}

func TestDamagedPeersFileEndsTheStart(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 1})
	p := c.Peer(0)
	p.Stop()
	file := filepath.Join(p.Dir(), "peers.json")
	for _, damaged := range []string{"", "[", `[]`, `[{"id": "", "address": "x"}]`} {
		if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := p.TryStart(); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("start with peers.json %q = %v; want an error naming the file", damaged, err)
			p.Stop()
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p.Start()
	c.ElectAnew()
}
