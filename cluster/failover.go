package cluster

import (
	"context"
	"encoding/binary"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A leader whose process dies is missed by its heartbeats within a second. But
// its kernel closes its connections at once and refuses new ones, which cannot
// be mistaken for a slow host. When a majority of the voters sees that, they need
// not wait: one of them starts an election right away.
//
// Such an election goes past pre-vote and past the voters' loyalty to a leader,
// so it must never rest on what one peer sees: behind a firewall that resets
// connections a healthy leader looks dead. And it must be one election: two that
// start at once split the votes, and then all wait for the timeout after all. So
// each voter backs one candidate at a time, and a candidate needs a majority.

const (
	// deathRest is how long a peer waits between two elections of this kind.
	deathRest = 10 * time.Second
	// deathPatience is how long a peer tries, before the ordinary election is
	// left to do it.
	deathPatience = time.Second
	deathPause    = 5 * time.Millisecond
	// backing is how long a voter backs a candidate, and how long an election
	// gets: a message and a write to disk, which may be slow.
	backing = 250 * time.Millisecond
)

// deaths is what this peer knows of the death of a leader.
type deaths struct {
	mu     sync.Mutex
	seen   Leadership // whose death this peer has seen
	backed string     // the candidate that this peer backs, perhaps itself
	until  time.Time  // when that ends
	last   time.Time  // when this peer last started an election
}

func (d *deaths) see(l Leadership) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen = l
}

func (d *deaths) saw(id string, term uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.seen.Leader == id && d.seen.Term == term
}

// back reports whether this peer backs a candidate, which may be itself. It goes
// over from itself to one that is further, and never from another.
func (d *deaths) back(candidate, self standing) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	rested := d.last.IsZero() || now.Sub(d.last) >= deathRest
	started := !d.last.IsZero() && now.Sub(d.last) < backing
	switch free := d.backed == "" || now.After(d.until); {
	case started:
		return false
	case candidate.id == self.id && !rested:
		return false
	case candidate.id != self.id && rested && self.further(candidate):
		return false // this peer is the better one, and able to
	case !free && d.backed != candidate.id && d.backed != self.id:
		return false
	}
	d.backed, d.until = candidate.id, now.Add(backing)
	return true
}

// start reports whether this peer may start its election now, and notes it. From
// then on it does not go over to another.
func (d *deaths) start(self string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.backed != self {
		return false
	}
	d.last = time.Now()
	return true
}

// standing is how far the log of a voter is, by which raft's voters judge.
type standing struct {
	id         string
	term, last uint64 // of the last entry
}

func (s standing) further(o standing) bool {
	switch {
	case s.term != o.term:
		return s.term > o.term
	case s.last != o.last:
		return s.last > o.last
	default:
		return s.id < o.id
	}
}

func (n *Node) standing() standing {
	term, _ := strconv.ParseUint(n.raft.Stats()["last_log_term"], 10, 64) // raft tells it nowhere else
	return standing{id: n.config.ID, term: term, last: n.raft.LastIndex()}
}

// watchLeader waits for the death of whoever leads.
func (n *Node) watchLeader(ctx context.Context) {
	for ctx.Err() == nil {
		leader, changed := n.leaders.now()
		if leader.Leader != "" && leader.Leader != n.config.ID {
			watch, done := until(ctx, changed, errLeaderChanged)
			if n.config.Processes.AwaitDeath(watch, leader.Leader) == nil && watch.Err() == nil {
				n.deaths.see(leader)
				n.succeed(ctx, leader)
			}
			done()
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// succeed starts an election once a majority of the voters has seen the leader
// die too and backs this peer, until somebody leads.
func (n *Node) succeed(ctx context.Context, dead Leadership) {
	ctx, cancel := context.WithTimeout(ctx, deathPatience)
	defer cancel()
	term, elected := dead.Term, time.Time{}
	for {
		if l, _ := n.leaders.now(); l.Leader != "" && l.Leader != dead.Leader || l.Term > dead.Term && l.Leader != "" {
			return
		}
		if t := n.raft.CurrentTerm(); t != term {
			term, elected = t, time.Now() // somebody's election is on
		}
		if time.Since(elected) > backing && n.backedByMajority(ctx, dead) && n.deaths.start(n.config.ID) {
			n.elect(ctx, dead)
			return
		}
		select {
		case <-time.After(deathPause):
		case <-ctx.Done():
			return
		}
	}
}

// backedByMajority asks the voters whether they saw the leader die, and back
// this peer.
func (n *Node) backedByMajority(ctx context.Context, dead Leadership) bool {
	self := n.standing()
	if !n.deaths.back(self, self) {
		return false
	}
	request := binary.AppendUvarint(appendBytes(nil, []byte(dead.Leader)), dead.Term)
	request = binary.AppendUvarint(binary.AppendUvarint(request, self.term), self.last)
	ctx, cancel := context.WithTimeout(ctx, backing)
	defer cancel()
	return n.majority(ctx, func(ctx context.Context, id string) bool {
		switch id {
		case n.config.ID:
			return true
		case dead.Leader:
			return false
		}
		return n.askYes(ctx, id, kindDeath, request)
	}) == nil
}

func (n *Node) answerDeath(ctx context.Context, from string, request []byte) ([]byte, error) {
	m := &message{rest: request}
	leader, term := m.text(), m.uvarint()
	candidate := standing{id: from, term: m.uvarint(), last: m.uvarint()}
	if m.end() != nil {
		return nil, malformed("inquest", from)
	}
	return yesOrNo(n.sawDeath(ctx, leader, term) && n.deaths.back(candidate, n.standing())), nil
}

// sawDeath reports whether this peer sees that the leader of a term has died, and
// knows of none since.
func (n *Node) sawDeath(ctx context.Context, leader string, term uint64) bool {
	if l, _ := n.leaders.now(); l.Leader != "" && (l.Leader != leader || l.Term != term) {
		return false
	}
	return n.deaths.saw(leader, term) || n.config.Processes != nil && n.config.Processes.Dead(ctx, leader)
}

// elect starts an election of this peer.
func (n *Node) elect(ctx context.Context, dead Leadership) {
	n.log.InfoContext(ctx, "leader's process has died, starting an election", "leader", dead.Leader, "term", dead.Term)
	// Raft offers no other way to start one than the message by which a leader
	// names its successor.
	self := n.config.Transport.LocalAddr()
	err := n.config.Transport.TimeoutNow(raft.ServerID(n.config.ID), self, &raft.TimeoutNowRequest{
		RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(n.config.ID)},
	}, &raft.TimeoutNowResponse{})
	if err != nil {
		n.log.WarnContext(ctx, "election not started", "err", err)
	}
}
