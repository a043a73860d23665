package decide

import (
	"time"

	"srsx/fsm"
	"srsx/lb"
)

// waiting is a placement without holders, that goes at its time unless somebody
// holds it again.
type waiting struct {
	stream     lb.Stream
	generation uint64
	until      time.Time
}

// queue is ordered by time: all in it wait equally long.
type queue []waiting

func (q *queue) due(now time.Time) []waiting {
	n := 0
	for n < len(*q) && !now.Before((*q)[n].until) {
		n++
	}
	due := (*q)[:n]
	if *q = (*q)[n:]; len(*q) == 0 {
		*q = nil // lets go of what the slice has grown to
	}
	return due
}

// await puts a placement that nobody holds into its queue. d.mu is held.
func (d *Decider) await(p lb.Placement) {
	q, keep := &d.idle, fsm.ReleaseAfter
	if p.Orphaned {
		q, keep = &d.orphans, fsm.OrphanAfter
	}
	*q = append(*q, waiting{p.Stream, p.Generation, p.IdleSince.Add(keep)})
}

// Due returns the commands whose time has come: placements that nobody holds go,
// drains end. Those of an earlier call are returned again only where they are
// certain not to have been applied.
func (d *Decider) Due(s *fsm.State, now time.Time) []fsm.Command {
	d.mu.Lock()
	defer d.mu.Unlock()
	var commands []fsm.Command
	for _, q := range []*queue{&d.idle, &d.orphans} {
		for _, w := range q.due(now) {
			if p, ok := s.Placement(w.stream); ok && p.Generation == w.generation && len(p.Holders) == 0 {
				commands = append(commands, fsm.Expire{Stream: w.stream, Generation: w.generation})
			}
		}
	}
	for _, o := range s.Origins() {
		if !o.DrainUntil.IsZero() && now.After(o.DrainUntil) {
			commands = append(commands, fsm.DrainOver{ID: o.ID})
		}
	}
	return commands
}
