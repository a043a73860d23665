package httpstream

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// fakeSession is a session that only remembers how it ended.
type fakeSession struct {
	ctx    context.Context //nolint:containedctx // what the interface hands out
	ended  chan struct{}
	reason error
}

func (f *fakeSession) Context() context.Context               { return f.ctx }
func (*fakeSession) Origin() lb.Origin                        { return lb.Origin{ID: "o"} }
func (*fakeSession) Dial(context.Context) (net.Conn, error)   { return nil, proxy.ErrUnreachable }
func (*fakeSession) Unreachable(context.Context, error) error { return proxy.ErrUnreachable }
func (*fakeSession) Count(int64, int64)                       {}
func (f *fakeSession) End(reason error) {
	f.reason = reason
	close(f.ended) // a second End would panic
}

// openings counts the sessions that are opened.
type openings struct {
	mu   sync.Mutex
	made []*fakeSession // guarded by mu
	err  error
	slow time.Duration
}

func (o *openings) open(ctx context.Context) (proxy.Session, error) {
	time.Sleep(o.slow)
	if o.err != nil {
		return nil, o.err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.made = append(o.made, &fakeSession{ctx: ctx, ended: make(chan struct{})})
	return o.made[len(o.made)-1], nil
}

func (f *fakeSession) over() bool {
	select {
	case <-f.ended:
		return true
	default:
		return false
	}
}

var anyKey = viewerKey{lb.Stream{VHost: "v", App: "a", Name: "n"}, netip.MustParseAddr("192.0.2.1")}

func stays(lb.Origin) bool { return true }

// swept returns viewers with a sweeper, for a test whose time is its own.
func swept(t *testing.T) (*viewers, *openings) {
	t.Helper()
	v := newViewers(30 * time.Second)
	var sweeping sync.WaitGroup
	sweeping.Go(func() { v.sweep(t.Context()) })
	t.Cleanup(func() { sweeping.Wait(); v.endAll() })
	return v, &openings{}
}

// visit is one request that takes a time.
func visit(t *testing.T, v *viewers, o *openings, takes time.Duration) {
	t.Helper()
	w, err := v.enter(t.Context(), anyKey, stays, o.open)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(takes)
	v.leave(w)
}

const second = time.Second

func TestSessionLastsForItsHoldTimeAfterTheLastRequest(t *testing.T) {
	for target, hold := range map[time.Duration]time.Duration{
		0: 30 * second, 4 * second: 30 * second, 20 * second: 60 * second, 100_000 * second: time.Hour,
	} {
		synctest.Test(t, func(t *testing.T) {
			v, o := swept(t)
			w, err := v.enter(t.Context(), anyKey, stays, o.open)
			if err != nil {
				t.Fatal(err)
			}
			v.lengthen(w, target)
			v.leave(w)
			for range 3 { // each request prolongs it
				time.Sleep(hold - second)
				visit(t, v, o, 0)
			}
			time.Sleep(hold - second)
			if len(o.made) != 1 || o.made[0].over() {
				t.Fatalf("target %s: %d sessions, the first over: %v; want the one after %s", target, len(o.made), o.made[0].over(), hold-second)
			}
			time.Sleep(2 * second)
			if !o.made[0].over() || o.made[0].ctx.Err() == nil {
				t.Errorf("target %s: the session is still open after %s", target, hold+second)
			}
			if len(v.open) != 0 {
				t.Errorf("target %s: %d viewers are kept", target, len(v.open))
			}
		})
	}
}

func TestRequestUnderWayHoldsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, o := swept(t)
		visit(t, v, o, 10*time.Minute) // a long segment on a slow line
		if o.made[0].over() {
			t.Error("the session ended under its request")
		}
		time.Sleep(29 * second)
		visit(t, v, o, 0)
		if len(o.made) != 1 {
			t.Errorf("%d sessions; want the one", len(o.made))
		}
	})
}

func TestRequestsThatComeTogetherAreOneSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, o := swept(t)
		o.slow = second
		var requests sync.WaitGroup
		for range 100 {
			requests.Go(func() { visit(t, v, o, 0) })
		}
		requests.Wait()
		if len(o.made) != 1 {
			t.Errorf("%d sessions are opened; want 1", len(o.made))
		}
	})
}

func TestRefusedOpeningIsSharedAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, o := swept(t)
		o.slow, o.err = second, lb.ErrNoOrigin
		var requests sync.WaitGroup
		for range 10 {
			requests.Go(func() {
				if _, err := v.enter(t.Context(), anyKey, stays, o.open); !errors.Is(err, lb.ErrNoOrigin) {
					t.Errorf("enter = %v; want ErrNoOrigin", err)
				}
			})
		}
		requests.Wait()
		if len(v.open) != 0 {
			t.Errorf("%d viewers are kept", len(v.open))
		}
		o.err = nil
		visit(t, v, o, 0)
	})
}

// A player that leaves must not take the session from those who wait for it.
func TestOpeningGoesOnWhenItsRequestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, o := swept(t)
		o.slow = second
		ctx, leave := context.WithCancel(t.Context())
		var first sync.WaitGroup
		first.Go(func() {
			if w, err := v.enter(ctx, anyKey, stays, o.open); err == nil {
				v.leave(w)
			}
		})
		synctest.Wait()
		leave()
		visit(t, v, o, 0)
		first.Wait()
		if o.made[0].over() || o.made[0].ctx.Err() != nil {
			t.Error("the session ended with the request that opened it")
		}
	})
}

func TestSessionOfAMovedStreamIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, o := swept(t)
		visit(t, v, o, 0)
		w, err := v.enter(t.Context(), anyKey, func(lb.Origin) bool { return false }, o.open)
		if err != nil {
			t.Fatal(err)
		}
		v.leave(w)
		if len(o.made) != 2 || !o.made[0].over() || o.made[1].over() {
			t.Errorf("%d sessions; want the first ended and a second", len(o.made))
		}
	})
}

func TestDroppedSessionSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, o := swept(t)
		w, err := v.enter(t.Context(), anyKey, stays, o.open)
		if err != nil {
			t.Fatal(err)
		}
		v.drop(w, proxy.ErrSlow)
		v.drop(w, nil) // by another request: it is over already
		v.leave(w)
		if !errors.Is(o.made[0].reason, proxy.ErrSlow) {
			t.Errorf("reason = %v; want ErrSlow", o.made[0].reason)
		}
	})
}
