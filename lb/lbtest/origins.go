package lbtest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"srsx/lb"
)

func downOriginsStreamIsPlacedAnew(t *testing.T, b lb.Balancer) {
	dying, kill := Origin(t, "dying")
	register(t, b, dying)
	first := acquire(t, b, want("s"))
	other, _ := Origin(t, "other")
	register(t, b, other)
	kill()
	b.Suspect("dying", errors.New("connection refused"))
	eventually(t, "origin is down", func() bool {
		o, _ := b.Origin("dying")
		return o.State == lb.Down
	})
	if _, o, ok := b.Lookup(stream("s")); !ok || o.ID != "dying" {
		t.Errorf("Lookup = %s, %v; want the old placement until somebody asks", o.ID, ok)
	}
	second := acquire(t, b, want("s"))
	if second.Origin.ID != "other" || second.Placement.Generation == first.Placement.Generation {
		t.Errorf("Acquire = %s, generation %d; want a new placement on other", second.Origin.ID, second.Placement.Generation)
	}
	b.Release(first) // belongs to the old generation: must not touch the new one
	if p, _, ok := b.Lookup(stream("s")); !ok || len(p.Holders) != 1 {
		t.Error("releasing the old lease released the new placement")
	}
}

func newIncarnationLosesItsPlacements(t *testing.T, b lb.Balancer) {
	o, _ := Origin(t, "a")
	register(t, b, o)
	acquire(t, b, want("s"))
	o.Incarnation.Service, o.Incarnation.PID = "s2", "2"
	register(t, b, o)
	if _, _, ok := b.Lookup(stream("s")); ok {
		t.Error("the placement outlived its incarnation")
	}
	if l := acquire(t, b, want("s")); l.Placement.Incarnation != o.Incarnation {
		t.Errorf("placed on %v; want the new incarnation", l.Placement.Incarnation)
	}
}

func liveServerIDIsNotTakenOver(t *testing.T, b lb.Balancer) {
	first, stopFirst := Origin(t, "a")
	second, _ := Origin(t, "a")
	second.Incarnation.Service = "s2"
	register(t, b, first)
	err := b.Register(t.Context(), lb.Registration{Origin: second})
	if !errors.Is(err, lb.ErrDuplicateOrigin) {
		t.Fatalf("Register of a second live run = %v; want ErrDuplicateOrigin", err)
	}
	stopFirst()
	register(t, b, second)
	err = b.Register(t.Context(), lb.Registration{Origin: first})
	if !errors.Is(err, lb.ErrDuplicateOrigin) {
		t.Errorf("Register of the run that was replaced = %v; want ErrDuplicateOrigin: they alternate", err)
	}
}

func drainTakesNoNewStreams(t *testing.T, b lb.Balancer) {
	three(t, b)
	var onA lb.Stream
	for i := range 3 {
		if l := acquire(t, b, want(string(rune('x'+i)))); l.Origin.ID == "a" {
			onA = l.Placement.Stream
		}
	}
	if err := b.Drain(t.Context(), "a", time.Time{}); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		if l := acquire(t, b, want(string(rune('A'+i)))); l.Origin.ID == "a" {
			t.Fatal("a draining origin got a new stream")
		}
	}
	if l := acquire(t, b, lb.Want{Stream: onA, Protocol: lb.RTMP}); l.Origin.ID != "a" {
		t.Errorf("the placed stream is on %s; want a: existing ones go on", l.Origin.ID)
	}
	events, cancel := b.Events()
	defer cancel()
	if err := b.Drain(t.Context(), "a", time.Now().Add(10*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	await(t, events, lb.OriginDrained)
	if _, _, ok := b.Lookup(onA); ok {
		t.Error("a placement outlived the drain's deadline")
	}
	if err := b.Ready(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if o, _ := b.Origin("a"); o.State != lb.Up {
		t.Errorf("state after Ready = %s; want up", o.State)
	}
}

// await returns the next event of a kind.
func await(t *testing.T, events <-chan lb.Event, kind lb.EventKind) lb.Event {
	t.Helper()
	end := time.After(patience)
	for {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatalf("events ended before %q", kind)
			}
			if e.Kind == kind {
				return e
			}
		case <-end:
			t.Fatalf("no event %q within %s", kind, patience)
		}
	}
}

func moveAndForgetAreReported(t *testing.T, b lb.Balancer) {
	three(t, b)
	l := acquire(t, b, want("s"))
	to := lb.OriginID("a")
	if l.Origin.ID == to {
		to = "b"
	}
	events, cancel := b.Events()
	defer cancel()
	if err := b.Move(t.Context(), stream("s"), to); err != nil {
		t.Fatal(err)
	}
	if e := await(t, events, lb.StreamMoved); e.From != l.Origin.ID || e.Origin != to {
		t.Errorf("moved event from %s to %s; want %s to %s", e.From, e.Origin, l.Origin.ID, to)
	}
	b.Release(l)
	if again := acquire(t, b, want("s")); again.Origin.ID != to {
		t.Errorf("after move the stream is on %s; want %s", again.Origin.ID, to)
	}
	if err := b.Forget(t.Context(), stream("s")); err != nil {
		t.Fatal(err)
	}
	await(t, events, lb.StreamForgotten)
	if _, _, ok := b.Lookup(stream("s")); ok {
		t.Error("a forgotten placement is still there")
	}
	var kinds []lb.EventKind
	for _, e := range b.History(stream("s")) {
		kinds = append(kinds, e.Kind)
	}
	if want := []lb.EventKind{lb.StreamPlaced, lb.StreamMoved, lb.StreamForgotten}; !slices.Equal(kinds, want) {
		t.Errorf("history = %v; want %v", kinds, want)
	}
}

func capsHold(t *testing.T, b lb.Balancer) {
	o, _ := Origin(t, "small")
	o.MaxStreams = 2
	register(t, b, o)
	acquire(t, b, want("1"))
	acquire(t, b, want("2"))
	acquire(t, b, want("2"))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := b.Acquire(ctx, want("3")); !errors.Is(err, lb.ErrNoOrigin) {
		t.Errorf("third stream on an origin capped at two = %v; want ErrNoOrigin", err)
	}
}

func explainAgreesWithAcquire(t *testing.T, b lb.Balancer) {
	three(t, b)
	for i := range 10 {
		w := want(string(rune('a' + i)))
		e, err := b.Explain(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		if e.Placed != nil || len(e.Candidates) != 3 {
			t.Fatalf("Explain = %+v; want three candidates and no placement", e)
		}
		chosen := slices.IndexFunc(e.Candidates, func(c lb.Candidate) bool { return c.Chosen })
		if l := acquire(t, b, w); chosen < 0 || l.Origin.ID != e.Candidates[chosen].Origin {
			t.Errorf("explained %+v, placed on %s", e.Candidates, l.Origin.ID)
		}
	}
	if e, _ := b.Explain(t.Context(), want("a")); e.Placed == nil {
		t.Error("Explain of a placed stream does not say where it is")
	}
}

func unknownNamesAreNotFound(t *testing.T, b lb.Balancer) {
	for what, err := range map[string]error{
		"Drain":     b.Drain(t.Context(), "nobody", time.Time{}),
		"Ready":     b.Ready(t.Context(), "nobody"),
		"Remove":    b.Remove(t.Context(), "nobody"),
		"SetWeight": b.SetWeight(t.Context(), "nobody", 1),
		"Move":      b.Move(t.Context(), stream("nothing"), "nobody"),
		"Forget":    b.Forget(t.Context(), stream("nothing")),
	} {
		if !errors.Is(err, lb.ErrNotFound) {
			t.Errorf("%s = %v; want ErrNotFound", what, err)
		}
	}
}

func closeEndsEverything(t *testing.T, b lb.Balancer) {
	events, cancel := b.Events()
	defer cancel()
	waiting := make(chan error, 1)
	go func() {
		_, err := b.Acquire(t.Context(), want("s"))
		waiting <- err
	}()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-events; open {
		t.Error("events go on after Close")
	}
	if err := <-waiting; !errors.Is(err, lb.ErrClosed) {
		t.Errorf("Acquire = %v; want ErrClosed", err)
	}
	if err := b.Decisive(); !errors.Is(err, lb.ErrClosed) {
		t.Errorf("Decisive = %v; want ErrClosed", err)
	}
}
