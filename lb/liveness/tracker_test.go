package liveness_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"srsx/lb"
	"srsx/lb/liveness"
)

const ttl = 30 * time.Second

var errRefused = errors.New("connection refused")

// world is a tracker, the origins that it probes and what it had agreed. It is
// the backend as well: an edge that is proposed is agreed at once. Time is that
// of a synctest bubble.
type world struct {
	*testing.T

	tracker *liveness.Tracker
	start   time.Time

	mu     sync.Mutex
	dead   map[lb.OriginID]error // what a probe of a dead origin says
	slow   time.Duration         // how long each probe takes
	origin map[lb.OriginID]lb.Origin
	edges  []string // "12s a down: reason"
	probes map[lb.OriginID]int
}

// in runs a test with a running tracker, which has to end with the test. Other
// peers have a word if there is a poll.
func in(t *testing.T, test func(w *world), poll ...liveness.Prober) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			T: t, start: time.Now(), dead: map[lb.OriginID]error{}, origin: map[lb.OriginID]lb.Origin{}, probes: map[lb.OriginID]int{},
		}
		config := liveness.Config{TTL: ttl, Probe: w.probe}
		for _, p := range poll {
			config.Poll = p
		}
		w.tracker = liveness.New(w, config)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.tracker.Run(ctx) })
		defer running.Wait()
		defer cancel()
		test(w)
	})
}

func (w *world) probe(ctx context.Context, o lb.Origin) error {
	w.mu.Lock()
	w.probes[o.ID]++
	slow, err := w.slow, w.dead[o.ID]
	w.mu.Unlock()
	select {
	case <-time.After(slow):
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *world) ProposeUp(id lb.OriginID, inc lb.Incarnation, reason string) {
	w.agree(id, inc, lb.Up, "up: "+reason)
}

func (w *world) ProposeDown(id lb.OriginID, inc lb.Incarnation, reason string) {
	w.agree(id, inc, lb.Down, "down: "+reason)
}

func (w *world) agree(id lb.OriginID, inc lb.Incarnation, state lb.OriginState, edge string) {
	w.mu.Lock()
	o, known := w.origin[id]
	agreed := known && o.Incarnation == inc && o.State != state
	if agreed {
		o.State = state
		w.origin[id] = o
	} else {
		edge += ", which is no edge"
	}
	w.edges = append(w.edges, fmt.Sprintf("%s %s %s", time.Since(w.start).Truncate(time.Second), id, edge))
	w.mu.Unlock()
	if agreed {
		w.tracker.Watch(o)
	}
}

// watch has the tracker watch a run of an origin that is up.
func (w *world) watch(id, pid string, static bool) {
	o := lb.Origin{ID: lb.OriginID(id), Incarnation: lb.Incarnation{Server: id, PID: pid}, Static: static}
	w.mu.Lock()
	w.origin[o.ID] = o
	w.mu.Unlock()
	w.tracker.Watch(o)
}

func (w *world) kill(id lb.OriginID)   { w.mu.Lock(); defer w.mu.Unlock(); w.dead[id] = errRefused }
func (w *world) revive(id lb.OriginID) { w.mu.Lock(); defer w.mu.Unlock(); delete(w.dead, id) }

// beat sends heartbeats every ten seconds for a time, the first one at once.
func (w *world) beat(id lb.OriginID, d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		w.tracker.Beat(id)
		time.Sleep(10 * time.Second)
	}
}

// after lets time go by.
func (w *world) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) expect(want ...string) {
	w.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.edges, want) {
		w.Errorf("edges = %q; want %q", w.edges, want)
	}
}

func (w *world) probed(id lb.OriginID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probes[id]
}

func TestSilentDeadOriginGoesDown(t *testing.T) {
	in(t, func(w *world) {
		w.watch("a", "1", false)
		w.kill("a")
		w.beat("a", 60*time.Second) // the last one after 50 s
		w.after(19 * time.Second)
		w.expect()
		w.after(2 * time.Second)
		w.expect("1m20s a down: silent for 30s; connection refused")
	})
}

func TestSilentOriginThatAnswersStaysUp(t *testing.T) {
	in(t, func(w *world) {
		w.watch("a", "1", false)
		w.after(5 * time.Minute)
		w.expect()
		if n := w.probed("a"); n < 9 || n > 10 {
			w.Errorf("probed %d times in 5 minutes of silence; want once a TTL", n)
		}
	})
}

func TestBeatingOriginIsNotProbed(t *testing.T) {
	in(t, func(w *world) {
		w.watch("a", "1", false)
		w.beat("a", 5*time.Minute)
		if n := w.probed("a"); n != 0 {
			w.Errorf("probed %d times; want not at all", n)
		}
		if last := w.tracker.LastBeat("a"); time.Since(last) != 10*time.Second {
			w.Errorf("last beat %s ago; want 10s", time.Since(last))
		}
	})
}

func TestSuspectIsProbedAtOnce(t *testing.T) {
	in(t, func(w *world) {
		w.watch("dead", "1", false)
		w.watch("alive", "1", false)
		w.kill("dead")
		w.tracker.Suspect("dead", errors.New("dial refused"))
		w.tracker.Suspect("alive", errors.New("dial refused"))
		w.tracker.Suspect("unknown", errors.New("dial refused"))
		w.after(time.Second)
		w.expect("0s dead down: dial refused; connection refused")
		if n := w.probed("alive"); n != 1 {
			w.Errorf("a suspect that answers was probed %d times; want once", n)
		}
	})
}

func TestProbeThatTakesTooLongFails(t *testing.T) {
	in(t, func(w *world) {
		w.watch("a", "1", false)
		w.slow = time.Hour
		w.tracker.Suspect("a", errors.New("dial timed out"))
		w.after(time.Second)
		w.tracker.Suspect("a", errors.New("dial timed out")) // while the first is on its way
		w.after(500 * time.Millisecond)
		if n := w.probed("a"); n != 1 {
			w.Errorf("%d probes are under way; want one at a time", n)
		}
		w.after(3 * time.Second)
		w.expect("2s a down: dial timed out; context deadline exceeded")
	})
}

func TestDownOriginComesBackByAProbe(t *testing.T) {
	in(t, func(w *world) {
		w.watch("a", "1", false)
		w.kill("a")
		w.tracker.Suspect("a", errors.New("dial refused"))
		w.after(time.Minute)
		// 0.5, 1, 2, 4 and then every 5 seconds.
		if n := w.probed("a"); n < 12 || n > 16 {
			w.Errorf("probed %d times in its first minute down; want ever less often, to once in 5 s", n)
		}
		w.revive("a")
		w.after(6 * time.Second)
		w.mu.Lock()
		edges := len(w.edges)
		w.mu.Unlock()
		if edges != 2 || w.origin["a"].State != lb.Up {
			w.Errorf("%d edges, state %s; want down and up again", edges, w.origin["a"].State)
		}
		before := w.probed("a")
		w.after(ttl - 7*time.Second)
		if n := w.probed("a") - before; n != 0 {
			w.Errorf("probed %d times after it was back; want none before it is silent again", n)
		}
	})
}

func TestDownOriginComesBackByAHeartbeat(t *testing.T) {
	in(t, func(w *world) {
		w.watch("a", "1", false)
		w.kill("a")
		w.tracker.Suspect("a", errors.New("dial refused"))
		w.after(3 * time.Second)
		w.tracker.Beat("a")
		w.expect("0s a down: dial refused; connection refused", "3s a up: heartbeat")
	})
}

// TestFlappingOriginIsFollowed: each edge is agreed once, and quickly.
func TestFlappingOriginIsFollowed(t *testing.T) {
	in(t, func(w *world) {
		w.watch("a", "1", false)
		for range 20 {
			w.kill("a")
			w.tracker.Suspect("a", errors.New("dial refused"))
			w.after(500 * time.Millisecond)
			w.revive("a")
			w.after(1500 * time.Millisecond)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.edges) != 40 {
			w.Errorf("%d edges; want 20 down and 20 up: %q", len(w.edges), w.edges)
		}
		for i, edge := range w.edges {
			if want := []string{" a down: ", " a up: "}[i%2]; !strings.Contains(edge, want) {
				w.Errorf("edge %d = %q; want%s", i, edge, want)
			}
		}
	})
}

func TestStaticOriginIsProbedInTime(t *testing.T) {
	in(t, func(w *world) {
		w.watch("s", "", true)
		w.after(time.Minute)
		if n := w.probed("s"); n < 5 || n > 6 {
			w.Errorf("probed %d times in a minute; want three times a TTL: it sends no heartbeat", n)
		}
		w.kill("s")
		w.after(11 * time.Second)
		w.mu.Lock()
		down := w.origin["s"].State == lb.Down
		w.mu.Unlock()
		if !down {
			w.Error("a dead static origin is up a third of the TTL later")
		}
		w.revive("s")
		w.after(6 * time.Second)
		if w.mu.Lock(); w.origin["s"].State != lb.Up {
			w.Error("a static origin that answers again is down")
		}
		w.mu.Unlock()
	})
}

// TestNewIncarnationStartsAfresh: what was found out about the run before says
// nothing about this one, though the probe was under way when it came.
func TestNewIncarnationStartsAfresh(t *testing.T) {
	in(t, func(w *world) {
		w.watch("a", "1", false)
		w.kill("a")
		w.slow = time.Second
		w.tracker.Suspect("a", errors.New("dial refused"))
		w.after(500 * time.Millisecond) // the probe is under way
		w.revive("a")
		w.watch("a", "2", false)
		w.after(ttl - 2*time.Second)
		w.expect()
		w.kill("a")
		w.tracker.Suspect("a", errors.New("dial refused"))
		w.after(2 * time.Second)
		w.expect("29s a down: dial refused; connection refused")
		w.watch("a", "3", false)
		w.beat("a", 20*time.Second)
		w.expect("29s a down: dial refused; connection refused")
	})
}

// TestWhatOthersFoundCountsAsSeen: an origin that others agreed to be back has
// its TTL before this peer doubts it.
func TestWhatOthersFoundCountsAsSeen(t *testing.T) {
	in(t, func(w *world) {
		w.watch("a", "1", false)
		w.kill("a") // as seen from here
		w.ProposeDown("a", w.origin["a"].Incarnation, "by others")
		w.after(10 * time.Minute)
		w.ProposeUp("a", w.origin["a"].Incarnation, "by others")
		w.after(ttl - time.Second)
		w.expect("0s a down: by others", "10m0s a up: by others")
		w.after(2 * time.Second)
		w.expect("0s a down: by others", "10m0s a up: by others", "10m30s a down: silent for 30s; connection refused")
	})
}

func TestForgottenOriginIsLeftAlone(t *testing.T) {
	in(t, func(w *world) {
		w.watch("a", "1", false)
		w.kill("a")
		w.slow = time.Second
		w.tracker.Suspect("a", errors.New("dial refused"))
		w.after(500 * time.Millisecond)
		w.tracker.Forget("a") // while the probe is under way
		w.tracker.Beat("a")
		w.after(time.Hour)
		w.expect()
		if n := w.probed("a"); n != 1 {
			w.Errorf("probed %d times; want once, before it was forgotten", n)
		}
		if !w.tracker.LastBeat("a").IsZero() {
			w.Error("a forgotten origin has a last beat")
		}
	})
}

func TestRunEndsWithItsProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, start: time.Now(), slow: time.Hour, dead: map[lb.OriginID]error{}, origin: map[lb.OriginID]lb.Origin{}, probes: map[lb.OriginID]int{}}
		w.tracker = liveness.New(w, liveness.Config{Probe: w.probe})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { w.tracker.Run(ctx); close(ended) }()
		w.watch("a", "1", false)
		w.tracker.Suspect("a", errors.New("dial refused"))
		w.after(time.Second)
		cancel()
		synctest.Wait()
		select {
		case <-ended:
		default:
			t.Error("Run goes on after its context ended")
		}
		w.expect() // a probe that was cut off says nothing
	})
}
