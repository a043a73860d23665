// Package liveness decides whether origins are alive: from their heartbeats,
// from dials that failed, and from probes of its own. It knows no backend and
// reports edges only, so that what is agreed changes when an origin does and
// not with every heartbeat.
package liveness

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"srsx/lb"
)

// The pace of the tracker.
const (
	tick         = 250 * time.Millisecond
	probeTimeout = 2 * time.Second
	firstRetry   = 500 * time.Millisecond // between probes of an origin that is down, doubling
	lastRetry    = 5 * time.Second
	pollRest     = 5 * time.Second // after nothing was settled about an origin that is up
)

// Proposer has the backend agree on an edge. It is called without locks held.
type Proposer interface {
	ProposeUp(id lb.OriginID, inc lb.Incarnation, reason string)
	ProposeDown(id lb.OriginID, inc lb.Incarnation, reason string)
}

// Prober returns nil when an origin is alive.
type Prober func(ctx context.Context, o lb.Origin) error

// Ask probes an origin, which has two seconds to answer.
func (p Prober) Ask(ctx context.Context, o lb.Origin) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return p(ctx, o)
}

// Config of a [Tracker]. Zero values mean the defaults.
type Config struct {
	TTL   time.Duration // silence after which an origin is probed; default 30 s
	Probe Prober        // default: [Probe]
	// Poll has other peers probe too, so that no broken network of a single one
	// ends a healthy origin, nor keeps up a dead one. It returns nil when they
	// agree that an origin is alive, [ErrUnsettled] when they do not agree, else
	// that they found it dead. nil: this peer's own probe decides.
	Poll Prober
}

// ErrUnsettled means that an origin stays what it is, up or down.
var ErrUnsettled = errors.New("peers do not agree whether it is alive")

// Tracker watches origins. Its methods are safe for concurrent use.
type Tracker struct {
	config   Config
	proposer Proposer

	mu      sync.Mutex
	watched map[lb.OriginID]*watch // guarded by mu
}

// watch is what is known of one origin. Guarded by Tracker.mu.
type watch struct {
	origin  lb.Origin
	seen    time.Time // last heartbeat or successful probe
	beat    time.Time // last heartbeat; zero: never
	down    bool
	suspect string // why it has to be probed now; empty: no need
	probing bool
	retry   time.Duration
	nextTry time.Time // not before
}

// New returns a tracker that watches nothing yet. [Tracker.Run] must run.
func New(proposer Proposer, config Config) *Tracker {
	if config.TTL <= 0 {
		config.TTL = 30 * time.Second
	}
	if config.Probe == nil {
		config.Probe = Probe
	}
	return &Tracker{config: config, proposer: proposer, watched: make(map[lb.OriginID]*watch)}
}

// Watch starts watching an origin, or learns its new incarnation, endpoints or
// state.
func (t *Tracker) Watch(o lb.Origin) {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.watched[o.ID]
	if w == nil || w.origin.Incarnation != o.Incarnation {
		w = &watch{seen: time.Now()}
		t.watched[o.ID] = w
	}
	if down := o.State == lb.Down; down != w.down {
		w.down, w.retry, w.nextTry = down, firstRetry, time.Now().Add(firstRetry)
		w.seen = time.Now()
	}
	w.origin = o
}

// Forget stops watching an origin.
func (t *Tracker) Forget(id lb.OriginID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.watched, id)
}

// Beat records a heartbeat. One of an origin that was down brings it up.
func (t *Tracker) Beat(id lb.OriginID) { t.BeatAt(id, time.Now()) }

// BeatAt records a heartbeat that came at some time before. One from before the
// origin went down says nothing.
func (t *Tracker) BeatAt(id lb.OriginID, at time.Time) {
	t.mu.Lock()
	w := t.watched[id]
	if w == nil {
		t.mu.Unlock()
		return
	}
	if at.After(w.beat) {
		w.beat = at
	}
	news := at.After(w.seen)
	if news {
		w.seen = at
	}
	back, inc := w.down && news, w.origin.Incarnation
	t.mu.Unlock()
	if back {
		t.proposer.ProposeUp(id, inc, "heartbeat")
	}
}

// LastBeat returns when an origin last sent a heartbeat; zero: never.
func (t *Tracker) LastBeat(id lb.OriginID) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.watched[id]; w != nil {
		return w.beat
	}
	return time.Time{}
}

// Suspect has an origin probed at once.
func (t *Tracker) Suspect(id lb.OriginID, reason error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.watched[id]; w != nil && !w.down {
		w.suspect = reason.Error()
	}
}

// Ask returns nil when an origin is alive now, as far as can be told.
func (t *Tracker) Ask(ctx context.Context, o lb.Origin) error {
	err := t.judge(ctx, doubt{origin: o, contested: true})
	if errors.Is(err, ErrUnsettled) {
		return nil
	}
	return err
}

// Run probes until ctx ends, and returns when the last probe has.
func (t *Tracker) Run(ctx context.Context) {
	var probes sync.WaitGroup
	defer probes.Wait()
	pace := time.NewTicker(tick)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		for _, d := range t.due(time.Now()) {
			probes.Go(func() { t.probe(ctx, d) })
		}
	}
}

// doubt is one origin to probe, and why.
type doubt struct {
	origin lb.Origin
	reason string
	// contested means that somebody or something speaks against it, so that one
	// peer's probe settles nothing.
	contested bool
}

// due returns the origins to probe now, and marks them.
func (t *Tracker) due(now time.Time) []doubt {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []doubt
	for _, w := range t.watched {
		reason := w.due(now, t.config.TTL)
		if reason == "" || w.probing {
			continue
		}
		list = append(list, doubt{origin: w.origin, reason: reason, contested: w.down || w.suspect != ""})
		w.probing, w.suspect = true, ""
	}
	return list
}

// due returns why an origin has to be probed, empty when it has not.
func (w *watch) due(now time.Time, ttl time.Duration) string {
	switch {
	case !now.After(w.nextTry):
		return ""
	case w.down:
		return "down"
	case w.suspect != "":
		return w.suspect
	case w.origin.Static && now.Sub(w.seen) > ttl/3:
		return "probe" // it sends no heartbeat: look in time
	case now.Sub(w.seen) > ttl:
		return fmt.Sprintf("silent for %s", ttl)
	default:
		return ""
	}
}

// probe asks an origin and proposes the edge, if there is one.
func (t *Tracker) probe(ctx context.Context, d doubt) {
	err := t.judge(ctx, d)
	if ctx.Err() != nil {
		return
	}
	edge := t.learn(d, err)
	switch {
	case !edge:
	case err == nil:
		t.proposer.ProposeUp(d.origin.ID, d.origin.Incarnation, "probe answered")
	default:
		t.proposer.ProposeDown(d.origin.ID, d.origin.Incarnation, d.reason+"; "+err.Error())
	}
}

// judge returns nil when an origin is alive, ErrUnsettled when that stays open.
func (t *Tracker) judge(ctx context.Context, d doubt) error {
	if d.contested && t.config.Poll != nil {
		return t.config.Poll(ctx, d.origin)
	}
	err := t.config.Probe.Ask(ctx, d.origin)
	switch {
	case d.contested && d.origin.State != lb.Down && errors.Is(err, ErrNothingToProbe):
		return ErrUnsettled // only its silence can tell
	case err == nil, t.config.Poll == nil, errors.Is(err, ErrNothingToProbe):
		return err
	}
	if polled := t.config.Poll(ctx, d.origin); polled != nil {
		return fmt.Errorf("%w; %w", err, polled)
	}
	return nil
}

// learn keeps the outcome and reports whether it is an edge.
func (t *Tracker) learn(d doubt, err error) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	w := t.watched[d.origin.ID]
	if w == nil || w.origin.Incarnation != d.origin.Incarnation {
		return false
	}
	w.probing = false
	now := time.Now()
	switch {
	case err == nil:
		w.seen, w.retry = now, firstRetry
		return w.down
	case w.down:
		w.retry = min(w.retry*2, lastRetry)
		w.nextTry = now.Add(w.retry)
		return false
	case errors.Is(err, ErrUnsettled):
		w.nextTry = now.Add(pollRest)
		return false
	default:
		return true
	}
}
