package httpstream

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// viewers are the HLS sessions: HLS has none of its own, so the requests of one
// address for one stream count as one, until they stop.
type viewers struct {
	hold time.Duration

	mu   sync.Mutex
	open map[viewerKey]*viewer // guarded by mu
}

type viewerKey struct {
	stream lb.Stream
	client netip.Addr
}

// viewer is one HLS session. Guarded by viewers.mu.
type viewer struct {
	session proxy.Session
	end     context.CancelFunc
	until   time.Time
	hold    time.Duration
}

func newViewers(hold time.Duration) *viewers {
	return &viewers{hold: hold, open: make(map[viewerKey]*viewer)}
}

// take returns the session of a viewer, prolonged, or nil when there is none
// that still leads to where the stream is.
func (v *viewers) take(key viewerKey, current func(lb.Origin) bool) proxy.Session {
	v.mu.Lock()
	known := v.open[key]
	if known == nil {
		v.mu.Unlock()
		return nil
	}
	if known.session.Context().Err() == nil && current(known.session.Origin()) {
		known.until = time.Now().Add(known.hold)
		v.mu.Unlock()
		return known.session
	}
	delete(v.open, key)
	v.mu.Unlock()
	known.finish()
	return nil
}

// put keeps a new session. Another request may have opened one meanwhile: the
// later one replaces it.
func (v *viewers) put(key viewerKey, session proxy.Session, end context.CancelFunc) {
	v.mu.Lock()
	old := v.open[key]
	v.open[key] = &viewer{session: session, end: end, until: time.Now().Add(v.hold), hold: v.hold}
	v.mu.Unlock()
	if old != nil {
		old.finish()
	}
}

// lengthen makes a session outlive three target durations of its playlist.
func (v *viewers) lengthen(key viewerKey, target time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if known := v.open[key]; known != nil {
		known.hold = max(v.hold, min(3*target, time.Hour))
		known.until = time.Now().Add(known.hold)
	}
}

// drop ends a session that came to nothing.
func (v *viewers) drop(key viewerKey, session proxy.Session) {
	v.mu.Lock()
	known := v.open[key]
	if known == nil || known.session != session {
		v.mu.Unlock()
		return
	}
	delete(v.open, key)
	v.mu.Unlock()
	known.finish()
}

// finish ends the session; it knows itself why, if this peer ended it.
func (w *viewer) finish() {
	w.session.End(nil)
	w.end()
}

// sweep ends sessions whose time is over, or that were ended, until ctx ends.
func (v *viewers) sweep(ctx context.Context) {
	const pace = 500 * time.Millisecond
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for _, over := range v.over(now) {
				over.finish()
			}
		}
	}
}

func (v *viewers) over(now time.Time) []*viewer {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []*viewer
	for key, w := range v.open {
		if now.After(w.until) || w.session.Context().Err() != nil {
			list = append(list, w)
			delete(v.open, key)
		}
	}
	return list
}

func (v *viewers) endAll() {
	v.mu.Lock()
	open := v.open
	v.open = make(map[viewerKey]*viewer)
	v.mu.Unlock()
	for _, w := range open {
		w.finish()
	}
}
