package decide

import (
	"context"
	"fmt"
	"slices"
	"time"

	"srsx/fsm"
	"srsx/lb"
)

// served returns nil when an origin has an endpoint for the protocol.
func served(o lb.Origin, p lb.Protocol) error {
	if len(o.Endpoints.Of(p)) > 0 {
		return nil
	}
	return fmt.Errorf("%w: the stream is on %s, which does not serve %s", fsm.ErrNoCandidate, o.ID, p)
}

// Admit refuses a second live run under the same server id as old, the origin
// as it is known; it may wait for a probe. A run that took over the media port
// of the old one proves that the old one is gone; else the old one has to fail
// the probe, unless the caller proved who it is. The run that was replaced last
// never comes back: two that alternate share an id. Errors are
// [lb.ErrDuplicateOrigin].
func (d *Decider) Admit(ctx context.Context, old lb.Origin, r lb.Registration) error {
	if old.Incarnation == r.Origin.Incarnation {
		return nil
	}
	d.mu.Lock()
	retired := d.retired[r.Origin.ID]
	d.mu.Unlock()
	if retired == r.Origin.Incarnation && old.State != lb.Down {
		return fmt.Errorf("%w: %s was taken over by another run; give each origin its own", lb.ErrDuplicateOrigin, r.Origin.ID)
	}
	if r.Replace || old.State == lb.Down || slices.ContainsFunc(r.Origin.Endpoints.RTMP, func(e string) bool {
		return slices.Contains(old.Endpoints.RTMP, e)
	}) {
		return nil
	}
	if d.tracker.Ask(ctx, old) == nil {
		return fmt.Errorf("%w: %s is in use by an origin that is alive", lb.ErrDuplicateOrigin, r.Origin.ID)
	}
	return nil
}

// News returns the command that a heartbeat calls for; ok is false when it says
// nothing new, as nearly all do.
func (d *Decider) News(s *fsm.State, r lb.Registration) (put fsm.PutOrigin, ok bool) {
	old, known := s.Origin(r.Origin.ID)
	if known && Same(old, r.Origin) {
		return put, false
	}
	return fsm.PutOrigin{Origin: r.Origin}, true
}

// Heard records a heartbeat that was admitted and, if it brought news, applied.
// former is the origin as it was known before, if it was.
func (d *Decider) Heard(former lb.Origin, r lb.Registration) {
	id := r.Origin.ID
	d.mu.Lock()
	if former.ID == id && former.Incarnation != r.Origin.Incarnation {
		d.retired[id] = former.Incarnation
	}
	if r.Load != nil {
		d.loads[id] = *r.Load
	}
	d.mu.Unlock()
	if !r.Origin.Static {
		d.tracker.Beat(id) // unlocked: it may propose
	}
}

// Same reports whether a heartbeat repeats what is known. What operators set
// and what the machine keeps is not the origin's to say.
func Same(known, said lb.Origin) bool {
	return known.Incarnation == said.Incarnation && known.DeviceID == said.DeviceID && known.IP == said.IP &&
		known.MaxStreams == said.MaxStreams && known.Static == said.Static && slices.Equal(known.Labels, said.Labels) &&
		(known.WeightPinned || known.Weight == said.Weight) &&
		slices.EqualFunc(known.Endpoints.Lists(), said.Endpoints.Lists(), slices.Equal[[]string])
}

// HeardAgo records a heartbeat of a known origin that another peer received.
func (d *Decider) HeardAgo(id lb.OriginID, ago time.Duration, load *lb.Load) {
	d.mu.Lock()
	if load != nil {
		d.loads[id] = *load
	}
	d.mu.Unlock()
	d.tracker.BeatAt(id, time.Now().Add(-ago))
}

// Suspect has an origin probed at once.
func (d *Decider) Suspect(id lb.OriginID, reason error) { d.tracker.Suspect(id, reason) }

// LastSeen returns when an origin was last heard and what load it reported, if
// any.
func (d *Decider) LastSeen(id lb.OriginID) (seen time.Time, load *lb.Load) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l, ok := d.loads[id]; ok {
		load = &l
	}
	return d.tracker.LastBeat(id), load
}
