package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"regexp"
	"sync"
	"sync/atomic"
	"time"

	"srsx/lb"
)

const (
	verdictPoll = 25 * time.Millisecond  // reads of local state while waiting
	redialAfter = 500 * time.Millisecond // between dials of an origin not yet judged
)

// session is the [Session] of a [Router].
type session struct {
	router  *Router
	id      uint64
	request Request
	started time.Time
	ctx     context.Context //nolint:containedctx // the session's life is what the interface hands out
	cancel  context.CancelCauseFunc
	end     sync.Once

	in, out atomic.Int64

	// routing is held while the session looks for another origin, so that two
	// connections of one session do not both move it.
	routing sync.Mutex

	// mu guards what follows.
	mu    sync.Mutex
	lease lb.Lease
	held  bool // lease is to be released
}

var _ Session = (*session)(nil)

func newSession(ctx context.Context, r *Router, request Request, lease lb.Lease) *session {
	ctx, cancel := context.WithCancelCause(ctx)
	return &session{
		router: r, request: request, started: time.Now(),
		ctx: ctx, cancel: cancel, lease: lease, held: true,
	}
}

func (s *session) Context() context.Context { return s.ctx }

func (s *session) Origin() lb.Origin { return s.current().Origin }

func (s *session) current() lb.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lease
}

func (s *session) Count(in, out int64) {
	if in != 0 {
		s.in.Add(in)
	}
	if out != 0 {
		s.out.Add(out)
	}
}

// Dial connects to the session's origin; see [Session]. Errors wrap
// [ErrUnreachable], [ErrNotServed] or those of lb.Balancer.Acquire.
func (s *session) Dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	for {
		origin := s.Origin()
		conn, err := s.router.dialOrigin(ctx, origin, s.request.Protocol)
		if err == nil {
			return conn, nil
		}
		if cause := s.endCause(); cause != nil {
			return nil, cause
		}
		if errors.Is(err, ErrNotServed) || ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
			return nil, err
		}
		wait, stop := context.WithTimeout(ctx, redialAfter)
		rerouteErr := s.reroute(ctx, wait, origin, err)
		stop()
		if rerouteErr == nil {
			continue
		}
		// No verdict yet: the origin may have been restarting, so it is asked
		// again as long as there is time.
		if !errors.Is(rerouteErr, errNoVerdict) || ctx.Err() != nil {
			return nil, rerouteErr
		}
	}
}

// endCause returns why the session has to end, nil while it goes on.
func (s *session) endCause() error { return context.Cause(s.ctx) }

// bounded returns ctx with an end at the place timeout or with the session.
func (s *session) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, s.router.placeTimeout)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// errNoVerdict means that the backend still holds the origin to be up.
var errNoVerdict = errors.New("origin not declared down")

// Unreachable reports a failed connection; see [Session].
func (s *session) Unreachable(ctx context.Context, cause error) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	failed := s.Origin()
	err := s.reroute(ctx, ctx, failed, cause)
	if errors.Is(err, errNoVerdict) {
		// Others rely on the placement that this session made.
		err = s.reroute(ctx, ctx, failed, cause)
	}
	return err
}

// reroute looks for another origin than failed, after cause. It returns nil
// when the session has one. ctx bounds it all, wait the time for a verdict.
func (s *session) reroute(ctx, wait context.Context, failed lb.Origin, cause error) error {
	s.router.suspect(failed, s.request.Protocol, cause)
	unreachable := fmt.Errorf("%w: %w", ErrUnreachable, cause)
	if s.in.Load()+s.out.Load() > 0 {
		return unreachable
	}
	s.routing.Lock()
	defer s.routing.Unlock()
	lease := s.current()
	if lease.Origin.ID != failed.ID || lease.Origin.Incarnation != failed.Incarnation {
		return nil // another connection of this session was first
	}
	if lease.Created {
		return s.replace(ctx, unreachable)
	}
	if !s.router.awaitVerdict(wait, lease) {
		if wait != ctx && ctx.Err() == nil {
			return fmt.Errorf("%w: %w", errNoVerdict, unreachable)
		}
		return unreachable
	}
	if err := s.adopt(ctx); err != nil {
		return fmt.Errorf("%w: %w", err, unreachable)
	}
	if now := s.Origin(); now.ID == failed.ID && now.Incarnation == failed.Incarnation {
		return unreachable
	}
	return nil
}

// replace gives up the placement that this session made and takes another. If
// others rely on it by now, it comes back the same, and the backend decides.
func (s *session) replace(ctx context.Context, unreachable error) error {
	s.mu.Lock()
	lease := s.lease
	s.lease.Created, s.held = false, false
	s.mu.Unlock()
	if err := s.router.balancer.Abandon(ctx, lease); err != nil {
		return fmt.Errorf("abandon placement: %w: %w", err, unreachable)
	}
	if err := s.adopt(ctx); err != nil {
		return fmt.Errorf("%w: %w", err, unreachable)
	}
	if s.Origin().ID == lease.Origin.ID {
		return fmt.Errorf("%w: %w", errNoVerdict, unreachable)
	}
	return nil
}

// adopt acquires the stream's present placement, then lets the former go: the
// other order could release the stream in between.
func (s *session) adopt(ctx context.Context) error {
	lease, err := s.router.acquire(ctx, s.request)
	if err != nil {
		return err
	}
	s.mu.Lock()
	former, held := s.lease, s.held
	s.lease, s.held = lease, true
	s.mu.Unlock()
	if held {
		s.router.balancer.Release(former)
	}
	s.endIfMoved()
	return nil
}

// endIfMoved ends the session when its stream is elsewhere since it acquired
// it: the event has passed before the session could be seen to be concerned.
func (s *session) endIfMoved() {
	lease := s.current()
	now, _, placed := s.router.balancer.Lookup(s.request.Stream)
	if placed && now.Generation > lease.Placement.Generation && now.Origin != lease.Origin.ID {
		s.cancel(ErrMoved)
	}
}

func (s *session) release() {
	s.mu.Lock()
	lease, held := s.lease, s.held
	s.held = false
	s.mu.Unlock()
	if held {
		s.router.balancer.Release(lease)
	}
}

// End releases the stream and writes the log line; only the first call counts.
func (s *session) End(err error) {
	s.end.Do(func() {
		if cause := s.endCause(); cause != nil && !errors.Is(cause, context.Canceled) {
			err = cause // this peer ended it; err is only how that looked
		}
		s.cancel(context.Canceled)
		s.routing.Lock() // a Dial under way may still change the lease
		s.release()
		s.routing.Unlock()
		r := s.router
		r.metrics.ended.WithLabelValues(s.request.Kind, direction(s.request), reasonClass(err)).Inc()
		r.log.InfoContext(s.ctx, "session ended",
			"id", s.id,
			"client", s.request.Client,
			"stream", s.request.Stream,
			"origin", s.Origin().ID,
			"kind", s.request.Kind,
			"publish", s.request.Publish,
			"bytes_in", s.in.Load(),
			"bytes_out", s.out.Load(),
			"duration", time.Since(s.started).Round(time.Millisecond),
			"reason", reasonText(err),
		)
		// Last, so that who sees it gone finds its line in the log.
		r.sessions.remove(s)
		r.limiter.leave(s.request.Client.Addr())
	})
}

// urlQuery matches the parameters of URLs inside error texts.
var urlQuery = regexp.MustCompile(`\?[^\s"]*`)

// reasonText is the reason as logged: without the parameters of any URL, as
// they hold tokens.
func reasonText(err error) string {
	if err == nil || errors.Is(err, io.EOF) {
		return "client done"
	}
	if urlErr := (*url.Error)(nil); errors.As(err, &urlErr) {
		err = urlErr.Err
	}
	return urlQuery.ReplaceAllString(err.Error(), "?...")
}

// awaitVerdict waits until the backend no longer stands by the placement: its
// origin is down, gone or another incarnation, or the stream is elsewhere.
func (r *Router) awaitVerdict(ctx context.Context, lease lb.Lease) bool {
	ticker := time.NewTicker(verdictPoll)
	defer ticker.Stop()
	for {
		origin, known := r.balancer.Origin(lease.Origin.ID)
		if !known || origin.State == lb.Down || origin.Incarnation != lease.Origin.Incarnation {
			return true
		}
		placement, _, placed := r.balancer.Lookup(lease.Placement.Stream)
		if !placed || placement.Origin != lease.Origin.ID {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-ticker.C:
		}
	}
}
