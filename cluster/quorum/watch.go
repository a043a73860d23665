package quorum

import (
	"time"

	"github.com/hashicorp/raft"
)

const (
	// maxTrailing is how many entries a working server may be behind.
	maxTrailing = 1000
	// maxGap is how much of the time between two observations counts as absence: a
	// process that was stopped has not watched anybody.
	maxGap = 10 * time.Second
)

// Contact is what a server answered the leader just now.
type Contact struct {
	Answered  bool
	Term      uint64
	LastIndex uint64
}

// Watch counts how long each server has been working or absent, from when its
// leader became the leader: nobody is removed for an absence that another leader
// saw. It is not safe for concurrent use.
type Watch struct {
	last    time.Time
	quorum  bool // at last
	servers map[raft.ServerID]*watched
}

type watched struct {
	working bool
	since   time.Time // working from
	absent  time.Duration
}

// NewWatch begins when this peer has become the leader.
func NewWatch() *Watch { return &Watch{servers: make(map[raft.ServerID]*watched)} }

// Observation is what a leader sees at one moment.
type Observation struct {
	Now      time.Time
	Quorum   bool // a majority has just confirmed the leader
	Config   raft.Configuration
	Peers    []Peer
	Contacts map[raft.ServerID]Contact
	Term     uint64 // of the leader
	Last     uint64 // index of its log
}

// Observe takes in what is seen now and returns how everybody does.
func (w *Watch) Observe(o Observation) map[raft.ServerID]Standing {
	var gap time.Duration
	if w.quorum && o.Quorum {
		gap = min(o.Now.Sub(w.last), maxGap)
	}
	w.last, w.quorum = o.Now, o.Quorum
	alive := make(map[raft.ServerID]bool)
	for _, p := range o.Peers {
		alive[p.ID] = p.Alive
	}
	kept := make(map[raft.ServerID]*watched)
	standings := make(map[raft.ServerID]Standing)
	for _, s := range o.Config.Servers {
		k := w.servers[s.ID]
		if k == nil {
			k = &watched{}
		}
		kept[s.ID] = k
		c := o.Contacts[s.ID]
		k.absent += gap
		if alive[s.ID] || c.Answered {
			k.absent = 0
		}
		k.see(o, c)
		standing := Standing{Working: k.working, Absent: k.absent}
		if k.working {
			standing.Steady = o.Now.Sub(k.since)
		}
		standings[s.ID] = standing
	}
	w.servers = kept
	return standings
}

func (k *watched) see(o Observation, c Contact) {
	working := c.Answered && c.Term == o.Term && c.LastIndex+maxTrailing >= o.Last
	if working && !k.working {
		k.since = o.Now
	}
	k.working = working
}
