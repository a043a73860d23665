package relay

import (
	"time"
)

// sweep ends what is over and counts what has passed.
func (r *Relay) sweep(now time.Time) {
	nano := now.UnixNano()
	for _, f := range r.all() {
		f.sweep(nano)
	}
	r.forgetExpected(func(e *expected) (bool, error) { return now.After(e.until), errNoMedia })
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, until := range r.ended {
		if now.After(until) {
			delete(r.ended, id)
		}
	}
}

func (f *flow) sweep(now int64) {
	f.mu.Lock()
	session := f.session
	var idle []*path
	for _, p := range f.paths {
		if p.silent(now, pathTime) {
			idle = append(idle, p)
		}
	}
	f.mu.Unlock()
	for _, p := range idle {
		f.relay.dropPath(p)
	}
	if session != nil {
		f.report(session)
	}
	goodbye := f.goodbye.Load()
	switch {
	case goodbye != 0 && now-goodbye > int64(goodbyeTime):
		f.end(nil)
	case now-f.heard.Load() > int64(f.relay.config.IdleTime):
		f.end(errSilent)
	default:
	}
}

// dropPath forgets a path.
func (r *Relay) dropPath(p *path) {
	r.mu.Lock()
	r.forgetPathLocked(p)
	p.flow.removePath(p)
	r.mu.Unlock()
	p.close()
}
