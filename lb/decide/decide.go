// Package decide is the side of a backend that one peer at a time has, the
// leader of a cluster or a peer that is alone: it turns wishes and news into
// commands. It reads the state machine and never changes it.
package decide

import (
	"context"
	"sync"
	"time"

	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/liveness"
)

// Decider knows what the state machine does not: the loads that origins report,
// when they were last heard, what is under way. Its methods are safe for
// concurrent use, but the caller sees to it that a state which is passed in
// does not change meanwhile.
type Decider struct {
	tracker *liveness.Tracker

	mu      sync.Mutex // guards what follows
	policy  fsm.Policy
	loads   map[lb.OriginID]lb.Load
	retired map[lb.OriginID]lb.Incarnation // the run before the current one
	coming  map[lb.OriginID]int            // streams chosen for it and not yet placed
}

// New returns a decider for an empty state. Run must run.
func New(policy fsm.Policy, proposer liveness.Proposer, config liveness.Config) *Decider {
	return &Decider{
		tracker: liveness.New(proposer, config),
		policy:  policy,
		loads:   make(map[lb.OriginID]lb.Load),
		retired: make(map[lb.OriginID]lb.Incarnation),
		coming:  make(map[lb.OriginID]int),
	}
}

// Run probes origins until ctx ends.
func (d *Decider) Run(ctx context.Context) { d.tracker.Run(ctx) }

// SetPolicy replaces the policy for placements from now on.
func (d *Decider) SetPolicy(p fsm.Policy) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.policy = p
}

// Follow takes over what commands changed. s is as they left it.
func (d *Decider) Follow(s *fsm.State, results ...fsm.Result) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, result := range results {
		for _, change := range result.Changes {
			d.follow(s, change)
		}
	}
}

func (d *Decider) follow(s *fsm.State, change fsm.Change) {
	if change.Origin == "" || !change.Stream.IsZero() {
		return
	}
	if o, known := s.Origin(change.Origin); known {
		d.tracker.Watch(o)
		return
	}
	d.tracker.Forget(change.Origin)
	delete(d.loads, change.Origin)
	delete(d.retired, change.Origin)
}

// Reset starts anew from a state: the peer has just become the one that
// decides, or a snapshot has replaced its state.
func (d *Decider) Reset(s *fsm.State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.coming)
	for _, o := range s.Origins() {
		d.tracker.Watch(o)
	}
}

// Place chooses an origin for a stream, or names the one that it is on, as a
// command that holds it. The error is fsm.ErrNoCandidate, with the reasons. The
// stream counts as load of the origin until Settled.
func (d *Decider) Place(s *fsm.State, w lb.Want, holder fsm.Holder) (fsm.Place, error) {
	place := fsm.Place{Stream: w.Stream, Holder: holder, Publish: w.Publish}
	if p, placed := s.Placement(w.Stream); placed {
		if o, known := s.Origin(p.Origin); known && o.State != lb.Down && o.Incarnation == p.Incarnation {
			return place, served(o, w.Protocol)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	chosen, err := d.policy.Choose(s, d.query(w))
	if err != nil {
		return place, err
	}
	place.Origin, place.Incarnation = chosen.Origin, chosen.Incarnation
	d.coming[place.Origin]++
	return place, nil
}

// Settled tells that a command of Place was applied, or never will be.
func (d *Decider) Settled(place fsm.Place) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.coming[place.Origin]--; d.coming[place.Origin] <= 0 {
		delete(d.coming, place.Origin)
	}
}

// query puts a wish to the policy. d.mu is held until it has answered.
func (d *Decider) query(w lb.Want) fsm.Query {
	return fsm.Query{
		Stream: w.Stream, Protocol: w.Protocol, Avoid: w.Avoid, Now: time.Now(),
		Load: func(id lb.OriginID) fsm.Load {
			return fsm.Load{CPUPercent: d.loads[id].CPUPercent, Coming: d.coming[id]}
		},
	}
}

// Explain says where a stream is or would be placed, by the code that places.
func (d *Decider) Explain(s *fsm.State, w lb.Want) lb.Explanation {
	d.mu.Lock()
	decision := d.policy.Explain(s, d.query(w))
	d.mu.Unlock()
	e := lb.Explanation{Stream: w.Stream, Rule: decision.Rule, Pool: decision.Pool}
	if p, ok := s.Placement(w.Stream); ok {
		e.Placed = &p
	}
	for _, c := range decision.Candidates {
		e.Candidates = append(e.Candidates, lb.Candidate{Origin: c.Origin, Score: c.Score, Reason: c.Reason, Chosen: c.Chosen})
	}
	return e
}
