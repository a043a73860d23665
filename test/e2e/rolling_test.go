//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"srsx/test/peertest"
)

// Each peer has encoders of its own, and players of all streams.
func TestRollingRestartLosesNothingElsewhere(t *testing.T) {
	t.Parallel()
	h := startHosted(t, 3)
	h.register(t, "o1", 0)
	h.register(t, "o2", 1)
	var encoders [3][]*encoder
	var viewers [3][3][]*viewer // by the peer of the player, by that of the encoder
	for i, n := range []int{7, 7, 6} {
		encoders[i] = startEncoders(t, h.live(i), h.peers[i].Node+"-", n)
	}
	for i := range h.peers {
		awaitPublishing(t, encoders[i])
		for j := range h.peers {
			viewers[i][j] = startReturningViewers(t, h.live(i), h.peers[j].Node+"-", len(encoders[j]))
		}
	}
	for i := range h.peers {
		for j := range h.peers {
			requireFlow(t, viewers[i][j])
		}
	}

	for i := range h.peers {
		stay := h.others(i)
		before := make(map[*viewer]viewed)
		for _, j := range stay {
			for _, k := range stay {
				for _, v := range viewers[j][k] {
					before[v] = v.soFar()
				}
			}
		}
		placer := h.startPlacer(t, stay)
		h.peers[i].Signal(t, syscall.SIGTERM)
		if code := h.peers[i].Code(t, 40*time.Second); code != 0 {
			t.Errorf("%s ended with %d; want 0", h.peers[i].Node, code)
		}
		h.again(t, i)
		h.awaitMembers(t, 3)
		awaitPublishing(t, encoders[i])
		for j := range h.peers {
			for k := range h.peers {
				requireFlow(t, viewers[j][k])
			}
		}
		placer.stop(t, "restart of "+h.peers[i].Node)
		for v, was := range before {
			if now := v.soFar(); now.cuts != was.cuts || now.lost != was.lost {
				t.Errorf("restart of %s: a player elsewhere was cut %d times and lost %d frames (%v); want neither",
					h.peers[i].Node, now.cuts-was.cuts, now.lost-was.lost, now.err)
			}
		}
		for _, j := range stay {
			requireUncut(t, encoders[j])
		}
		for _, e := range encoders[i] {
			e.forget() // it was its own peer that was restarted
		}
	}
}

// viewed is what a viewer has seen so far.
type viewed struct {
	frames, lost uint32
	cuts         int
	err          error
}

func (v *viewer) soFar() viewed {
	v.mu.Lock()
	defer v.mu.Unlock()
	return viewed{v.frames, v.lost, v.cuts, v.err}
}

// requireFlow waits until viewers get frames.
func requireFlow(t *testing.T, viewers []*viewer) {
	t.Helper()
	for i, v := range viewers {
		start := v.soFar().frames
		peertest.Eventually(t, 30*time.Second, fmt.Sprintf("viewer %d gets frames", i), func() bool { return v.soFar().frames > start })
	}
}

func TestALeaderThatStopsRefusesNobody(t *testing.T) {
	t.Parallel()
	h := startHosted(t, 3)
	h.register(t, "o1", 0)
	for range 2 {
		leader := h.leader(t, 0)
		placer := h.startPlacer(t, h.others(leader))
		h.peers[leader].Signal(t, syscall.SIGTERM)
		if code := h.peers[leader].Code(t, 40*time.Second); code != 0 {
			t.Errorf("%s ended with %d; want 0", h.peers[leader].Node, code)
		}
		h.again(t, leader)
		h.awaitMembers(t, 3)
		placer.stop(t, "stop of the leader")
	}
}

func TestWatchFollowsFromAnyPeer(t *testing.T) {
	t.Parallel()
	h := startHosted(t, 3)
	h.register(t, "o1", 0)
	leader := h.leader(t, 0)
	watching, elsewhere := h.others(leader)[0], h.others(leader)[1]
	watch := h.peers[watching].StartCLI(t, "placement", "watch")
	sees := func(name string) func() bool {
		return func() bool { return strings.Contains(watch.Output(), "live/"+name+" ") }
	}
	peertest.Eventually(t, 30*time.Second, "the watch has begun", func() bool {
		name, err := h.place(t, elsewhere)
		return err == nil && sees(name)()
	})
	for _, i := range []int{elsewhere, leader, watching} {
		name, err := h.place(t, i)
		if err != nil {
			t.Fatal(err)
		}
		peertest.Eventually(t, 2*time.Second, "what "+h.peers[i].Node+" places is seen", sees(name))
	}
}

// placer places new streams all the time, until it is stopped. Not one may be
// refused.
type placer struct {
	end func()

	mu      sync.Mutex
	placed  int           // guarded by mu
	slowest time.Duration // guarded by mu
}

func (h *hosted) startPlacer(t *testing.T, through []int) *placer {
	t.Helper()
	var placing sync.WaitGroup
	ended := make(chan struct{})
	p := &placer{end: sync.OnceFunc(func() { close(ended); placing.Wait() })}
	t.Cleanup(p.end)
	for _, i := range through {
		placing.Go(func() {
			pace := time.NewTicker(20 * time.Millisecond)
			defer pace.Stop()
			for {
				began := time.Now()
				name, err := h.place(t, i)
				p.count(time.Since(began))
				if err != nil {
					t.Errorf("%s through %s = %v after %v; want it placed", name, h.peers[i].Node, err, time.Since(began))
				}
				select {
				case <-pace.C:
				case <-ended:
					return
				}
			}
		})
	}
	return p
}

func (p *placer) count(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.placed++
	p.slowest = max(p.slowest, took)
}

func (p *placer) soFar() (placed int, slowest time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.placed, p.slowest
}

// stop waits for more streams to be placed and ends it.
func (p *placer) stop(t *testing.T, what string) {
	t.Helper()
	const more = 50
	before, _ := p.soFar()
	peertest.Eventually(t, 30*time.Second, "more streams are placed", func() bool {
		placed, _ := p.soFar()
		return placed >= before+more
	})
	p.end()
	placed, slowest := p.soFar()
	t.Logf("%s: %d new streams placed meanwhile, the slowest in %v", what, placed, slowest.Round(time.Millisecond))
}
