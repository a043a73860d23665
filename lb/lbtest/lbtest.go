// Package lbtest is the contract of lb.Balancer as tests. Every backend runs
// it.
package lbtest

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"srsx/lb"
)

// patience is how long a condition may take on a busy machine.
const patience = 20 * time.Second

// Run runs the contract. Open returns a balancer without origins, with a TTL
// and probes quick enough to wait for; Run closes it.
func Run(t *testing.T, open func(t *testing.T) lb.Balancer) {
	for name, test := range map[string]func(*testing.T, lb.Balancer){
		"FirstPlacementWins":               firstPlacementWins,
		"BurstIsBalanced":                  burstIsBalanced,
		"WeightsDivideTheStreams":          weightsDivideTheStreams,
		"StateReturnsToZero":               stateReturnsToZero,
		"ViewerHoldsAfterPublisherLeft":    viewerHoldsAfterPublisherLeft,
		"AcquireWaitsForAnOrigin":          acquireWaitsForAnOrigin,
		"NoOriginNamesTheReasons":          noOriginNamesTheReasons,
		"AvoidKeepsPlacedStreams":          avoidKeepsPlacedStreams,
		"AbandonUndoesOnlyWhatNobodyHolds": abandonUndoesOnlyWhatNobodyHolds,
		"DownOriginsStreamIsPlacedAnew":    downOriginsStreamIsPlacedAnew,
		"NewIncarnationLosesItsPlacements": newIncarnationLosesItsPlacements,
		"LiveServerIDIsNotTakenOver":       liveServerIDIsNotTakenOver,
		"DrainTakesNoNewStreams":           drainTakesNoNewStreams,
		"MoveAndForgetAreReported":         moveAndForgetAreReported,
		"CapsHold":                         capsHold,
		"ExplainAgreesWithAcquire":         explainAgreesWithAcquire,
		"UnknownNamesAreNotFound":          unknownNamesAreNotFound,
		"CloseEndsEverything":              closeEndsEverything,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := open(t)
			t.Cleanup(func() { _ = b.Close() })
			test(t, b)
		})
	}
}

// Origin returns an origin whose endpoints a probe reaches until the test ends,
// and a function that ends it sooner.
func Origin(t *testing.T, id string) (lb.Origin, func()) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var accepting sync.WaitGroup
	accepting.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	})
	stop := func() { _ = ln.Close(); accepting.Wait() }
	t.Cleanup(stop)
	return lb.Origin{
		ID:          lb.OriginID(id),
		Incarnation: lb.Incarnation{Server: id, Service: "s1", PID: "1"},
		IP:          "127.0.0.1",
		Endpoints:   lb.Endpoints{RTMP: []string{ln.Addr().String()}},
		Weight:      lb.DefaultWeight,
	}, stop
}

func register(t *testing.T, b lb.Balancer, origins ...lb.Origin) {
	t.Helper()
	for _, o := range origins {
		if err := b.Register(t.Context(), lb.Registration{Origin: o}); err != nil {
			t.Fatalf("Register(%s): %v", o.ID, err)
		}
	}
}

// three registers origins a, b and c and returns them.
func three(t *testing.T, b lb.Balancer) []lb.Origin {
	t.Helper()
	var origins []lb.Origin
	for _, id := range []string{"a", "b", "c"} {
		o, _ := Origin(t, id)
		origins = append(origins, o)
	}
	register(t, b, origins...)
	return origins
}

func stream(name string) lb.Stream {
	return lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: name}
}

func want(name string) lb.Want { return lb.Want{Stream: stream(name), Protocol: lb.RTMP} }

func acquire(t *testing.T, b lb.Balancer, w lb.Want) lb.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := b.Acquire(ctx, w)
	if err != nil {
		t.Fatalf("Acquire(%s): %v", w.Stream, err)
	}
	return l
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func count(b lb.Balancer) int {
	n := 0
	for range b.Placements() {
		n++
	}
	return n
}

func firstPlacementWins(t *testing.T, b lb.Balancer) {
	three(t, b)
	const callers, streams = 16, 50
	got := make([][]lb.OriginID, callers)
	created := make([]int, callers)
	var racing sync.WaitGroup
	for i := range callers {
		racing.Go(func() {
			for s := range streams {
				l, err := b.Acquire(t.Context(), want(strconv.Itoa(s)))
				if err != nil {
					t.Errorf("Acquire: %v", err)
					return
				}
				got[i] = append(got[i], l.Origin.ID)
				if l.Created {
					created[i]++
				}
			}
		})
	}
	racing.Wait()
	for i := range callers {
		if !slices.Equal(got[i], got[0]) {
			t.Errorf("caller %d got %v; want what caller 0 got, %v", i, got[i], got[0])
		}
	}
	total := 0
	for _, n := range created {
		total += n
	}
	if total != streams {
		t.Errorf("%d placements were created; want %d, one a stream", total, streams)
	}
}

func burstIsBalanced(t *testing.T, b lb.Balancer) {
	three(t, b)
	for i := range 200 {
		acquire(t, b, want(strconv.Itoa(i)))
	}
	for _, o := range b.Origins() {
		if o.Streams < 66 || o.Streams > 67 {
			t.Errorf("%s has %d of 200 streams; want a third", o.ID, o.Streams)
		}
	}
}

func weightsDivideTheStreams(t *testing.T, b lb.Balancer) {
	three(t, b)
	if err := b.SetWeight(t.Context(), "a", 2*lb.DefaultWeight); err != nil {
		t.Fatal(err)
	}
	if err := b.SetWeight(t.Context(), "c", 0); err != nil {
		t.Fatal(err)
	}
	for i := range 90 {
		acquire(t, b, want(strconv.Itoa(i)))
	}
	for id, streams := range map[lb.OriginID]int{"a": 60, "b": 30, "c": 0} {
		if o, _ := b.Origin(id); o.Streams != streams {
			t.Errorf("%s has %d streams; want %d", id, o.Streams, streams)
		}
	}
}

func stateReturnsToZero(t *testing.T, b lb.Balancer) {
	three(t, b)
	var leases []lb.Lease
	for i := range 30 {
		w := want(strconv.Itoa(i % 10))
		w.Publish = i < 10
		leases = append(leases, acquire(t, b, w))
	}
	for _, l := range leases {
		b.Release(l)
	}
	eventually(t, "no placement left", func() bool { return count(b) == 0 })
	if _, _, ok := b.Lookup(stream("0")); ok {
		t.Error("Lookup finds a released stream")
	}
	for _, o := range b.Origins() {
		if o.Streams != 0 {
			t.Errorf("%s still has %d streams", o.ID, o.Streams)
		}
	}
}

func viewerHoldsAfterPublisherLeft(t *testing.T, b lb.Balancer) {
	three(t, b)
	viewer := acquire(t, b, want("s"))
	w := want("s")
	w.Publish = true
	publisher := acquire(t, b, w)
	if publisher.Origin.ID != viewer.Origin.ID {
		t.Fatalf("publisher is on %s; want %s, where the viewer came first", publisher.Origin.ID, viewer.Origin.ID)
	}
	eventually(t, "publishing is set", func() bool {
		p, _, _ := b.Lookup(w.Stream)
		return p.Publishing
	})
	b.Release(publisher)
	eventually(t, "publishing is cleared", func() bool {
		p, _, ok := b.Lookup(w.Stream)
		return ok && !p.Publishing && len(p.Holders) == 1
	})
	b.Release(viewer)
}

func acquireWaitsForAnOrigin(t *testing.T, b lb.Balancer) {
	type answer struct {
		lease lb.Lease
		err   error
	}
	answers := make(chan answer, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() {
		l, err := b.Acquire(ctx, want("s"))
		answers <- answer{l, err}
	}()
	o, _ := Origin(t, "late")
	register(t, b, o)
	if a := <-answers; a.err != nil || a.lease.Origin.ID != "late" {
		t.Errorf("Acquire = %s, %v; want the origin that came later", a.lease.Origin.ID, a.err)
	}
}

func noOriginNamesTheReasons(t *testing.T, b lb.Balancer) {
	three(t, b)
	if err := b.SetWeight(t.Context(), "a", 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Drain(t.Context(), "b", time.Time{}); err != nil {
		t.Fatal(err)
	}
	w := want("s")
	w.Avoid = []lb.OriginID{"c"}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := b.Acquire(ctx, w)
	if !errors.Is(err, lb.ErrNoOrigin) {
		t.Fatalf("Acquire = %v; want ErrNoOrigin", err)
	}
	if want := "no origin available: a: weight 0; b: draining; c: not reached from this peer"; err.Error() != want {
		t.Errorf("error = %q; want %q", err, want)
	}
}

func avoidKeepsPlacedStreams(t *testing.T, b lb.Balancer) {
	three(t, b)
	first := acquire(t, b, want("s"))
	w := want("s")
	w.Avoid = []lb.OriginID{first.Origin.ID}
	if again := acquire(t, b, w); again.Origin.ID != first.Origin.ID {
		t.Errorf("Acquire = %s; want %s: one peer's view moves nothing", again.Origin.ID, first.Origin.ID)
	}
}

func abandonUndoesOnlyWhatNobodyHolds(t *testing.T, b lb.Balancer) {
	three(t, b)
	alone := acquire(t, b, want("alone"))
	if err := b.Abandon(t.Context(), alone); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := b.Lookup(stream("alone")); ok {
		t.Error("an abandoned placement that nobody holds is still there")
	}
	first, second := acquire(t, b, want("shared")), acquire(t, b, want("shared"))
	if err := b.Abandon(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if p, _, ok := b.Lookup(stream("shared")); !ok || p.Generation != second.Placement.Generation {
		t.Error("an abandoned placement that another session holds is gone")
	}
}
