package quorum_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"srsx/cluster/quorum"
)

const ourCluster = "c1"

func address(id string) raft.ServerAddress { return raft.ServerAddress(id + ".test:12026") }

// scene builds a situation from one word a server: its id, then V for a voter or
// R for a replica, and what is special: - away for a moment, x away for two
// minutes, X for four days, n -non-voter, l left, g about to leave, u not steady
// yet. A word that begins with + is a peer that is not in the configuration. The
// first word is the leader.
func scene(words ...string) quorum.Situation {
	s := quorum.Situation{Cluster: ourCluster, Commands: 1, Standings: make(map[raft.ServerID]quorum.Standing)}
	for i, word := range words {
		newcomer := strings.HasPrefix(word, "+")
		word = strings.TrimPrefix(word, "+")
		id, marks := raft.ServerID(word[:1]), word[1:]
		has := func(mark string) bool { return strings.Contains(marks, mark) }
		if i == 0 {
			s.Self = id
		}
		gone := has("-") || has("x") || has("X") || has("l")
		s.Peers = append(s.Peers, quorum.Peer{
			ID: id, Name: "n" + string(id), Address: address(string(id)), Cluster: ourCluster, Commands: 1,
			Alive: !gone, Left: has("l"), Leaving: has("g"), NonVoter: has("n"),
		})
		if newcomer {
			continue
		}
		server := raft.Server{ID: id, Address: address(string(id)), Suffrage: raft.Nonvoter}
		if has("V") {
			server.Suffrage = raft.Voter
		}
		s.Config.Servers = append(s.Config.Servers, server)
		st := quorum.Standing{Working: !gone, Steady: time.Minute}
		switch {
		case has("u"):
			st.Steady = time.Second
		case has("x"):
			st.Absent = 2 * time.Minute
		case has("X"):
			st.Absent = 96 * time.Hour
		}
		s.Standings[id] = st
	}
	return s
}

func brief(step *quorum.Step) string {
	if step == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s %s", step.Do, step.ID)
}

func TestNextStep(t *testing.T) {
	for _, c := range []struct {
		name  string
		scene []string
		set   quorum.Settings
		want  string
	}{
		{"alone", []string{"aV"}, quorum.Settings{}, "nothing"},
		{"newcomer becomes a replica", []string{"aV", "+b"}, quorum.Settings{}, "add b"},
		{"newcomers in order", []string{"aV", "+c", "+b"}, quorum.Settings{}, "add b"},
		{"newcomer about to leave is not let in", []string{"aV", "+bg"}, quorum.Settings{}, "nothing"},
		{"two peers keep one voter", []string{"aV", "bR"}, quorum.Settings{}, "nothing"},
		{"a third makes three", []string{"aV", "bR", "cR"}, quorum.Settings{}, "promote b"},
		{"second of the two", []string{"aV", "bV", "cR"}, quorum.Settings{}, "promote c"},
		{"not before it is steady", []string{"aV", "bR", "cRu"}, quorum.Settings{}, "nothing"},
		{"not when it was told not to", []string{"aV", "bR", "cRn"}, quorum.Settings{}, "nothing"},
		{"three of five vote", []string{"aV", "bV", "cV", "dR", "eR"}, quorum.Settings{}, "nothing"},
		{"five of six", []string{"aV", "bV", "cV", "dR", "eR", "fR"}, quorum.Settings{}, "promote d"},
		{"five of five by request", []string{"aV", "bV", "cV", "dR", "eR"}, quorum.Settings{Voters: 5}, "promote d"},
		{"one by request", []string{"aV", "bR", "cR"}, quorum.Settings{Voters: 1}, "nothing"},
		{"back to three when the sixth has left", []string{"aV", "bV", "cV", "dV", "eV"}, quorum.Settings{}, "demote e"},
		{"the leader keeps its vote", []string{"eV", "aV", "bV", "cV", "dV"}, quorum.Settings{}, "demote d"},
		{"who is away loses the vote first", []string{"aV", "bVx", "cV", "dV", "eV"}, quorum.Settings{}, "demote b"},
		{"asked not to vote", []string{"aV", "bVn", "cV"}, quorum.Settings{}, "demote b"},
		{"asked not to vote, and needed", []string{"aV", "bVn", "cV-"}, quorum.Settings{}, "nothing"},
		{"a restart changes nothing", []string{"aV", "bV-", "cV", "dR"}, quorum.Settings{}, "nothing"},
		{"lost voter makes room", []string{"aV", "bVx", "cV", "dR"}, quorum.Settings{}, "demote b"},
		{"lost voter without a substitute stays", []string{"aV", "bVx", "cV"}, quorum.Settings{}, "nothing"},
		{"substitute must be steady", []string{"aV", "bVx", "cV", "dRu"}, quorum.Settings{}, "nothing"},
		{"then the substitute votes", []string{"aV", "bRx", "cV", "dR"}, quorum.Settings{}, "promote d"},
		{"no step without a majority", []string{"aV", "bV-", "cV-", "dR", "+e"}, quorum.Settings{}, "nothing"},
		{"no step by one who does not vote", []string{"aR", "bV", "cV", "+e"}, quorum.Settings{}, "nothing"},
		{"who left is removed", []string{"aV", "bV", "cVl"}, quorum.Settings{}, "remove c"},
		{"replica that left is removed", []string{"aV", "bRl"}, quorum.Settings{}, "remove b"},
		{"who is about to leave is removed", []string{"aV", "bV", "cVg"}, quorum.Settings{}, "remove c"},
		{"but not when that costs the majority", []string{"aV", "bV-", "cVg"}, quorum.Settings{}, "nothing"},
		{"the leader is not removed", []string{"aVg", "bV", "cV"}, quorum.Settings{}, "nothing"},
		{"only voter about to leave gets a successor", []string{"aVg", "bR"}, quorum.Settings{}, "promote b"},
		{"who must not vote is none", []string{"aVg", "bRn"}, quorum.Settings{}, "nothing"},
		{"nor who is not steady", []string{"aVg", "bRu"}, quorum.Settings{}, "nothing"},
		{"leader about to leave is replaced first", []string{"aVg", "bV", "cV", "dR"}, quorum.Settings{}, "promote d"},
		{"and is no voter too many then", []string{"aVg", "bV", "cV", "dV"}, quorum.Settings{}, "nothing"},
		{"a replica votes so that one may leave", []string{"aV", "bV-", "cVg", "dR"}, quorum.Settings{}, "promote d"},
		{"then it may", []string{"aV", "bV-", "cVg", "dV"}, quorum.Settings{}, "remove c"},
		{"two after a leave are kept", []string{"aV", "bV"}, quorum.Settings{}, "nothing"},
		{"replica away for days is removed", []string{"aV", "bRX"}, quorum.Settings{}, "remove b"},
		{"voter away for days is removed", []string{"aV", "bV", "cVX"}, quorum.Settings{}, "remove c"},
		{"but not below what is asked for", []string{"aV", "bV", "cVX"}, quorum.Settings{MinVoters: 3}, "nothing"},
		{"voter away for days, many vote", []string{"aV", "bV", "cV", "dV", "eVX"}, quorum.Settings{Voters: 5}, "remove e"},
		{"four are one too many", []string{"aV", "bV", "cV", "dV"}, quorum.Settings{Voters: 5}, "demote d"},
		{"four wait for a fifth", []string{"aV", "bV", "cV", "dV", "eRu"}, quorum.Settings{Voters: 5}, "nothing"},
	} {
		step, _ := quorum.Next(scene(c.scene...), c.set)
		if got := brief(step); got != c.want {
			t.Errorf("%s: Next(%v) = %s; want %s", c.name, c.scene, got, c.want)
		}
	}
}

func TestAddressIsUpdatedInPlace(t *testing.T) {
	s := scene("aV", "bV", "cV")
	s.Peers[1].Address = "new.test:12026"
	step, _ := quorum.Next(s, quorum.Settings{})
	if brief(step) != "move b" || step.Address != "new.test:12026" {
		t.Errorf("Next = %+v; want b moved to its new address", step)
	}
}

func TestSwappedAddressesArePossible(t *testing.T) {
	s := scene("aV", "bV", "cV")
	s.Peers[1].Address, s.Peers[2].Address = address("c"), address("b")
	var steps []string
	for range 10 {
		step, _ := quorum.Next(s, quorum.Settings{})
		if step == nil {
			break
		}
		steps = append(steps, brief(step))
		apply(t, &s, *step)
	}
	if len(steps) != 3 || s.Config.Servers[1].Address != address("c") || s.Config.Servers[2].Address != address("b") {
		t.Errorf("after %v: %+v; want b and c swapped in three steps", steps, s.Config.Servers)
	}
}

func TestNewcomerAtTheAddressOfOneThatIsAway(t *testing.T) {
	s := scene("aV", "bV-", "cV", "+d")
	s.Peers[3].Address = address("b")
	step, _ := quorum.Next(s, quorum.Settings{})
	if brief(step) != "move b" || !quorum.Parked(step.Address) {
		t.Fatalf("Next = %+v; want b parked", step)
	}
	apply(t, &s, *step)
	step, _ = quorum.Next(s, quorum.Settings{})
	if brief(step) != "add d" {
		t.Fatalf("then Next = %s; want add d", brief(step))
	}
	apply(t, &s, *step)
	s.Peers[1].Alive, s.Peers[1].Address = true, "again.test:12026"
	if step, _ = quorum.Next(s, quorum.Settings{}); brief(step) != "move b" || step.Address != "again.test:12026" {
		t.Errorf("when b is back Next = %+v; want it at its address", step)
	}
}

func TestOddPeersAreLeftAndNamed(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*quorum.Situation)
		want   string
	}{
		"old release":     {func(s *quorum.Situation) { s.Commands = 2; s.Peers[0].Commands = 2 }, "newer release"},
		"same address":    {func(s *quorum.Situation) { s.Peers[1].Address = address("a") }, "is the address of na"},
		"other cluster":   {func(s *quorum.Situation) { s.Peers[1].Cluster = "c2" }, ""},
		"was sent off":    {func(s *quorum.Situation) { s.Peers[1].Left = true }, ""},
		"is not there":    {func(s *quorum.Situation) { s.Peers[1].Alive = false }, ""},
		"leader replicas": {func(s *quorum.Situation) { s.Peers[0].NonVoter = true; s.Peers[1].Alive = false }, "transfer the leadership"},
	} {
		s := scene("aV", "+b")
		c.change(&s)
		step, notes := quorum.Next(s, quorum.Settings{})
		if step != nil {
			t.Errorf("%s: Next = %s; want nothing", name, brief(step))
		}
		told := fmt.Sprint(notes)
		if (c.want == "") != (len(notes) == 0) || !strings.Contains(told, c.want) {
			t.Errorf("%s: told %q; want %q", name, told, c.want)
		}
	}
	s := scene("aV", "+b")
	s.Peers[1].Cluster = ""
	if step, _ := quorum.Next(s, quorum.Settings{}); brief(step) != "add b" {
		t.Errorf("peer without a cluster: Next = %s; want add b", brief(step))
	}
}

func TestMayLeave(t *testing.T) {
	for _, c := range []struct {
		scene []string
		id    raft.ServerID
		want  string // empty: it may
	}{
		{[]string{"aV", "bV", "cV"}, "a", ""},
		{[]string{"aV", "bV", "cV"}, "b", ""},
		{[]string{"aV", "bV", "cV-"}, "b", "nc away"},
		{[]string{"aV", "bV", "cV-", "dR"}, "d", ""},
		{[]string{"aV"}, "a", "only voter"},
		{[]string{"aV", "bR"}, "a", "only voter"},
		{[]string{"aV", "bVx", "cV-"}, "b", ""}, // as good as gone already
	} {
		err := quorum.MayLeave(scene(c.scene...), c.id)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("MayLeave(%v, %s) = %v; want %q", c.scene, c.id, err, c.want)
		}
	}
}

func TestFirstConfiguration(t *testing.T) {
	for peers, voters := range map[int]int{1: 1, 2: 1, 3: 3, 4: 3, 5: 3, 6: 5, 7: 5} {
		var all []quorum.Peer
		for i := peers - 1; i >= 0; i-- {
			id := raft.ServerID(rune('a' + i))
			all = append(all, quorum.Peer{ID: id, Address: address(string(id))})
		}
		c := quorum.First(all, quorum.Settings{})
		got := 0
		for _, s := range c.Servers {
			if s.Suffrage == raft.Voter {
				got++
			}
		}
		if got != voters || len(c.Servers) != peers || c.Servers[0].ID != "a" || c.Servers[0].Suffrage != raft.Voter {
			t.Errorf("First of %d peers = %+v; want all of them, %d voters, the lowest among them", peers, c.Servers, voters)
		}
	}
}

func TestCommandVersionIsWhatAllUnderstand(t *testing.T) {
	for _, c := range []struct {
		name  string
		said  [3]uint16 // by each of the servers; 0 is never heard of
		inUse uint16
		want  uint16
	}{
		{"all new", [3]uint16{3, 3, 3}, 1, 3},
		{"one that is away last said 2", [3]uint16{3, 2, 3}, 1, 2},
		{"one is newer than this release", [3]uint16{3, 3, 4}, 1, 3},
		{"one was never heard of", [3]uint16{3, 3, 0}, 1, 1},
		{"one was never heard of, and 2 are in use", [3]uint16{3, 3, 0}, 2, 2},
	} {
		s := scene("aV", "bV-", "cR")
		var known []quorum.Peer
		for i, said := range c.said {
			s.Peers[i].Commands = said
			if said != 0 {
				known = append(known, s.Peers[i])
			}
		}
		if got := quorum.CommandVersion(s.Config, known, 3, c.inUse); got != c.want {
			t.Errorf("%s: CommandVersion = %d; want %d", c.name, got, c.want)
		}
	}
}

// apply changes the configuration as Raft does.
func apply(t fataler, s *quorum.Situation, step quorum.Step) {
	t.Helper()
	servers := s.Config.Clone().Servers
	at := -1
	for i := range servers {
		if servers[i].ID == step.ID {
			at = i
		}
	}
	switch {
	case step.Do == quorum.Add && at < 0:
		servers = append(servers, raft.Server{ID: step.ID, Address: step.Address, Suffrage: raft.Nonvoter})
	case step.Do == quorum.Move && at >= 0:
		servers[at].Address = step.Address
	case step.Do == quorum.Promote && at >= 0 && servers[at].Suffrage == raft.Nonvoter && servers[at].Address == step.Address:
		servers[at].Suffrage = raft.Voter
	case step.Do == quorum.Demote && at >= 0 && servers[at].Suffrage == raft.Voter:
		servers[at].Suffrage = raft.Nonvoter
	case step.Do == quorum.Remove && at >= 0:
		servers = append(servers[:at], servers[at+1:]...)
	default:
		t.Fatalf("step %+v does not fit %+v", step, s.Config.Servers)
	}
	s.Config.Servers = servers
}

// fataler is a test, also one of rapid.
type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

// A voter that was started anew with -non-voter can lose its vote only once another
// has one: until then it must not take the place.
func TestReplicaVotesInThePlaceOfANonVoter(t *testing.T) {
	server := func(id string, suffrage raft.ServerSuffrage) raft.Server {
		return raft.Server{ID: raft.ServerID(id), Address: address(id), Suffrage: suffrage}
	}
	peer := func(id string) quorum.Peer {
		return quorum.Peer{ID: raft.ServerID(id), Address: address(id), Alive: true, Cluster: ourCluster, Commands: 1}
	}
	away, demoted := peer("b"), peer("c")
	away.Alive, demoted.NonVoter = false, true
	s := quorum.Situation{
		Self: "a", Cluster: ourCluster, Commands: 1,
		Config: raft.Configuration{Servers: []raft.Server{
			server("a", raft.Voter), server("b", raft.Voter), server("c", raft.Voter), server("d", raft.Nonvoter),
		}},
		Peers: []quorum.Peer{peer("a"), away, demoted, peer("d")},
		Standings: map[raft.ServerID]quorum.Standing{
			"c": {Working: true, Steady: time.Hour}, "d": {Working: true, Steady: time.Hour},
		},
	}
	step, _ := quorum.Next(s, quorum.Settings{})
	if step == nil || step.Do != quorum.Promote || step.ID != "d" {
		t.Fatalf("Next = %+v; want d promoted", step)
	}
	s.Config.Servers[3].Suffrage = raft.Voter
	if step, _ = quorum.Next(s, quorum.Settings{}); step == nil || step.Do != quorum.Demote || step.ID != "c" {
		t.Errorf("Next then = %+v; want c demoted", step)
	}
}
