package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"srsx/cluster"
	"srsx/cluster/clustertest"
	"srsx/fsm"
)

func TestBackupIsRestoredEverywhere(t *testing.T) {
	ledgerOf, observe := ledgers()
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Replicas: 1, Tune: observe})
	propose(t, c.Leader(), fsm.Found{ID: "this cluster", Secret: fsm.Secret{1}}, putOrigin())
	names := placeMany(t, c.Leader(), "saved", 100)
	var backup strings.Builder
	if _, err := c.Leader().Node.SaveSnapshot(&backup); err != nil {
		t.Fatal(err)
	}
	placeMany(t, c.Leader(), "later", 100)
	damaged := backup.String()[:backup.Len()-3]
	for _, p := range c.Peers() {
		if err := p.Node.RestoreSnapshot(soon(t), strings.NewReader(damaged)); !errors.Is(err, fsm.ErrCorrupt) {
			t.Errorf("RestoreSnapshot of a cut off file at %s = %v; want ErrCorrupt", p.ID, err)
		}
	}
	if err := c.Leader().Node.RestoreSnapshot(soon(t), strings.NewReader(backup.String())); err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Peers() {
		if err := p.Node.Barrier(soon(t)); err != nil || known(p, "later-1") != 0 {
			t.Errorf("after a barrier (%v) %s still shows what was before the restore", err, p.ID)
		}
	}
	c.RequireSame()
	for _, p := range c.Peers() {
		if got, later := known(p, names...), known(p, "later-1"); got != len(names) || later != 0 {
			t.Errorf("%s knows %d of %d saved and %d later placements", p.ID, got, len(names), later)
		}
		propose(t, p, place("after-"+p.ID, p.ID))
		if l := ledgerOf(p.ID); len(l.wrong) > 0 {
			t.Errorf("%s was told %v", p.ID, l.wrong)
		}
	}
	c.RequireSame()
	before := c.Leader().State()
	for _, p := range c.Peers() {
		p.Kill()
	}
	for i := range 4 {
		c.Peer(i).Start()
	}
	c.ElectAnew()
	c.RequireSame()
	if after := c.Leader().State(); after != before {
		t.Errorf("state after restart = %s; want %s", after, before)
	}
}

func TestBackupOfAnotherClusterLeavesTheIdentity(t *testing.T) {
	other := clustertest.Start(t, clustertest.Config{Voters: 1})
	propose(t, other.Leader(), fsm.Found{ID: "other cluster", Secret: fsm.Secret{2}}, putOrigin())
	for i := range 20 { // its log is longer than that of the new one
		placeMany(t, other.Leader(), fmt.Sprintf("saved-%d", i), 2)
	}
	var backup strings.Builder
	if _, err := other.Leader().Node.SaveSnapshot(&backup); err != nil {
		t.Fatal(err)
	}
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), fsm.Found{ID: "this cluster", Secret: fsm.Secret{1}})
	if err := c.Leader().Node.RestoreSnapshot(soon(t), strings.NewReader(backup.String())); err != nil {
		t.Fatal(err)
	}
	c.RequireSame()
	for _, p := range c.Peers() {
		p.Node.View(func(s *fsm.State) {
			if got, _ := s.Cluster(); got.ID != "this cluster" || got.Secret != (fsm.Secret{1}) {
				t.Errorf("%s is now of cluster %q", p.ID, got.ID)
			}
		})
		if known(p, "saved-19-1") != 1 {
			t.Errorf("%s lacks what was saved", p.ID)
		}
		propose(t, p, place("after-"+p.ID, p.ID))
	}
	c.RequireSame()
}

// save returns a backup of a peer's state.
func save(t *testing.T, p *clustertest.Peer) []byte {
	t.Helper()
	var backup bytes.Buffer
	if _, err := p.Node.SaveSnapshot(&backup); err != nil {
		t.Fatal(err)
	}
	return backup.Bytes()
}

// kindBackup is the request for a part of a backup, as it is on the wire.
const kindBackup = 10

// tapped tells of calls of one kind before they go out.
type tapped struct {
	cluster.RPC
	kind byte
	tell func(ctx context.Context)
}

func (r tapped) Call(ctx context.Context, to string, kind byte, request []byte) ([]byte, error) {
	if kind == r.kind {
		r.tell(ctx)
	}
	return r.RPC.Call(ctx, to, kind, request)
}

func TestAnyPeerRestores(t *testing.T) {
	var parts atomic.Int32
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Replicas: 1, Tune: func(_ *clustertest.Peer, c *cluster.Config) {
		c.RPC = tapped{c.RPC, kindBackup, func(context.Context) { parts.Add(1) }}
	}})
	propose(t, c.Leader(), putOrigin())
	const count = 20_000 // of several parts
	var names []string
	for i := range 10 {
		names = append(names, placeMany(t, c.Leader(), fmt.Sprintf("saved-%d", i), count/10)...)
	}
	backup := save(t, c.Leader())
	for _, p := range c.Peers() {
		placeMany(t, p, "later", 100)
		parts.Store(0)
		if err := p.Node.RestoreSnapshot(soon(t), bytes.NewReader(backup)); err != nil {
			t.Fatalf("RestoreSnapshot at %s: %v", p.ID, err)
		}
		if got, later := known(p, names...), known(p, "later-1"); got != count || later != 0 {
			t.Errorf("%s knows %d of %d saved and %d later placements when it returns", p.ID, got, count, later)
		}
		if n := parts.Load(); p == c.Leader() && n != 0 || p != c.Leader() && n < 2 {
			t.Errorf("the leader fetched %d parts for %s", n, p.ID)
		}
		propose(t, p, place("after", p.ID))
		c.RequireSame()
	}
}

func TestRestoreHasLimits(t *testing.T) {
	const limit = 500 // bytes
	for name, small := range map[string]string{"of the leader": "peer-0", "of the peer that is asked": "peer-1"} {
		t.Run(name, func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: func(p *clustertest.Peer, c *cluster.Config) {
				if p.ID == small {
					c.BackupSize = limit
				}
			}})
			propose(t, c.Leader(), putOrigin())
			placeMany(t, c.Leader(), "saved", 100)
			backup := save(t, c.Leader())
			c.RequireSame()
			before := c.Leader().State()
			if err := c.Peer(1).Node.RestoreSnapshot(soon(t), bytes.NewReader(backup)); !errors.Is(err, cluster.ErrTooLarge) {
				t.Errorf("RestoreSnapshot of %d bytes at %s = %v; want ErrTooLarge", len(backup), c.Leader().ID, err)
			}
			if after := c.Leader().State(); after != before {
				t.Errorf("state = %s; want %s", after, before)
			}
		})
	}
}

func TestRestoreWithoutALeaderDoesNothing(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: func(_ *clustertest.Peer, c *cluster.Config) {
		c.Timeout = time.Second
	}})
	propose(t, c.Leader(), putOrigin())
	backup := save(t, c.Leader())
	alone := c.Followers()[0]
	c.Partition(alone)
	c.Eventually("miss the leader", func() bool { return alone.Node.Status().Leader == "" })
	if err := alone.Node.RestoreSnapshot(t.Context(), bytes.NewReader(backup)); !errors.Is(err, cluster.ErrNoLeader) {
		t.Errorf("RestoreSnapshot without a leader = %v; want ErrNoLeader", err)
	}
	c.Heal()
	c.WaitLeader()
	c.RequireSame()
}

// TestLeaderLostWhileItFetches: the caller learns that it has to look, and all
// still agree.
func TestLeaderLostWhileItFetches(t *testing.T) {
	fetching := make(chan struct{}, 1)
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: func(_ *clustertest.Peer, c *cluster.Config) {
		c.RPC = tapped{c.RPC, kindBackup, func(ctx context.Context) {
			fetching <- struct{}{}
			<-ctx.Done()
		}}
	}})
	propose(t, c.Leader(), putOrigin())
	names := placeMany(t, c.Leader(), "kept", 100)
	backup := save(t, c.Leader())
	names = append(names, placeMany(t, c.Leader(), "later", 100)...)
	leader, follower := c.Leader(), c.Followers()[0]
	restored := make(chan error, 1)
	go func() { restored <- follower.Node.RestoreSnapshot(t.Context(), bytes.NewReader(backup)) }()
	<-fetching
	leader.Kill()
	if err := <-restored; !errors.Is(err, cluster.ErrUnknownOutcome) {
		t.Errorf("RestoreSnapshot = %v; want ErrUnknownOutcome", err)
	}
	c.WaitLeader()
	c.RequireSame()
	if got := known(follower, names...); got != len(names) {
		t.Errorf("%d of %d placements are left though nothing was restored", got, len(names))
	}
}

func TestOneRestoreAtATime(t *testing.T) {
	var fetches atomic.Int32
	release := make(chan struct{})
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: func(_ *clustertest.Peer, c *cluster.Config) {
		c.RPC = tapped{c.RPC, kindBackup, func(context.Context) {
			fetches.Add(1)
			<-release
		}}
	}})
	propose(t, c.Leader(), putOrigin())
	backup := save(t, c.Leader())
	followers, leader := c.Followers(), c.Leader()
	first := make(chan error, 1)
	go func() { first <- followers[0].Node.RestoreSnapshot(t.Context(), bytes.NewReader(backup)) }()
	c.Eventually("fetch the first backup", func() bool { return fetches.Load() == 1 })
	for _, p := range []*clustertest.Peer{followers[1], leader} {
		ctx, cancel := contextFor(t, 100*time.Millisecond)
		if err := p.Node.RestoreSnapshot(ctx, bytes.NewReader(backup)); err == nil {
			t.Errorf("%s restored a second backup beside the first", p.ID)
		}
		cancel()
	}
	if n := fetches.Load(); n != 1 {
		t.Errorf("%d backups are being fetched; want one", n)
	}
	close(release)
	if err := <-first; err != nil {
		t.Errorf("RestoreSnapshot = %v", err)
	}
	c.RequireSame()
}

func TestRestoreEndsWithTheNode(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	backup := save(t, c.Leader())
	p := c.Followers()[0]
	c.Partition(p) // the leader is still believed in, and does not answer
	restored := make(chan error, 1)
	node := p.Node
	go func() { restored <- node.RestoreSnapshot(t.Context(), bytes.NewReader(backup)) }()
	p.Stop()
	select {
	case err := <-restored:
		if err == nil {
			t.Error("RestoreSnapshot without the others succeeded")
		}
	case <-time.After(clustertest.Patience):
		t.Error("RestoreSnapshot goes on after the node was closed")
	}
}
