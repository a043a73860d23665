package raftlb

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"srsx/fsm"
	"srsx/lb"
)

// upkeep brings what the cluster thinks that this peer holds up to what its
// sessions hold: without haste, in batches, and again until it succeeds.
type upkeep struct {
	mu          sync.Mutex // guards what follows
	streams     map[lb.Stream]struct{}
	unpublished map[lb.Stream]uint64 // generation
	acquiring   map[lb.Stream]int    // the cluster may know of a hold before its session does
	everything  bool

	work   chan struct{} // has a value when there is something to do
	urgent chan struct{} // has a value when news should not wait
}

const (
	upkeepBatch = 256
	upkeepPause = 200 * time.Millisecond // after a failure
)

func (u *upkeep) init() {
	u.streams = make(map[lb.Stream]struct{})
	u.unpublished = make(map[lb.Stream]uint64)
	u.acquiring = make(map[lb.Stream]int)
	u.work = make(chan struct{}, 1)
	u.urgent = make(chan struct{}, 1)
}

// check has a stream compared.
func (u *upkeep) check(s lb.Stream) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.streams[s] = struct{}{}
	u.wake()
}

// begin tells that a hold of a stream is being asked for: until end nothing is
// released for want of a session.
func (u *upkeep) begin(s lb.Stream) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.acquiring[s]++
}

// end takes begin back and has the stream compared.
func (u *upkeep) end(s lb.Stream) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.acquiring[s]--; u.acquiring[s] > 0 {
		return
	}
	delete(u.acquiring, s)
	u.streams[s] = struct{}{}
	u.wake()
}

func (u *upkeep) isAcquiring(s lb.Stream) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.acquiring[s] > 0
}

// checkAll has everything compared that sessions are on or that the cluster
// thinks is held here.
func (u *upkeep) checkAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.everything = true
	u.wake()
}

// unpublish has the cluster told that the publisher of a placement has gone.
func (u *upkeep) unpublish(p lb.Placement) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.unpublished[p.Stream] = p.Generation
}

// tell has the news told now.
func (u *upkeep) tell() {
	select {
	case u.urgent <- struct{}{}:
	default:
	}
}

func (u *upkeep) wake() {
	select {
	case u.work <- struct{}{}:
	default:
	}
}

// take returns what has to be compared, and forgets it.
func (u *upkeep) take() (streams []lb.Stream, unpublished map[lb.Stream]uint64, everything bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	streams, unpublished, everything = slices.Collect(maps.Keys(u.streams)), u.unpublished, u.everything
	u.streams, u.unpublished, u.everything = make(map[lb.Stream]struct{}), make(map[lb.Stream]uint64), false
	return streams, unpublished, everything
}

// putBack has it compared again. What was said of a stream meanwhile is newer.
func (u *upkeep) putBack(streams []lb.Stream, unpublished map[lb.Stream]uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, s := range streams {
		u.streams[s] = struct{}{}
	}
	for s, generation := range unpublished {
		if _, newer := u.unpublished[s]; !newer {
			u.unpublished[s] = generation
		}
	}
	u.wake()
}

// keepUp works until ctx ends.
func (b *Balancer) keepUp(ctx context.Context, node Node) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.upkeep.work:
		}
		streams, unpublished, everything := b.upkeep.take()
		if everything {
			streams = b.replica.InUse()
			node.View(func(s *fsm.State) { streams = append(streams, s.HeldBy(b.config.Holder)...) })
		}
		if b.compare(ctx, node, streams, unpublished) == nil {
			continue
		}
		b.upkeep.putBack(streams, unpublished)
		select {
		case <-ctx.Done():
			return
		case <-time.After(upkeepPause):
		}
	}
}

// compare proposes what is missing. Commands are safe to repeat.
func (b *Balancer) compare(ctx context.Context, node Node, streams []lb.Stream, unpublished map[lb.Stream]uint64) error {
	var commands []fsm.Command
	for _, s := range streams {
		commands = append(commands, b.missing(s, unpublished)...)
	}
	for batch := range slices.Chunk(commands, upkeepBatch) {
		limited, cancel := context.WithTimeout(ctx, questionTimeout)
		results, err := node.Propose(limited, batch...)
		cancel()
		if err != nil {
			return err
		}
		b.adopt(batch, results)
	}
	return nil
}

// missing returns the commands by which the cluster learns how it is with one
// stream.
func (b *Balancer) missing(s lb.Stream, unpublished map[lb.Stream]uint64) []fsm.Command {
	lease, held, publishing := b.replica.Holding(s)
	p, _, placed := b.Lookup(s)
	self := b.config.Holder
	agreed := placed && slices.Contains(p.Holders, self)
	var commands []fsm.Command
	if generation, ok := unpublished[s]; ok && placed && p.Publishing && p.Generation == generation && !publishing {
		commands = append(commands, fsm.Unpublish{Stream: s, Generation: generation})
	}
	switch {
	case held && placed && p.Generation != lease.Generation:
		// Placed anew without us: our sessions go on where they are.
		if agreed {
			commands = append(commands, fsm.Release{Stream: s, Generation: p.Generation, Holder: self})
		}
	case held && !placed:
		// It expired while we were cut off: it is asserted again, as it was.
		commands = append(commands, fsm.Place{
			Stream: s, Origin: lease.Origin, Incarnation: lease.Incarnation, Holder: self, Publish: publishing,
		})
	case held && (!agreed || publishing && !p.Publishing):
		// Without an origin, so that it places nothing that has just gone.
		commands = append(commands, fsm.Place{Stream: s, Holder: self, Publish: publishing})
	case !held && agreed && !b.upkeep.isAcquiring(s):
		commands = append(commands, fsm.Release{Stream: s, Generation: p.Generation, Holder: self})
	}
	return commands
}

// adopt follows placements that were asserted again under a new generation.
func (b *Balancer) adopt(commands []fsm.Command, results []fsm.Result) {
	for i, result := range results {
		if _, ok := commands[i].(fsm.Place); ok && result.Err == nil && result.Created {
			b.replica.Adopt(result.Placement)
		}
	}
}
