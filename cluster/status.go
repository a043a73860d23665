package cluster

import (
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Status is how a peer stands in the cluster.
type Status struct {
	ID    string
	State string // leader, follower, candidate or shutdown
	Leadership
	Applied   uint64 // last entry in the state
	Committed uint64 // last entry known to be agreed
	Last      uint64 // last entry in the log, or in a snapshot
	// LastContact is when the leader was heard last; zero: never, or it is us.
	LastContact time.Time
	// LeaderlessSince is since when nobody is known to lead; zero: somebody is.
	LeaderlessSince time.Time
	Fenced          bool
	Halted          error // why no entry is applied any more; nil: they are
}

// Status returns how this peer stands now.
func (n *Node) Status() Status {
	l, _ := n.leaders.now()
	s := Status{
		ID:              n.config.ID,
		State:           strings.ToLower(n.raft.State().String()),
		Leadership:      l,
		Committed:       n.raft.CommitIndex(),
		Last:            n.raft.LastIndex(),
		LeaderlessSince: n.leaders.leaderless(),
		Fenced:          n.fenced.Load(),
	}
	s.Applied, s.Halted = n.machine.position()
	s.Committed = max(s.Committed, s.Applied)
	if n.raft.State() != raft.Leader {
		s.LastContact = n.raft.LastContact()
	}
	return s
}

// Decisive returns nil when something new can be agreed as far as this peer
// knows, else why not.
func (n *Node) Decisive() error {
	if err := n.refused(); err != nil {
		return err
	}
	if l, _ := n.leaders.now(); l.Leader == "" {
		return ErrNoLeader
	}
	return nil
}
