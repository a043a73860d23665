package raftlb_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"srsx/lb"
	"srsx/lb/raftlb"
)

// watch is peers and the origin that they watch.
type watch struct {
	*testing.T

	peers []*peer

	mu     sync.Mutex
	blind  map[int]bool // which peers do not reach it
	probes map[int]int  // how often each has tried
}

func (w *watch) probe(i int) func(context.Context, lb.Origin) error {
	return func(context.Context, lb.Origin) error {
		time.Sleep(probeTime)
		w.mu.Lock()
		defer w.mu.Unlock()
		w.probes[i]++
		if w.blind[i] {
			return errors.New("connection refused")
		}
		return nil
	}
}

func (w *watch) blindfold(blind ...int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.blind)
	for _, i := range blind {
		w.blind[i] = true
	}
}

func (w *watch) probed(i int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.probes[i]
}

const (
	watchedTTL = 30 * time.Second
	probeTime  = 20 * time.Millisecond
)

// watched runs a test with n peers, of which the first leads, and one origin,
// that sends its heartbeats to the last. Time is that of a synctest bubble.
func watched(t *testing.T, n int, test func(w *watch)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &watch{T: t, blind: make(map[int]bool), probes: make(map[int]int)}
		w.peers = peers(t, n, func(i int, c *raftlb.Config) { c.Probe, c.TTL = w.probe(i), watchedTTL })
		w.beat()
		test(w)
	})
}

func (w *watch) beat() {
	w.Helper()
	o := lb.Origin{
		ID: "x", Incarnation: lb.Incarnation{Server: "x", PID: "1"}, IP: "10.0.0.1", Weight: lb.DefaultWeight,
		Endpoints: lb.Endpoints{RTMP: []string{"10.0.0.1:1935"}},
	}
	last := w.peers[len(w.peers)-1]
	if err := last.Register(w.Context(), lb.Registration{Origin: o}); err != nil {
		w.Fatal(err)
	}
}

// seenBy returns what a peer believes the origin to be.
func (w *watch) seenBy(i int) lb.OriginState {
	o, _ := w.peers[i].Origin("x")
	return o.State
}

// after lets time go by, and what is then under way end.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestOriginIsEndedByWhatAMajoritySees(t *testing.T) {
	for name, c := range map[string]struct {
		voters    int
		blind     []int // 0 leads
		suspected int   // by whom
		want      lb.OriginState
	}{
		"a peer alone":              {1, []int{0}, 0, lb.Down},
		"the leader only":           {3, []int{0}, 0, lb.Up},
		"a follower only":           {3, []int{2}, 2, lb.Up},
		"the leader and a follower": {3, []int{0, 1}, 1, lb.Down},
		"all but the leader":        {3, []int{1, 2}, 1, lb.Down},
		"two of five":               {5, []int{0, 4}, 4, lb.Up},
		"half of them":              {4, []int{0, 1}, 0, lb.Up},
	} {
		t.Run(name, func(t *testing.T) {
			watched(t, c.voters, func(w *watch) {
				w.blindfold(c.blind...)
				w.peers[c.suspected].Suspect("x", errors.New("dial refused"))
				after(time.Second)
				for i := range w.peers {
					if got := w.seenBy(i); got != c.want {
						w.Errorf("peer %d: the origin is %s; want %s", i, got, c.want)
					}
				}
			})
		})
	}
}

func TestOriginThatOnlyTheLeaderCannotReachStaysUp(t *testing.T) {
	watched(t, 3, func(w *watch) {
		w.blindfold(0)
		events, cancel := w.peers[0].Events()
		defer cancel()
		// It falls silent, is suspected, and is heard again: nothing comes of it.
		after(3 * watchedTTL)
		w.peers[0].Suspect("x", errors.New("dial refused"))
		after(10 * time.Second)
		w.beat()
		after(10 * time.Second)
		select {
		case e := <-events:
			w.Errorf("event %s of %s: %s; want none", e.Kind, e.Origin, e.Reason)
		default:
		}
		if w.probed(1) == 0 || w.probed(2) == 0 {
			w.Error("the others were not asked")
		}
	})
}

func TestSilentOriginThatAMajorityReachesNotIsDown(t *testing.T) {
	watched(t, 3, func(w *watch) {
		w.blindfold(0, 1)
		after(watchedTTL - 2*time.Second)
		if got := w.seenBy(2); got != lb.Up {
			w.Fatalf("the origin is %s before its TTL has passed; want up", got)
		}
		after(4 * time.Second)
		if got := w.seenBy(2); got != lb.Down {
			w.Errorf("the origin is %s; want down", got)
		}
	})
}

func TestRoundsAreRare(t *testing.T) {
	watched(t, 3, func(w *watch) {
		w.blindfold(1) // it dials in vain, again and again
		for range 600 {
			w.peers[1].Suspect("x", errors.New("dial refused"))
			after(100 * time.Millisecond)
		}
		if n := w.probed(2); n < 10 || n > 14 {
			w.Errorf("a voter was asked %d times in a minute; want once in 5 s", n)
		}
		w.blindfold(0, 1, 2)
		after(6 * time.Second) // the last suspicion was not forgotten
		if got := w.seenBy(2); got != lb.Down {
			w.Errorf("the origin is %s; want down", got)
		}
	})
}

func TestQuietOriginThatAnswersIsTheLeadersBusiness(t *testing.T) {
	watched(t, 3, func(w *watch) {
		after(5 * watchedTTL)
		if w.probed(0) < 4 || w.probed(1) > 0 || w.probed(2) > 0 {
			w.Errorf("probed %d, %d and %d times; want the leader alone to look once a TTL", w.probed(0), w.probed(1), w.probed(2))
		}
	})
}

func TestOriginIsBackWhenAMajorityReachesIt(t *testing.T) {
	watched(t, 3, func(w *watch) {
		w.blindfold(0, 1, 2)
		w.peers[0].Suspect("x", errors.New("dial refused"))
		after(2 * time.Second)
		w.blindfold(1, 2)
		after(20 * time.Second)
		if got := w.seenBy(1); got != lb.Down {
			w.Errorf("the origin is %s though only the leader reaches it; want down", got)
		}
		w.blindfold(0)
		after(6 * time.Second)
		if got := w.seenBy(1); got != lb.Up {
			w.Errorf("the origin is %s though only the leader does not reach it; want up", got)
		}
	})
}

func TestVoterOutOfReachIsNoWitness(t *testing.T) {
	watched(t, 3, func(w *watch) {
		w.blindfold(0, 1, 2)
		w.peers[1].leave()
		w.peers[2].leave()
		w.peers[0].Suspect("x", errors.New("dial refused"))
		after(10 * time.Second)
		if got := w.seenBy(0); got != lb.Up {
			w.Errorf("a leader alone found the origin %s; want up, as before", got)
		}
	})
}

func TestReasonOfAnEdgeSaysWhoFoundIt(t *testing.T) {
	watched(t, 3, func(w *watch) {
		w.blindfold(0, 1, 2)
		events, cancel := w.peers[2].Events()
		defer cancel()
		after(watchedTTL + time.Second)
		const want = "silent for 30s; connection refused; a majority of the voters does not reach it"
		if e := <-events; e.Kind != lb.OriginDown || e.Reason != want {
			w.Errorf("event %s, %q; want %s, %q", e.Kind, e.Reason, lb.OriginDown, want)
		}
	})
}

func TestLiveRunIsNotReplacedBecauseTheLeaderDoesNotReachIt(t *testing.T) {
	watched(t, 3, func(w *watch) {
		w.blindfold(0)
		second := lb.Origin{
			ID: "x", Incarnation: lb.Incarnation{Server: "x", PID: "2"}, IP: "10.0.0.2",
			Endpoints: lb.Endpoints{RTMP: []string{"10.0.0.2:1935"}},
		}
		if err := w.peers[2].Register(w.Context(), lb.Registration{Origin: second}); !errors.Is(err, lb.ErrDuplicateOrigin) {
			w.Errorf("Register of a second run = %v; want ErrDuplicateOrigin", err)
		}
		w.blindfold(0, 1)
		if err := w.peers[2].Register(w.Context(), lb.Registration{Origin: second}); err != nil {
			w.Errorf("Register after the first run is dead = %v", err)
		}
	})
}

func TestWhoAsksTheSameSharesTheRound(t *testing.T) {
	watched(t, 3, func(w *watch) {
		var asking sync.WaitGroup
		for pid := range 50 {
			other := lb.Origin{
				ID: "x", Incarnation: lb.Incarnation{Server: "x", PID: strconv.Itoa(2 + pid)}, IP: "10.0.0.2",
				Endpoints: lb.Endpoints{RTMP: []string{"10.0.0.2:1935"}},
			}
			asking.Go(func() {
				if err := w.peers[pid%3].Register(w.Context(), lb.Registration{Origin: other}); !errors.Is(err, lb.ErrDuplicateOrigin) {
					w.Errorf("Register of another run = %v; want ErrDuplicateOrigin", err)
				}
			})
		}
		asking.Wait()
		if n := w.probed(1); n != 1 {
			w.Errorf("a voter was asked %d times at once; want once", n)
		}
	})
}

func TestWitnessKnowsWhatItIsAsked(t *testing.T) {
	watched(t, 3, func(w *watch) {
		w.blindfold(1)
		for question, want := range map[string]bool{
			`{"Origin":"x","Incarnation":{"Server":"x","PID":"1"}}`:              true,
			`{"Origin":"x","Incarnation":{"Server":"x","PID":"1"},"Alive":true}`: false,
			`{"Origin":"x","Incarnation":{"Server":"x","PID":"2"}}`:              false, // another run
			`{"Origin":"y","Incarnation":{"Server":"x","PID":"1"}}`:              false,
			`{"Origin":`: false,
			``:           false,
		} {
			if got := w.peers[1].Witness(w.Context(), "", []byte(question)); got != want {
				w.Errorf("Witness(%s) = %t; want %t", question, got, want)
			}
		}
		ended, cancel := context.WithCancel(w.Context())
		cancel()
		if w.peers[1].Witness(ended, "", []byte(`{"Origin":"x","Incarnation":{"Server":"x","PID":"1"}}`)) {
			w.Error("a probe that was cut off found the origin dead")
		}
	})
}
