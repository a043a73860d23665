package cluster_test

import (
	"testing"
	"time"

	"srsx/cluster/clustertest"
)

// A leader that had given up on a peer for a while sends it entries as soon as it
// is there again, not only heartbeats.
func TestReturningPeerIsSentEntriesAtOnce(t *testing.T) {
	const (
		absent = 3 * time.Second // raft alone would then let up to five pass before it tries again
		soon   = time.Second
	)
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	away := c.Followers()[0]
	away.Stop()
	time.Sleep(absent)
	names := placeMany(t, c.Leader(), "while away", 10)
	away.Start()
	began := time.Now()
	c.Eventually("the peer knows what it missed", func() bool { return known(away, names...) == len(names) })
	if took := time.Since(began); took > soon {
		t.Errorf("it took %v; want %v at most", took, soon)
	}
}

// A peer that is taken out while nobody reaches it is left alone.
func TestRemovedPeerIsSentNothing(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3})
	propose(t, c.Leader(), putOrigin())
	away := c.Followers()[0]
	away.Stop()
	if err := c.Leader().Node.Remove(soon(t), away.ID); err != nil {
		t.Fatal(err)
	}
	names := placeMany(t, c.Leader(), "without it", 10)
	away.Start()
	for range 10 {
		propose(t, c.Leader(), place(time.Now().String(), c.Leader().ID))
	}
	if got := known(away, names...); got != 0 {
		t.Errorf("the removed peer knows %d of %d; want none", got, len(names))
	}
}
