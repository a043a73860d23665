package peer

import (
	"testing"
	"time"

	"srsx/cluster"
	"srsx/cluster/gossip"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// alive is a member since the start.
func alive(id string) gossip.Member {
	m := gossip.Member{State: gossip.Alive, Since: start}
	m.ID, m.Name, m.ClusterAddr = id, id, id+":1"
	return m
}

func in(state gossip.State, m gossip.Member) gossip.Member {
	m.State = state
	return m
}

func voter(id string) cluster.Server   { return cluster.Server{ID: id, Addr: id + ":1", Voter: true} }
func replica(id string) cluster.Server { return cluster.Server{ID: id, Addr: id + ":1"} }

func TestMembershipFollowsWhoIsThere(t *testing.T) {
	now := start.Add(100 * time.Hour)
	replicaOnly := alive("b")
	replicaOnly.NonVoter = true
	late := alive("b")
	late.Since = now.Add(-time.Second)
	moved := alive("b")
	moved.ClusterAddr = "elsewhere:1"
	leaving := alive("b")
	leaving.Leaving = true
	for name, tc := range map[string]struct {
		servers []cluster.Server
		members []gossip.Member
		led     time.Duration // how long the leader has led
		want    step
	}{
		"a newcomer is let in": {
			[]cluster.Server{voter("a")}, []gossip.Member{alive("a"), alive("b")}, time.Hour, step{stepAdd, "b", "b", "b:1"},
		},
		"one that leaves is not": {
			[]cluster.Server{voter("a")}, []gossip.Member{alive("a"), leaving}, time.Hour, step{},
		},
		"a replica that moved has its address changed": {
			[]cluster.Server{voter("a"), replica("b")}, []gossip.Member{alive("a"), moved}, time.Hour, step{stepAdd, "b", "b", "elsewhere:1"},
		},
		"a stable replica votes": {
			[]cluster.Server{voter("a"), replica("b")}, []gossip.Member{alive("a"), alive("b")}, time.Hour, step{stepPromote, "b", "b", ""},
		},
		"one that has just come does not": {
			[]cluster.Server{voter("a"), replica("b")}, []gossip.Member{alive("a"), late}, time.Hour, step{},
		},
		"a non-voter never does": {
			[]cluster.Server{voter("a"), replica("b")}, []gossip.Member{alive("a"), replicaOnly}, time.Hour, step{},
		},
		"three of five vote": {
			[]cluster.Server{voter("a"), voter("b"), voter("c"), replica("d"), replica("e")},
			[]gossip.Member{alive("a"), alive("b"), alive("c"), alive("d"), alive("e")},
			time.Hour,
			step{},
		},
		"five of six vote": {
			[]cluster.Server{voter("a"), voter("b"), voter("c"), replica("d"), replica("e"), replica("f")},
			[]gossip.Member{alive("a"), alive("b"), alive("c"), alive("d"), alive("e"), alive("f")},
			time.Hour,
			step{stepPromote, "d", "d", ""},
		},
		"a failed voter is replaced": {
			[]cluster.Server{voter("a"), voter("b"), voter("c"), replica("d")},
			[]gossip.Member{alive("a"), alive("b"), in(gossip.Failed, alive("c")), alive("d")},
			time.Hour,
			step{stepPromote, "d", "d", ""},
		},
		"and then votes no more": {
			[]cluster.Server{voter("a"), voter("b"), voter("c"), voter("d")},
			[]gossip.Member{alive("a"), alive("b"), in(gossip.Failed, alive("c")), alive("d")},
			time.Hour,
			step{stepDemote, "c", "c", ""},
		},
		"one that stopped stays a member": {
			[]cluster.Server{voter("a"), voter("b"), voter("c")},
			[]gossip.Member{alive("a"), alive("b"), in(gossip.Failed, alive("c"))},
			time.Hour,
			step{},
		},
		"one that left is removed": {
			[]cluster.Server{voter("a"), voter("b"), voter("c")},
			[]gossip.Member{alive("a"), alive("b"), in(gossip.Left, alive("c"))},
			time.Hour,
			step{stepRemove, "c", "c", ""},
		},
		"one that was absent for 72 h is removed": {
			[]cluster.Server{voter("a"), voter("b"), voter("c")},
			[]gossip.Member{alive("a"), alive("b"), in(gossip.Failed, alive("c"))},
			73 * time.Hour,
			step{stepRemove, "c", "c", ""},
		},
		"a new leader counts absence from its own start": {
			[]cluster.Server{voter("a"), voter("b"), voter("c")},
			[]gossip.Member{alive("a"), alive("b"), in(gossip.Failed, alive("c"))},
			time.Minute,
			step{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, ok := next(tc.servers, tc.members, now.Add(-tc.led), now)
			if got != tc.want || ok != (tc.want != step{}) {
				t.Errorf("next = %+v, %v; want %+v", got, ok, tc.want)
			}
		})
	}
}
