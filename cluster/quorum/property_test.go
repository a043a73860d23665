package quorum_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"srsx/cluster/quorum"
)

// drawSituation makes up a leader with a majority and up to nine peers in any
// state, newcomers and moved ones included.
func drawSituation(t *rapid.T) quorum.Situation {
	s := quorum.Situation{Self: "a", Cluster: ourCluster, Commands: 1, Standings: make(map[raft.ServerID]quorum.Standing)}
	peers := rapid.IntRange(1, 9).Draw(t, "peers")
	for i := range peers {
		id := raft.ServerID(rune('a' + i))
		p := quorum.Peer{ID: id, Name: "n" + string(id), Cluster: ourCluster, Commands: 1, Address: address(string(id))}
		leader := i == 0
		p.Alive = leader || rapid.Bool().Draw(t, fmt.Sprintf("%s alive", id))
		p.Left = !p.Alive && rapid.Bool().Draw(t, fmt.Sprintf("%s left", id))
		p.Leaving = p.Alive && rapid.IntRange(0, 5).Draw(t, fmt.Sprintf("%s leaving", id)) == 0
		p.NonVoter = !leader && rapid.IntRange(0, 3).Draw(t, fmt.Sprintf("%s non-voter", id)) == 0
		if rapid.IntRange(0, 4).Draw(t, fmt.Sprintf("%s moved", id)) == 0 {
			// Onto the address of another, as after a lease of addresses ran out.
			p.Address = address(string(rune('a' + rapid.IntRange(0, peers).Draw(t, fmt.Sprintf("%s to", id)))))
		}
		s.Peers = append(s.Peers, p)
		kind := rapid.SampledFrom([]string{"voter", "replica", "newcomer"}).Draw(t, fmt.Sprintf("%s is", id))
		if leader {
			kind = "voter"
		}
		if kind == "newcomer" {
			continue
		}
		server := raft.Server{ID: id, Address: address(string(id)), Suffrage: raft.Nonvoter}
		if kind == "voter" {
			server.Suffrage = raft.Voter
		}
		s.Config.Servers = append(s.Config.Servers, server)
		st := quorum.Standing{Working: p.Alive && rapid.IntRange(0, 3).Draw(t, fmt.Sprintf("%s working", id)) > 0}
		if st.Working {
			st.Steady = rapid.SampledFrom([]time.Duration{time.Second, time.Minute}).Draw(t, fmt.Sprintf("%s steady", id))
		} else if !p.Alive {
			st.Absent = rapid.SampledFrom([]time.Duration{0, 2 * time.Minute, 100 * time.Hour}).Draw(t, fmt.Sprintf("%s absent", id))
		}
		s.Standings[id] = st
	}
	return s
}

func voters(c raft.Configuration) (ids []raft.ServerID) {
	for _, s := range c.Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, s.ID)
		}
	}
	return ids
}

// majorityWorks reports whether the leader and the voters that work are enough.
func majorityWorks(s quorum.Situation) bool {
	working := 0
	all := voters(s.Config)
	for _, id := range all {
		if id == s.Self || s.Standings[id].Working {
			working++
		}
	}
	return working > len(all)/2
}

func peerOf(s quorum.Situation, id raft.ServerID) quorum.Peer {
	return s.Peers[slices.IndexFunc(s.Peers, func(p quorum.Peer) bool { return p.ID == id })]
}

// TestEveryStepLeavesAWorkingMajority follows the plan to its end from any
// situation in which nothing else happens meanwhile.
func TestEveryStepLeavesAWorkingMajority(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSituation(t)
		set := quorum.Settings{Voters: rapid.SampledFrom([]int{0, 0, 1, 3, 5, 7}).Draw(t, "voters")}
		if !majorityWorks(s) {
			if step, _ := quorum.Next(s, set); step != nil {
				t.Fatalf("Next without a majority = %+v; want nothing", step)
			}
			return
		}
		for range 60 {
			step, _ := quorum.Next(s, set)
			if step == nil {
				checkEnd(t, s, set)
				return
			}
			checkStep(t, s, *step)
			before := voters(s.Config)
			apply(t, &s, *step)
			if changed := len(voters(s.Config)) - len(before); changed < -1 || changed > 1 {
				t.Fatalf("%+v changed %d voters at once", step, changed)
			}
			if !majorityWorks(s) {
				t.Fatalf("after %+v no majority works: %+v", step, s.Config.Servers)
			}
			checkAddresses(t, s.Config)
		}
		t.Fatalf("no end after 60 steps: %+v", s.Config.Servers)
	})
}

func checkStep(t *rapid.T, s quorum.Situation, step quorum.Step) {
	p, st := peerOf(s, step.ID), s.Standings[step.ID]
	switch step.Do {
	case quorum.Promote:
		if p.NonVoter || !p.Alive || !st.Working || st.Steady < 10*time.Second || p.Leaving {
			t.Fatalf("promoted %+v, %+v", p, st)
		}
	case quorum.Remove:
		if step.ID == s.Self || !p.Left && !p.Leaving && st.Absent < 72*time.Hour {
			t.Fatalf("removed %+v, %+v", p, st)
		}
	case quorum.Demote:
		if step.ID == s.Self {
			t.Fatal("the leader took its own vote")
		}
	case quorum.Add:
		if !p.Alive || p.Leaving {
			t.Fatalf("added %+v", p)
		}
	default:
	}
}

func checkAddresses(t *rapid.T, c raft.Configuration) {
	seen := make(map[raft.ServerAddress]bool)
	for _, s := range c.Servers {
		if seen[s.Address] {
			t.Fatalf("two servers at %s: Raft refuses that", s.Address)
		}
		seen[s.Address] = true
	}
}

// checkEnd says what holds when there is nothing left to do.
func checkEnd(t *rapid.T, s quorum.Situation, set quorum.Settings) {
	staying, steady, all := 0, 0, 0
	for _, server := range s.Config.Servers {
		p, st := peerOf(s, server.ID), s.Standings[server.ID]
		if p.Left {
			t.Fatalf("%s has left and is still there", server.ID)
		}
		if p.NonVoter || p.Leaving {
			continue
		}
		all++
		if server.Suffrage == raft.Voter {
			staying++
		}
		if server.ID == s.Self || server.Suffrage == raft.Voter || p.Alive && st.Working && st.Steady >= 10*time.Second {
			steady++
		}
	}
	limit := set.Voters
	if limit == 0 {
		limit = 3
		if all > 5 {
			limit = 5
		}
	}
	want := min(limit, steady)
	if want%2 == 0 {
		want--
	}
	if staying < want {
		t.Fatalf("%d voters stay in the end; want at least %d: %+v", staying, want, s.Config.Servers)
	}
}
