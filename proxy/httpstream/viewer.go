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
//
// Viewers behind one NAT are thereby one session. To tell them apart each would
// need a name of its own in the URIs of its playlists, and then no cache between
// us and the viewers could share a segment. What depends on sessions bears it:
// the stream is held all the same, the bytes are counted all the same, and
// limits see one session where there are more.
type viewers struct {
	hold time.Duration

	mu   sync.Mutex
	open map[viewerKey]*viewer // guarded by mu
}

type viewerKey struct {
	stream lb.Stream
	client netip.Addr
}

// viewer is one HLS session, or one that is being opened.
type viewer struct {
	key viewerKey

	opened  chan struct{} // closed once the following are set
	session proxy.Session
	end     context.CancelFunc
	err     error // why there is no session

	// Guarded by viewers.mu.
	requests int           // under way
	until    time.Time     // when it is over, while there is no request
	hold     time.Duration // after the last request
}

func newViewers(hold time.Duration) *viewers {
	return &viewers{hold: hold, open: make(map[viewerKey]*viewer)}
}

// enter begins a request of a viewer; leave must follow. The session is opened
// when there is none, or none that current says still leads to where the stream
// is; requests that come meanwhile share it. It outlives ctx.
func (v *viewers) enter(ctx context.Context, key viewerKey, current func(lb.Origin) bool,
	open func(context.Context) (proxy.Session, error),
) (*viewer, error) {
	for {
		w, isNew := v.join(key)
		if isNew {
			return w, v.fill(ctx, w, open)
		}
		select {
		case <-w.opened:
		case <-ctx.Done():
			v.leave(w)
			return nil, context.Cause(ctx)
		}
		if w.err != nil {
			return nil, w.err
		}
		if w.session.Context().Err() == nil && current(w.session.Origin()) {
			return w, nil
		}
		v.drop(w, nil)
	}
}

// join counts a request to the viewer of key, which may be new.
func (v *viewers) join(key viewerKey) (w *viewer, isNew bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w = v.open[key]
	if w == nil {
		w, isNew = &viewer{key: key, opened: make(chan struct{}), hold: v.hold}, true
		v.open[key] = w
	}
	w.requests++
	return w, isNew
}

// fill opens the session of a new viewer.
func (v *viewers) fill(ctx context.Context, w *viewer, open func(context.Context) (proxy.Session, error)) error {
	defer close(w.opened)
	ctx, w.end = context.WithCancel(context.WithoutCancel(ctx))
	w.session, w.err = open(ctx)
	if w.err != nil {
		v.forget(w)
		w.end()
	}
	return w.err
}

// leave ends a request: from now the session's time runs.
func (v *viewers) leave(w *viewer) {
	v.mu.Lock()
	defer v.mu.Unlock()
	w.requests--
	w.until = time.Now().Add(w.hold)
}

// lengthen makes a session outlive three target durations of its playlist.
func (v *viewers) lengthen(w *viewer, target time.Duration) {
	const longest = time.Hour // whatever an origin says
	v.mu.Lock()
	defer v.mu.Unlock()
	w.hold = max(v.hold, min(3*target, longest))
}

// holdOf is how long a session lasts after its last request.
func (v *viewers) holdOf(w *viewer) time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return w.hold
}

// drop ends a session before its time; reason is as for proxy.Session.End.
func (v *viewers) drop(w *viewer, reason error) {
	if v.forget(w) {
		w.finish(reason)
	}
}

// forget removes a viewer and reports whether it was there.
func (v *viewers) forget(w *viewer) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open[w.key] != w {
		return false
	}
	delete(v.open, w.key)
	return true
}

// finish ends the session; it knows itself why, if this peer ended it.
func (w *viewer) finish(reason error) {
	w.session.End(reason)
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
				over.finish(nil)
			}
		}
	}
}

// over removes and returns the viewers that are to end.
func (v *viewers) over(now time.Time) []*viewer {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []*viewer
	for key, w := range v.open {
		if w.ended() || w.requests == 0 && now.After(w.until) {
			list = append(list, w)
			delete(v.open, key)
		}
	}
	return list
}

// ended reports whether the session was ended from elsewhere.
func (w *viewer) ended() bool {
	select {
	case <-w.opened:
		return w.session.Context().Err() != nil
	default:
		return false
	}
}

// endAll ends all sessions; no request may be under way.
func (v *viewers) endAll() {
	v.mu.Lock()
	open := v.open
	v.open = make(map[viewerKey]*viewer)
	v.mu.Unlock()
	for _, w := range open {
		w.finish(nil)
	}
}
