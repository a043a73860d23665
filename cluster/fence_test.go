package cluster_test

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"srsx/cluster"
	"srsx/cluster/clustertest"
)

func TestStalledDiskFencesThePeerOff(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	names := placeMany(t, c.Leader(), "before", 10)
	old := c.Leader()
	release := old.Disk().Hang()
	defer release()
	stuck := make(chan error, 1)
	go func() {
		_, err := old.Node.Propose(t.Context(), place("stuck", old.ID))
		stuck <- err
	}()
	others := slices.DeleteFunc(c.Peers(), func(p *clustertest.Peer) bool { return p == old })
	c.WaitLeader(others...)
	names = append(names, placeMany(t, others[0], "elsewhere", 10)...)

	if s := old.Node.Status(); !s.Fenced || s.Leader != "" {
		t.Errorf("Status = %+v; want fenced", s)
	}
	if _, err := old.Node.Propose(soon(t), place("new", old.ID)); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("Propose = %v; want ErrFenced", err)
	}
	if err := old.Node.Barrier(soon(t)); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("Barrier = %v; want ErrFenced", err)
	}
	if _, err := old.Node.Ask(soon(t), nil); !errors.Is(err, cluster.ErrFenced) {
		t.Errorf("Ask = %v; want ErrFenced", err)
	}
	if known(old, "before-1") != 1 {
		t.Error("a fenced peer does not serve what it knows")
	}

	release()
	if err := <-stuck; err == nil || errors.Is(err, cluster.ErrNoLeader) {
		t.Errorf("the proposal that the disk held up ended with %v; want an unknown outcome", err)
	}
	c.WaitLeader()
	c.RequireSame()
	if got := known(old, names...); got != len(names) {
		t.Errorf("%s knows %d of %d after its disk came back", old.ID, got, len(names))
	}
}

func TestCloseDoesNotWaitForAStalledDisk(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	old := c.Leader()
	release := old.Disk().Hang()
	go func() { _, _ = old.Node.Propose(t.Context(), place("stuck", old.ID)) }() // its outcome is not known
	c.Eventually("fence the peer off", func() bool { return old.Node.Status().Fenced })
	closed := make(chan error, 1)
	go func() { closed <- old.Node.Shutdown(t.Context()) }()
	select {
	case err := <-closed:
		if !errors.Is(err, cluster.ErrFenced) {
			t.Errorf("Shutdown = %v; want ErrFenced", err)
		}
	case <-time.After(2 * time.Second):
		t.Error("Shutdown waits for the disk")
	}
	release()
}

func TestFullDiskMovesTheLeadership(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	old := c.Leader()
	old.Disk().Fail(syscall.ENOSPC)
	if _, err := old.Node.Propose(soon(t), place("lost", old.ID)); !errors.Is(err, cluster.ErrUnknownOutcome) {
		t.Errorf("Propose on a full disk = %v; want ErrUnknownOutcome", err)
	}
	others := slices.DeleteFunc(c.Peers(), func(p *clustertest.Peer) bool { return p == old })
	c.Eventually("elect another", func() bool { l := c.Leader(); return l != nil && l != old })
	placeMany(t, others[0], "elsewhere", 10)
	old.Disk().Fail(nil)
	c.WaitLeader()
	c.RequireSame()
}

// TestFullDiskOfAFollowerHoldsNothingUp covers a defect of raft's pipelines.
func TestFullDiskOfAFollowerHoldsNothingUp(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	leader, follower := c.Leader(), c.Followers()[0]
	l := startLoad(t, leader, 16)
	for range 10 {
		follower.Disk().Fail(syscall.ENOSPC)
		refuse := follower.Disk().Hang()
		grow(c, []*load{l}) // so that messages queue up behind the one that is refused
		refuse()
		follower.Disk().Fail(nil)
		applied := leader.Node.Status().Applied
		c.Eventually("follow again", func() bool { return follower.Node.Status().Applied >= applied })
	}
	l.end()
	l.requireOnly(t, "unknown", "refused")
	c.RequireSame()
}
