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
// not wait: the one that is furthest starts an election right away.
//
// Such an election goes past pre-vote and past the voters' loyalty to a leader,
// so it must never rest on what one peer sees: behind a firewall that resets
// connections a healthy leader looks dead.

const (
	// deathRest is how long a peer waits between two elections of this kind.
	deathRest = 10 * time.Second
	// deathPatience is how long the others get to see the same, before the
	// ordinary election is left to do it.
	deathPatience = 500 * time.Millisecond
	deathPause    = 5 * time.Millisecond
	// deathStagger is how much later each further voter starts: a vote takes
	// a message and a write to disk, which may be slow.
	deathStagger = 75 * time.Millisecond
)

// deaths holds which leader this peer has seen die.
type deaths struct {
	mu   sync.Mutex
	seen Leadership
	last time.Time // of the last election this peer started
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

// mayElect reports whether an election may start now, and notes it.
func (d *deaths) mayElect() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.last.IsZero() && time.Since(d.last) < deathRest {
		return false
	}
	d.last = time.Now()
	return true
}

// watchLeader waits for the death of whoever leads.
func (n *Node) watchLeader(ctx context.Context) {
	for ctx.Err() == nil {
		leader, changed := n.leaders.now()
		if leader.Leader != "" && leader.Leader != n.config.ID {
			watch, done := while(ctx, changed)
			if n.config.Processes.AwaitDeath(watch, leader.Leader) == nil && watch.Err() == nil {
				n.deaths.see(leader)
				n.succeed(watch, leader)
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
// die too. ctx ends when the leader changes.
func (n *Node) succeed(ctx context.Context, dead Leadership) {
	ctx, cancel := context.WithTimeout(ctx, deathPatience)
	defer cancel()
	for {
		rank, agreed := n.inquest(ctx, dead)
		if agreed {
			n.elect(ctx, dead, rank)
			return
		}
		select {
		case <-time.After(deathPause):
		case <-ctx.Done():
			return
		}
	}
}

// inquest asks the voters whether they saw the leader die. agreed: a majority of
// them did, this peer included. rank is how many of these are further than this
// peer, and so have a better chance to be elected.
func (n *Node) inquest(ctx context.Context, dead Leadership) (rank int, agreed bool) {
	request := binary.AppendUvarint(appendBytes(nil, []byte(dead.Leader)), dead.Term)
	own := n.testimony(dead.Leader, dead.Term)
	var (
		mu      sync.Mutex // guards further: late answers come after the return
		further int
	)
	err := n.majority(ctx, func(ctx context.Context, id string) bool {
		if id == n.config.ID {
			return own.saw
		}
		if id == dead.Leader {
			return false
		}
		reply, err := n.config.RPC.Call(ctx, id, kindDeath, request)
		if err != nil {
			return false
		}
		m := &message{rest: reply}
		t := testimony{saw: m.octet() == 1, term: m.uvarint(), last: m.uvarint(), id: id}
		if m.end() != nil || !t.saw {
			return false
		}
		if t.further(own) {
			mu.Lock()
			further++
			mu.Unlock()
		}
		return true
	})
	mu.Lock()
	rank = further
	mu.Unlock()
	return rank, err == nil
}

// testimony is what a voter says of a leader's death, and how far its log is.
type testimony struct {
	saw        bool
	term, last uint64
	id         string
}

func (t testimony) further(o testimony) bool {
	if t.term != o.term {
		return t.term > o.term
	}
	if t.last != o.last {
		return t.last > o.last
	}
	return t.id < o.id
}

func (n *Node) testimony(leader string, term uint64) testimony {
	lastTerm, _ := strconv.ParseUint(n.raft.Stats()["last_log_term"], 10, 64) // raft tells it nowhere else
	return testimony{saw: n.deaths.saw(leader, term), term: lastTerm, last: n.raft.LastIndex(), id: n.config.ID}
}

func (n *Node) answerDeath(ctx context.Context, from string, request []byte) ([]byte, error) {
	m := &message{rest: request}
	leader, term := m.text(), m.uvarint()
	if m.end() != nil {
		return nil, malformed("inquest", from)
	}
	t := n.testimony(leader, term)
	if !t.saw && n.config.Processes != nil && n.raft.CurrentTerm() == term {
		t.saw = n.config.Processes.Dead(ctx, leader)
	}
	b := []byte{0}
	if t.saw {
		b[0] = 1
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, t.term), t.last), nil
}

// elect starts an election of this peer, unless one that is further has had the
// time to win its own.
func (n *Node) elect(ctx context.Context, dead Leadership, rank int) {
	select {
	case <-time.After(time.Duration(rank) * deathStagger):
	case <-ctx.Done():
		return
	}
	if n.raft.CurrentTerm() != dead.Term || !n.deaths.mayElect() {
		return // another's election is on, or this peer had its own
	}
	n.log.InfoContext(ctx, "leader's process has died, starting an election", "leader", dead.Leader, "term", dead.Term, "rank", rank)
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
