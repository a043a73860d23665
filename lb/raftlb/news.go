package raftlb

import (
	"context"
	"sync"
	"time"

	"srsx/fsm"
	"srsx/lb"
)

// newsPace is how often a peer tells the leader what it heard, which is also the
// sign that this run of it lives.
const newsPace = time.Second

// news is what one peer heard since it last told the leader.
type news struct {
	Holder   fsm.Holder
	Beats    map[lb.OriginID]beat
	Suspects map[lb.OriginID]string // why
}

// beat is the last heartbeat of an origin. Ages, since clocks differ.
type beat struct {
	Ago  time.Duration
	Load *lb.Load
}

// softState is what is known of origins and not agreed: when they were heard,
// what load they reported. Every peer has the leader's, so that all show the
// same; it is gone with a restart and back within a heartbeat.
type softState struct {
	mu       sync.Mutex // guards what follows
	seen     map[lb.OriginID]sign
	fresh    map[lb.OriginID]bool // heard here since the last news
	suspects map[lb.OriginID]string
}

// sign is a sign of life.
type sign struct {
	at   time.Time
	load *lb.Load
}

// heard records a heartbeat that came to this peer.
func (s *softState) heard(r lb.Registration) {
	if r.Origin.Static {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen, s.fresh = make(map[lb.OriginID]sign), make(map[lb.OriginID]bool)
	}
	s.seen[r.Origin.ID] = sign{time.Now(), r.Load}
	s.fresh[r.Origin.ID] = true
}

func (s *softState) suspect(id lb.OriginID, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.suspects == nil {
		s.suspects = make(map[lb.OriginID]string)
	}
	s.suspects[id] = reason
}

func (s *softState) of(id lb.OriginID) sign {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[id]
}

// take returns what is to be told.
func (s *softState) take(holder fsm.Holder) news {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := news{Holder: holder, Beats: make(map[lb.OriginID]beat), Suspects: s.suspects}
	for id := range s.fresh {
		n.Beats[id] = beat{time.Since(s.seen[id].at), s.seen[id].load}
	}
	s.fresh, s.suspects = make(map[lb.OriginID]bool), nil
	return n
}

// untold puts back what the leader did not hear.
func (s *softState) untold(n news) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range n.Beats {
		s.fresh[id] = true
	}
	for id, reason := range n.Suspects {
		if s.suspects == nil {
			s.suspects = make(map[lb.OriginID]string)
		}
		s.suspects[id] = reason
	}
}

// learn takes over what the leader knows, where it is later.
func (s *softState) learn(beats map[lb.OriginID]beat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen, s.fresh = make(map[lb.OriginID]sign), make(map[lb.OriginID]bool)
	}
	for id := range s.seen {
		if _, known := beats[id]; !known && !s.fresh[id] {
			delete(s.seen, id) // removed
		}
	}
	for id, b := range beats {
		if at := time.Now().Add(-b.Ago); at.After(s.seen[id].at) {
			s.seen[id] = sign{at, b.Load}
		}
	}
}

// Suspect implements lb.Balancer: the leader probes, for all.
func (b *Balancer) Suspect(id lb.OriginID, reason error) {
	b.soft.suspect(id, reason.Error())
	b.upkeep.tell()
}

// exchange tells the leader the news and learns from it, until ctx ends.
func (b *Balancer) exchange(ctx context.Context, node Node) {
	pace := time.NewTicker(newsPace)
	defer pace.Stop()
	for {
		told := b.soft.take(b.config.Holder)
		var learnt map[lb.OriginID]beat
		limited, cancel := context.WithTimeout(ctx, questionTimeout)
		err := ask(limited, node, questionNews, told, &learnt)
		cancel()
		if err != nil {
			b.soft.untold(told)
		} else {
			b.soft.learn(learnt)
		}
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		case <-b.upkeep.urgent:
		}
	}
}

// answerNews takes what a peer heard and returns what the leader knows.
func (l *leadership) answerNews(n news) map[lb.OriginID]beat {
	l.leases.renew(n.Holder, time.Now())
	for id, heard := range n.Beats {
		l.decider.HeardAgo(id, heard.Ago, heard.Load)
	}
	for id, reason := range n.Suspects {
		l.decider.Suspect(id, suspectedError(reason))
	}
	known := make(map[lb.OriginID]beat)
	l.node.View(func(s *fsm.State) {
		for _, o := range s.Origins() {
			if seen, load := l.decider.LastSeen(o.ID); !seen.IsZero() {
				known[o.ID] = beat{time.Since(seen), load}
			}
		}
	})
	return known
}

// suspectedError is another peer's reason to suspect an origin.
type suspectedError string

func (e suspectedError) Error() string { return string(e) }
