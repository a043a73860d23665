package quorum_test

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"srsx/cluster/quorum"
)

// observer drives a Watch second by second.
type observer struct {
	watch *quorum.Watch
	o     quorum.Observation
}

func newObserver(words ...string) *observer {
	s := scene(words...)
	o := &observer{watch: quorum.NewWatch()}
	o.o = quorum.Observation{
		Now: time.Unix(1000, 0), Quorum: true, Config: s.Config, Peers: s.Peers, Term: 7, Last: 5000,
		Contacts: make(map[raft.ServerID]quorum.Contact),
	}
	for _, p := range s.Peers {
		if p.Alive {
			o.answer(p.ID)
		}
	}
	return o
}

func (o *observer) answer(id raft.ServerID) {
	o.o.Contacts[id] = quorum.Contact{Answered: true, Term: o.o.Term, LastIndex: o.o.Last}
}

func (o *observer) vanish(id raft.ServerID) {
	o.gossip(id).Alive = false
	delete(o.o.Contacts, id)
}

func (o *observer) appear(id raft.ServerID) {
	o.gossip(id).Alive = true
	o.answer(id)
}

func (o *observer) gossip(id raft.ServerID) *quorum.Peer {
	return &o.o.Peers[slices.IndexFunc(o.o.Peers, func(p quorum.Peer) bool { return p.ID == id })]
}

func (o *observer) pass(d time.Duration) map[raft.ServerID]quorum.Standing {
	var standings map[raft.ServerID]quorum.Standing
	for end := o.o.Now.Add(d); !o.o.Now.After(end); o.o.Now = o.o.Now.Add(time.Second) {
		standings = o.watch.Observe(o.o)
	}
	return standings
}

func TestSteadinessBeginsAnewAfterEachGap(t *testing.T) {
	o := newObserver("aV", "bR")
	if st := o.pass(30 * time.Second)["b"]; !st.Working || st.Steady != 30*time.Second {
		t.Errorf("after 30 s: %+v; want 30 s steady", st)
	}
	for name, spoil := range map[string]quorum.Contact{
		"silent":       {},
		"other term":   {Answered: true, Term: 6, LastIndex: 5000},
		"far behind":   {Answered: true, Term: 7, LastIndex: 3000},
		"still behind": {Answered: true, Term: 7, LastIndex: 3999},
	} {
		o.o.Contacts["b"] = spoil
		if st := o.pass(0)["b"]; st.Working || st.Steady != 0 {
			t.Errorf("%s: %+v; want not working", name, st)
		}
		o.answer("b")
		if st := o.pass(5 * time.Second)["b"]; !st.Working || st.Steady != 5*time.Second {
			t.Errorf("5 s after %s: %+v; want 5 s steady", name, st)
		}
	}
}

func TestAbsenceCountsOnlyWhatALeaderWithAMajoritySaw(t *testing.T) {
	o := newObserver("aV", "bV", "cV-")
	if st := o.pass(time.Minute)["c"]; st.Absent != time.Minute {
		t.Errorf("after a minute: absent %s; want 1m0s", st.Absent)
	}
	o.o.Quorum = false
	if st := o.pass(time.Hour)["c"]; st.Absent != time.Minute {
		t.Errorf("after an hour without a majority: absent %s; want still 1m0s", st.Absent)
	}
	o.o.Quorum = true
	o.pass(0)
	o.o.Now = o.o.Now.Add(100 * time.Hour) // the leader itself was stopped
	if st := o.pass(0)["c"]; st.Absent > 2*time.Minute {
		t.Errorf("after the leader was stopped for days: absent %s; want that not to count", st.Absent)
	}
	o.appear("c")
	if st := o.pass(0)["c"]; st.Absent != 0 {
		t.Errorf("when it is back: absent %s; want 0", st.Absent)
	}
}

// TestOneWaySilenceIsNoAbsence: a peer that gossip misses but Raft reaches, or the
// other way round, is there.
func TestOneWaySilenceIsNoAbsence(t *testing.T) {
	o := newObserver("aV", "bV", "cV-")
	o.answer("c")
	if st := o.pass(time.Hour)["c"]; st.Absent != 0 || !st.Working {
		t.Errorf("reached by Raft alone: %+v; want present", st)
	}
	o.appear("c")
	delete(o.o.Contacts, "c")
	if st := o.pass(time.Hour)["c"]; st.Absent != 0 || st.Working {
		t.Errorf("reached by gossip alone: %+v; want present and not working", st)
	}
}

// TestRollingRestartShrinksNothing takes down one peer after the other, and then
// all but the leader, for as long as an operator may take.
func TestRollingRestartShrinksNothing(t *testing.T) {
	o := newObserver("aV", "bV", "cV", "dR", "eR")
	next := func(d time.Duration) *quorum.Step {
		s := quorum.Situation{Self: "a", Cluster: ourCluster, Commands: 1, Config: o.o.Config, Peers: o.o.Peers, Standings: o.pass(d)}
		step, _ := quorum.Next(s, quorum.Settings{})
		return step
	}
	for _, id := range []raft.ServerID{"b", "c", "d", "e"} {
		o.vanish(id)
		if step := next(50 * time.Second); step != nil {
			t.Errorf("while %s restarts: %s; want nothing", id, brief(step))
		}
		o.appear(id)
		if step := next(20 * time.Second); step != nil {
			t.Errorf("when %s is back: %s; want nothing", id, brief(step))
		}
	}
	for _, id := range []raft.ServerID{"b", "c", "d", "e"} {
		o.vanish(id)
	}
	o.o.Quorum = false
	if step := next(100 * time.Hour); step != nil {
		t.Errorf("while all are down: %s; want nothing", brief(step))
	}
	for _, id := range []raft.ServerID{"b", "c", "d", "e"} {
		o.appear(id)
	}
	o.o.Quorum = true
	if step := next(time.Minute); step != nil {
		t.Errorf("when all are back: %s; want nothing", brief(step))
	}
}

func TestThreeDaysOfAbsenceEndAMembership(t *testing.T) {
	o := newObserver("aV", "bV", "cV", "dR-")
	s := quorum.Situation{Self: "a", Cluster: ourCluster, Commands: 1, Config: o.o.Config, Peers: o.o.Peers}
	s.Standings = o.pass(72*time.Hour - time.Second)
	if step, _ := quorum.Next(s, quorum.Settings{}); step != nil {
		t.Errorf("a second before: %s; want nothing", brief(step))
	}
	s.Standings = o.pass(time.Second)
	if step, _ := quorum.Next(s, quorum.Settings{}); brief(step) != "remove d" {
		t.Errorf("after 72 h: %s; want remove d", brief(step))
	}
}
