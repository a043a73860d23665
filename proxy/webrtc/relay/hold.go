package relay

import (
	"context"
	"errors"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/webrtc/ufrag"
)

const (
	holdAgain    = 5 * time.Second // after an attempt in vain
	maxHolding   = 64              // attempts at once
	learnTimeout = 10 * time.Second
)

// hold gives a session of its own to a flow that was signalled at another peer,
// or before this one was restarted: so that its stream is held and it can be
// seen. Media passes meanwhile.
func (f *flow) hold() {
	r := f.relay
	for {
		if f.tryHold() {
			return
		}
		select {
		case <-f.done:
			return
		case <-r.life.Done():
			return
		case <-time.After(holdAgain):
		}
	}
}

// tryHold reports whether there is nothing more to be done.
func (f *flow) tryHold() bool {
	r := f.relay
	select {
	case r.holding <- struct{}{}:
		defer func() { <-r.holding }()
	case <-f.done:
		return true
	}
	f.learn()
	request, ok := f.request()
	if !ok {
		return false
	}
	if _, o, placed := r.config.Finder.Lookup(request.Stream); !placed || o.ID != f.origin() {
		return false // to acquire it would place it, perhaps elsewhere
	}
	session, err := r.config.Opener.Open(r.life, request)
	switch {
	case err == nil:
	case errors.Is(err, lb.ErrLimit), errors.Is(err, proxy.ErrShutdown):
		f.end(err)
		return true
	default:
		return false
	}
	if session.Origin().ID != f.origin() {
		// The stream has been placed anew, and what this client has to do with it
		// is over: its media goes on, and nothing is held for it.
		session.End(nil)
		return true
	}
	f.adopt(session)
	return true
}

// learn finds out what the flow's ufrag does not say.
func (f *flow) learn() {
	r := f.relay
	ctx, cancel := context.WithTimeout(r.life, learnTimeout)
	defer cancel()
	f.mu.Lock()
	t := f.ticket
	f.mu.Unlock()
	if !t.Stream.IsZero() {
		return
	}
	told, ok := r.askPeers(ctx, t.Ufrag)
	if !ok || told.Origin != t.Origin {
		key := r.config.Key()
		route, _, valid := key.Read([]byte(t.Ufrag), time.Now())
		if !valid {
			return
		}
		if told.Stream, ok = r.naming.find(ctx, placed{t.Origin, route.Stream}); !ok {
			return
		}
		told.Kind, told.Publish = t.Kind, t.Publish
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ticket.Stream, f.ticket.Kind, f.ticket.Publish = told.Stream, told.Kind, told.Publish
	f.ticket.Client, f.ticket.Resource = told.Client, told.Resource
}

func (f *flow) origin() lb.OriginID {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ticket.Origin
}

// placed is a stream on an origin, as far as a ufrag has room for it.
type placed struct {
	origin lb.OriginID
	hash   ufrag.StreamHash
}
