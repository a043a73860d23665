// Package quorum decides who is in the Raft configuration and who of them votes.
// The leader compares what gossip shows with the configuration and changes it one
// step at a time; every step leaves a majority that is there.
//
// It is not built on raft-autopilot: that decides by what its own state holds, in
// goroutines of its own, removes who failed at once and leaves newcomers, replicas
// beyond a cap, changed addresses and long absence to its caller. One pure function
// over all of these is less code and can be tested on any situation.
package quorum

import (
	"time"

	"github.com/hashicorp/raft"
)

// Peer is a peer as gossip shows it.
type Peer struct {
	ID       raft.ServerID
	Name     string
	Address  raft.ServerAddress // of its cluster port
	Alive    bool
	Left     bool   // for good, or declared gone
	Leaving  bool   // still alive, and about to leave for good
	Cluster  string // UUID; empty for a newcomer
	NonVoter bool
	Commands uint16 // newest version of commands that it understands
}

// Standing is how a server of the configuration has done lately, as [Watch] counts it.
type Standing struct {
	Working bool          // answers now and has nearly all of the log
	Steady  time.Duration // has been working for so long
	Absent  time.Duration // seen by nobody for so long, while there was a majority
}

// Situation is what a leader knows at one moment.
type Situation struct {
	Self      raft.ServerID // the leader
	Cluster   string        // UUID
	Commands  uint16        // version of commands in use
	Config    raft.Configuration
	Peers     []Peer // the leader included
	Standings map[raft.ServerID]Standing
}

// Settings bound what is done. Zero values mean the default.
type Settings struct {
	// Voters is how many peers vote: 1, 3, 5 or 7. By default 3, and 5 where more
	// than five peers may.
	Voters int
	// Stabilization is how long a replica works before it may vote; default 10 s.
	Stabilization time.Duration
	// ReplaceAfter is how long a voter is absent before a replica votes in its
	// place; default 1 min, which is longer than a restart.
	ReplaceAfter time.Duration
	// RemoveAfter is how long a peer is absent before it is no member any more;
	// default 72 h.
	RemoveAfter time.Duration
	// MinVoters is how few voters absence alone may leave; default 2.
	MinVoters int
}

func (s Settings) withDefaults() Settings {
	if s.Stabilization == 0 {
		s.Stabilization = 10 * time.Second
	}
	if s.ReplaceAfter == 0 {
		s.ReplaceAfter = time.Minute
	}
	if s.RemoveAfter == 0 {
		s.RemoveAfter = 72 * time.Hour
	}
	if s.MinVoters == 0 {
		s.MinVoters = 2
	}
	return s
}

// votersAmong returns how many of so many peers that may vote should, at most.
func (s Settings) votersAmong(eligible int) int {
	switch {
	case s.Voters > 0:
		return s.Voters
	case eligible > 5:
		return 5
	default:
		return 3
	}
}

// Action is what a [Step] does.
type Action string

// Actions of a [Step].
const (
	Add     Action = "add"     // a newcomer, as a replica
	Move    Action = "move"    // a server to another address
	Promote Action = "promote" // a replica to a voter
	Demote  Action = "demote"  // a voter to a replica
	Remove  Action = "remove"
)

// Step is one change of the configuration.
type Step struct {
	Do      Action
	ID      raft.ServerID
	Name    string             // empty where gossip knows none
	Address raft.ServerAddress // of an Add, Move or Promote
	Reason  string
}

// Note is a peer that is kept as it is, and why an operator may want to know.
type Note struct {
	ID   raft.ServerID
	Text string
}

// picture is a Situation made handy.
type picture struct {
	Situation
	set    Settings
	peers  map[raft.ServerID]Peer
	voters []raft.Server
	notes  []Note
}

func newPicture(s Situation, set Settings) *picture {
	p := &picture{Situation: s, set: set.withDefaults(), peers: make(map[raft.ServerID]Peer)}
	for _, peer := range s.Peers {
		p.peers[peer.ID] = peer
	}
	for _, server := range s.Config.Servers {
		if server.Suffrage == raft.Voter {
			p.voters = append(p.voters, server)
		}
	}
	return p
}

func (p *picture) working(id raft.ServerID) bool { return id == p.Self || p.Standings[id].Working }

// lost reports whether a voter has been away for longer than a restart takes.
func (p *picture) lost(id raft.ServerID) bool {
	return id != p.Self && p.Standings[id].Absent >= p.set.ReplaceAfter
}

// goes reports whether a peer is out for good, or about to be.
func (p *picture) goes(id raft.ServerID) bool { return p.peers[id].Left || p.peers[id].Leaving }

// staying returns how many voters are to keep their vote. Who goes, or was started
// anew with -non-voter, counts for nothing in what is decided about the others, but
// has its vote until it is taken.
func (p *picture) staying() (n int) {
	for _, v := range p.voters {
		if p.eligible(v.ID) {
			n++
		}
	}
	return n
}

// eligible reports whether a server may vote at all.
func (p *picture) eligible(id raft.ServerID) bool { return !p.peers[id].NonVoter && !p.goes(id) }

// majorityWithout reports whether the voters without one of them, or all of them
// for an empty id, have a majority that is working.
func (p *picture) majorityWithout(id raft.ServerID) bool {
	voters, working := 0, 0
	for _, v := range p.voters {
		if v.ID == id {
			continue
		}
		voters++
		if p.working(v.ID) {
			working++
		}
	}
	return working > voters/2
}

func (p *picture) note(id raft.ServerID, text string) {
	p.notes = append(p.notes, Note{ID: id, Text: text})
}

func (p *picture) name(id raft.ServerID) string {
	if name := p.peers[id].Name; name != "" {
		return name
	}
	return string(id)
}

func (p *picture) step(do Action, id raft.ServerID, reason string) *Step {
	return &Step{Do: do, ID: id, Name: p.peers[id].Name, Reason: reason}
}
