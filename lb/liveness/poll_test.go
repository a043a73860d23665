package liveness_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"srsx/lb"
	"srsx/lb/liveness"
)

var errSeenDead = errors.New("seen dead")

// others are the other peers, as one voice.
type others struct {
	mu    sync.Mutex
	asked int
	says  error
}

func (o *others) poll(context.Context, lb.Origin) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked++
	return o.says
}

func (o *others) say(err error) { o.mu.Lock(); defer o.mu.Unlock(); o.says = err }
func (o *others) count() int    { o.mu.Lock(); defer o.mu.Unlock(); return o.asked }

// now returns an origin as it is agreed to be.
func (w *world) now(id lb.OriginID) lb.Origin {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.origin[id]
}

// polled runs a test in which other peers have a word.
func polled(t *testing.T, test func(w *world, o *others)) {
	t.Helper()
	o := &others{says: liveness.ErrUnsettled}
	in(t, func(w *world) { test(w, o) }, o.poll)
}

func TestOthersDecideOnASuspect(t *testing.T) {
	polled(t, func(w *world, o *others) {
		w.watch("a", "1", false)
		w.kill("a") // as seen from here
		w.tracker.Suspect("a", errors.New("dial refused"))
		w.after(time.Second)
		w.expect()
		o.say(errSeenDead)
		w.tracker.Suspect("a", errors.New("dial refused"))
		w.after(4 * time.Second)
		w.expect() // not so soon again
		w.after(2 * time.Second)
		w.expect("5s a down: dial refused; seen dead")
		if w.probed("a") != 0 {
			w.Errorf("probed %d times from here; want others only to have the word", w.probed("a"))
		}
		w.revive("a")
		w.after(10 * time.Second)
		w.expect("5s a down: dial refused; seen dead")
		o.say(nil)
		w.after(5 * time.Second)
		if a := w.now("a"); a.State != lb.Up {
			w.Errorf("the origin is %s after all see it alive; want up", a.State)
		}
	})
}

func TestOthersAreAskedOnlyWhenTheOwnProbeFails(t *testing.T) {
	polled(t, func(w *world, o *others) {
		w.watch("a", "1", false)
		w.after(3 * ttl)
		if n := o.count(); n != 0 {
			w.Errorf("polled %d times of an origin that answers; want never", n)
		}
		w.kill("a")
		w.after(2*ttl + time.Second)
		w.expect()
		if n := o.count(); n < 10 || n > 13 {
			w.Errorf("polled %d times in a minute of doubt; want once in 5 s", n)
		}
		o.say(errSeenDead)
		w.after(ttl + time.Second)
		if a := w.now("a"); a.State != lb.Down {
			w.Errorf("the origin is %s; want down", a.State)
		}
	})
}

// TestSilenceAloneTellsOfAnOriginThatCannotBeProbed: neither a peer's dial nor
// other peers can.
func TestSilenceAloneTellsOfAnOriginThatCannotBeProbed(t *testing.T) {
	test := func(w *world) {
		w.watch("a", "1", false)
		w.mu.Lock()
		w.dead["a"] = liveness.ErrNothingToProbe
		w.mu.Unlock()
		w.beat("a", 20*time.Second)
		w.tracker.Suspect("a", errors.New("dial timed out"))
		w.after(ttl - 11*time.Second)
		w.expect()
		w.after(2 * time.Second)
		w.expect("40s a down: silent for 30s; no TCP endpoint to probe")
		w.after(time.Minute)
		w.tracker.Beat("a")
		if a := w.now("a"); a.State != lb.Up {
			w.Errorf("the origin is %s after a heartbeat; want up", a.State)
		}
	}
	t.Run("alone", func(t *testing.T) { in(t, test) })
	t.Run("with others", func(t *testing.T) {
		polled(t, func(w *world, _ *others) { test(w) })
	})
}

func TestHeartbeatFromBeforeTheEdgeSaysNothing(t *testing.T) {
	in(t, func(w *world) {
		w.watch("a", "1", false)
		w.kill("a")
		w.tracker.Suspect("a", errors.New("dial refused"))
		w.after(time.Second)
		w.tracker.BeatAt("a", time.Now().Add(-2*time.Second)) // told late by another peer
		synctest.Wait()
		w.expect("0s a down: dial refused; connection refused")
	})
}
