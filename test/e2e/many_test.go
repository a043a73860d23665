package e2e

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"srsx/test/mediatest"
	"srsx/test/peertest"
)

// encoder publishes a pattern and reconnects for ever, as encoders do.
type encoder struct {
	name string

	mu      sync.Mutex
	broken  time.Time     // guarded by mu; first attempt since it was cut off; zero: publishing
	longest time.Duration // guarded by mu; from the first attempt to the next success
	cuts    int           // guarded by mu
	// accepted is true while the stream is published. Guarded by mu.
	accepted bool
}

// reconnectAfter is how long an encoder waits before it tries again.
const reconnectAfter = 200 * time.Millisecond

func (e *encoder) run(ctx context.Context, to mediatest.Target) {
	for ctx.Err() == nil {
		e.attempt(ctx, to)
		select {
		case <-ctx.Done():
		case <-time.After(reconnectAfter):
		}
	}
}

func (e *encoder) attempt(ctx context.Context, to mediatest.Target) {
	e.mu.Lock()
	if e.broken.IsZero() {
		e.broken = time.Now()
	}
	e.mu.Unlock()
	c, err := mediatest.Dial(ctx, to)
	if err != nil {
		return
	}
	defer c.Close()
	if err := c.Publish(e.name); err != nil {
		return
	}
	e.mu.Lock()
	e.longest = max(e.longest, time.Since(e.broken))
	e.broken, e.accepted = time.Time{}, true
	e.mu.Unlock()
	_ = c.Send(ctx, mediatest.NewPattern(e.name))
	e.mu.Lock()
	e.accepted = false
	e.cuts++
	e.mu.Unlock()
}

// forget starts a new measurement.
func (e *encoder) forget() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.longest, e.cuts = 0, 0
}

func (e *encoder) measured() (longest time.Duration, cuts int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.longest, e.cuts
}

// publishing reports whether the origin has accepted the stream.
func (e *encoder) publishing() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.accepted
}

// live is the app of all streams that the tests count.
func live(addr string) mediatest.Target { return mediatest.Target{Addr: addr, App: "live"} }

// startEncoders runs encoders until the test ends.
func startEncoders(t *testing.T, to mediatest.Target, prefix string, n int) []*encoder {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	encoders := make([]*encoder, n)
	for i := range encoders {
		encoders[i] = &encoder{name: fmt.Sprintf("%s%03d", prefix, i)}
		running.Go(func() { encoders[i].run(ctx, to) })
	}
	return encoders
}

// published counts the streams that have a publisher, by origin.
func published(t *testing.T, peer *peertest.Peer) (byOrigin map[string]int, total int) {
	t.Helper()
	byOrigin = make(map[string]int)
	for _, p := range peer.Placements(t) {
		if p.Publishing {
			byOrigin[p.Origin]++
			total++
		}
	}
	return byOrigin, total
}

func TestManyStreamsAreBalancedAndSurviveTheirOrigin(t *testing.T) {
	const streams = 200
	doomed := startLAL(t, "lal1")
	peer := startPeer(t, doomed, startLAL(t, "lal2"), startNginx(t, "nginx1"))
	if _, errs, code := peer.CLI(t, "origin", "weight", "nginx1", "200"); code != 0 {
		t.Fatalf("origin weight = %d %s", code, errs)
	}
	encoders := startEncoders(t, live(peer.RTMP), "s", streams)
	peertest.Eventually(t, 60*time.Second, "all streams published", func() bool {
		// A placement counts its publisher before the origin has accepted it.
		return !slices.ContainsFunc(encoders, func(e *encoder) bool { return !e.publishing() })
	})
	byOrigin, _ := published(t, peer)
	for id, want := range map[string]int{"lal1": 50, "lal2": 50, "nginx1": 100} {
		if got := byOrigin[id]; got < want-2 || got > want+2 {
			t.Errorf("%s has %d streams; want about %d by its weight (all: %v)", id, got, want, byOrigin)
		}
	}

	for _, e := range encoders {
		e.forget()
	}
	doomed.Kill()
	peertest.Eventually(t, 30*time.Second, "all streams published without the dead origin", func() bool {
		now, n := published(t, peer)
		return n == streams && now["lal1"] == 0
	})
	cuts := 0
	for _, e := range encoders {
		longest, n := e.measured()
		cuts += n
		if longest > 3*time.Second {
			t.Errorf("%s was published %v after it reconnected; want 3s at most", e.name, longest)
		}
	}
	if cuts < byOrigin["lal1"] {
		t.Errorf("%d encoders were cut off; want the %d of the dead origin", cuts, byOrigin["lal1"])
	}

	startEncoders(t, live(peer.RTMP), "late", 20)
	peertest.Eventually(t, 30*time.Second, "new streams published", func() bool {
		_, n := published(t, peer)
		return n == streams+20
	})
	if byOrigin, _ = published(t, peer); byOrigin["lal1"] != 0 {
		t.Errorf("the dead origin got %d new streams", byOrigin["lal1"])
	}
	viewer, err := mediatest.Dial(t.Context(), live(peer.RTMP))
	if err != nil {
		t.Fatal(err)
	}
	defer viewer.Close()
	if err = viewer.Play("s000"); err != nil {
		t.Fatal(err)
	}
	if name, _, err := viewer.NextFrame(); err != nil || name != "s000" {
		t.Errorf("frame = %q, %v; want one of s000", name, err)
	}
}
