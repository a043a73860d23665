package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"srsx/lb"
)

// RouterConfig is what a [Router] needs besides the balancer. Zero values mean
// the defaults.
type RouterConfig struct {
	Log     *slog.Logger // default: none
	Metrics *Metrics     // default: registered nowhere
	Limits  Limits

	// PlaceTimeout is how long a client waits for an origin or a decision;
	// default 5 s.
	PlaceTimeout time.Duration
	// DialTimeout is how long one connection to an origin may take. The
	// default, 3 s, leaves time to try another within PlaceTimeout.
	DialTimeout time.Duration
	// Dial connects to an origin; default: TCP with keepalive.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Probes tell, by returning nil, that an origin which could not be had by a
	// protocol can be had again at its endpoint. Default: when it accepts a TCP
	// connection, which says nothing about a UDP port.
	Probes map[lb.Protocol]func(ctx context.Context, endpoint string) error
}

// Router is the one [Opener]: it admits clients, asks the balancer where their
// streams are, and keeps the sessions. [Router.Run] must run beside it.
type Router struct {
	balancer lb.Balancer
	log      *slog.Logger
	metrics  *Metrics
	limiter  *limiter
	sessions *registry
	ejected  *ejections

	placeTimeout time.Duration
	dialTimeout  time.Duration
	dial         func(ctx context.Context, network, addr string) (net.Conn, error)
	probes       map[lb.Protocol]func(ctx context.Context, endpoint string) error
}

var _ Opener = (*Router)(nil)

// NewRouter returns a router that places streams by balancer.
func NewRouter(balancer lb.Balancer, config RouterConfig) *Router {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Metrics == nil {
		config.Metrics = NewMetrics(nil)
	}
	if config.PlaceTimeout <= 0 {
		config.PlaceTimeout = 5 * time.Second
	}
	if config.DialTimeout <= 0 {
		config.DialTimeout = 3 * time.Second
	}
	if config.Dial == nil {
		config.Dial = (&net.Dialer{KeepAliveConfig: keepAlive()}).DialContext
	}
	r := &Router{
		balancer:     balancer,
		log:          config.Log,
		metrics:      config.Metrics,
		limiter:      newLimiter(config.Limits),
		sessions:     newRegistry(),
		ejected:      newEjections(),
		placeTimeout: config.PlaceTimeout,
		dialTimeout:  config.DialTimeout,
		dial:         config.Dial,
		probes:       config.Probes,
	}
	r.metrics.registerer.MustRegister(newCollector(r.sessions, r.ejected))
	return r
}

// Open admits the client, acquires the placement of its stream within the
// place timeout and registers the session. See [Opener]. Errors are those of
// lb.Balancer.Acquire, [LimitError] and [ErrShutdown].
func (r *Router) Open(ctx context.Context, req Request) (Session, error) {
	s, err := r.open(ctx, req)
	if err != nil {
		r.metrics.refused(req, err)
		return nil, fmt.Errorf("open %s: %w", req.Stream, err)
	}
	r.metrics.opened.WithLabelValues(req.Kind, direction(req)).Inc()
	return s, nil
}

func (r *Router) open(ctx context.Context, req Request) (*session, error) {
	if r.sessions.isClosed() {
		return nil, ErrShutdown
	}
	if err := r.limiter.admit(req.Client.Addr()); err != nil {
		return nil, err
	}
	s, err := r.place(ctx, req)
	if err != nil {
		r.limiter.leave(req.Client.Addr())
		return nil, err
	}
	return s, nil
}

// place acquires and registers.
func (r *Router) place(ctx context.Context, req Request) (*session, error) {
	if _, _, placed := r.balancer.Lookup(req.Stream); !placed {
		if err := r.limiter.admitPlacement(req.Client.Addr()); err != nil {
			return nil, err
		}
	}
	wait := r.placeTimeout
	if req.MaxWait > 0 {
		wait = min(wait, req.MaxWait)
	}
	waitCtx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	lease, err := r.acquire(waitCtx, req)
	if err != nil {
		return nil, err
	}
	s := newSession(ctx, r, req, lease)
	if err = r.sessions.add(s); err != nil {
		s.cancel(err)
		r.balancer.Release(lease)
		return nil, err
	}
	s.endIfMoved()
	return s, nil
}

// acquire asks the balancer, avoiding the ejected origins. While some are, it
// asks anew each second: one may have been taken back.
func (r *Router) acquire(ctx context.Context, req Request) (lb.Lease, error) {
	started := time.Now()
	for {
		avoid := r.ejected.avoid(req.Protocol)
		try, cancel := ctx, context.CancelFunc(func() {})
		if len(avoid) > 0 {
			try, cancel = context.WithTimeout(ctx, time.Second)
		}
		lease, err := r.balancer.Acquire(try, lb.Want{
			Stream: req.Stream, Protocol: req.Protocol, Publish: req.Publish, Avoid: avoid,
		})
		timedOut := try.Err() != nil && ctx.Err() == nil
		cancel()
		again := timedOut && (errors.Is(err, lb.ErrNoOrigin) || errors.Is(err, lb.ErrUndecided) ||
			errors.Is(err, context.DeadlineExceeded))
		if again {
			continue
		}
		r.metrics.placed(req.Protocol, time.Since(started), err)
		return lease, err
	}
}

// Run follows the balancer's events and probes ejected origins until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	probes := make(chan struct{})
	go func() {
		defer close(probes)
		r.probeEjected(ctx)
	}()
	defer func() { <-probes }()
	for ctx.Err() == nil {
		r.follow(ctx)
		// The subscription was lost or the balancer is closing.
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return nil
}

// follow subscribes, catches up by reading, and handles events until the
// subscription ends.
func (r *Router) follow(ctx context.Context) {
	events, cancel := r.balancer.Events()
	defer cancel()
	r.resync()
	for {
		select {
		case <-ctx.Done():
			return
		case event, ok := <-events:
			if !ok {
				return
			}
			r.handle(event)
		}
	}
}

// handle ends the sessions that an event is about. An origin that goes down
// and a stream that is replaced end none: their own connections will tell.
func (r *Router) handle(event lb.Event) {
	switch event.Kind {
	case lb.StreamMoved:
		r.sessions.endStream(event.Stream, func(l lb.Lease) bool {
			return l.Origin.ID == event.From && l.Placement.Generation <= event.Generation
		}, ErrMoved)
	case lb.StreamForgotten:
		r.sessions.endStream(event.Stream, func(l lb.Lease) bool {
			return l.Placement.Generation <= event.Generation
		}, ErrForgotten)
	case lb.OriginDrained:
		r.sessions.endOrigin(event.Origin, ErrDrained)
	case lb.OriginRemoved:
		r.ejected.forget(event.Origin)
		r.sessions.endOrigin(event.Origin, ErrRemoved)
	case lb.OriginUp:
		r.ejected.forget(event.Origin)
	default:
	}
}

// resync finds by reading what lost events would have told.
func (r *Router) resync() {
	streams, origins := r.sessions.inUse()
	for _, stream := range streams {
		for _, event := range r.balancer.History(stream) {
			r.handle(event)
		}
	}
	for _, id := range origins {
		origin, ok := r.balancer.Origin(id)
		switch {
		case !ok:
			r.sessions.endOrigin(id, ErrRemoved)
		case origin.State == lb.Draining && !origin.DrainUntil.IsZero() && time.Now().After(origin.DrainUntil):
			r.sessions.endOrigin(id, ErrDrained)
		default:
		}
	}
}

// Sessions lists the open sessions, oldest first.
func (r *Router) Sessions() []SessionInfo { return r.sessions.list() }

// Counts returns how many sessions are open, in all and on each origin.
func (r *Router) Counts() (total int, byOrigin map[lb.OriginID]int) { return r.sessions.counts() }

// StreamSessions returns how many sessions of s are open.
func (r *Router) StreamSessions(s lb.Stream) int { return r.sessions.ofStream(s) }

// Ejected lists the origins that get no new stream from this peer, by one
// protocol at least, because it could not connect to them.
func (r *Router) Ejected() []lb.OriginID { return r.ejected.all() }

// Kick ends one session and reports whether there was one.
func (r *Router) Kick(id uint64) bool { return r.sessions.kick(id) }

// Close refuses new sessions from now on with [ErrShutdown]; open ones go on.
func (r *Router) Close() { r.sessions.close() }

// CloseAll refuses new sessions and ends the open ones with reason, which is
// their context's cause. It does not wait: see Wait.
func (r *Router) CloseAll(reason error) {
	r.sessions.close()
	r.sessions.endAll(reason)
}

// Wait returns nil when no session is open, else how many are left when ctx
// ends. New sessions do not end it: call Close before.
func (r *Router) Wait(ctx context.Context) error {
	for {
		left, changed := r.sessions.left()
		if left == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d sessions still open: %w", left, context.Cause(ctx))
		}
	}
}
