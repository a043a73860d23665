package raftlb

import (
	"sync"
	"time"

	"srsx/fsm"
)

// leases are the leader's knowledge of which runs of peers live. A new leader
// knows nothing and gives every run time to say so.
type leases struct {
	ttl time.Duration

	mu    sync.Mutex // guards what follows
	until map[fsm.Holder]time.Time
}

// leadershipGrace is how much longer a new leader waits: peers have to find it.
const leadershipGrace = 30 * time.Second

func newLeases(ttl time.Duration) *leases {
	return &leases{ttl: ttl, until: make(map[fsm.Holder]time.Time)}
}

// reset gives all holders of a state time.
func (l *leases) reset(s *fsm.State, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range s.Holders() {
		l.until[h] = now.Add(l.ttl + leadershipGrace)
	}
}

// renew records a sign of life of one run. Former runs of the same peer are
// over: it has one data directory and one process.
func (l *leases) renew(h fsm.Holder, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until[h] = now.Add(l.ttl)
	for other := range l.until {
		if other.Peer == h.Peer && other.Epoch < h.Epoch {
			l.until[other] = now
		}
	}
}

// due returns the commands that end what lost runs held.
func (l *leases) due(s *fsm.State, now time.Time) []fsm.Command {
	l.mu.Lock()
	defer l.mu.Unlock()
	var commands []fsm.Command
	holders := s.Holders()
	present := make(map[fsm.Holder]bool, len(holders))
	for _, h := range holders {
		present[h] = true
		until, known := l.until[h]
		if !known { // it held something before its first news came
			l.until[h] = now.Add(l.ttl)
			continue
		}
		if now.After(until) {
			commands = append(commands, fsm.PeerGone{Holder: h})
		}
	}
	for h, until := range l.until {
		if !present[h] && now.After(until) {
			delete(l.until, h)
		}
	}
	return commands
}
