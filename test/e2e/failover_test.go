//go:build linux

package e2e

import (
	"syscall"
	"testing"
	"time"

	"srsx/test/netns"
	"srsx/test/peertest"
)

func TestNewStreamsArePlacedSoonAfterTheLeaderFallsSilent(t *testing.T) {
	t.Parallel()
	h := startHosted(t, 3)
	h.register(t, "o1", 0)
	h.register(t, "o2", 1)
	for name, silence := range map[string]struct{ begin, end func(leader int) }{
		"stopped": {
			begin: func(leader int) { h.peers[leader].Signal(t, syscall.SIGSTOP) },
			end:   func(leader int) { h.peers[leader].Signal(t, syscall.SIGCONT) },
		},
		"cutoff": {
			begin: func(leader int) {
				h.hosts[leader].Cut(t, append([]*netns.Host{h.crowd}, h.hosts...)...)
			},
			end: func(leader int) { h.hosts[leader].Heal(t) },
		},
	} {
		leader := h.leader(t, 0)
		encoders := startEncoders(t, h.live(h.others(leader)[0]), name, 3)
		awaitPublishing(t, encoders)
		viewers := startViewers(t, h.live(h.others(leader)[1]), name, 3)
		requireWhole(t, viewers, 5)

		silence.begin(leader)
		began := time.Now()
		var placed []string
		for i, peer := range h.others(leader) {
			stream, err := h.place(t, peer)
			if err != nil {
				t.Errorf("%s: new stream through %s = %v; want it placed", name, h.peers[peer].Node, err)
			}
			placed = append(placed, stream)
			if i == 0 {
				t.Logf("new stream placed %v after the leader was %s", time.Since(began).Round(time.Millisecond), name)
			}
		}
		if took := time.Since(began); took > 4*time.Second {
			t.Errorf("%s: new streams took %v; want a moment", name, took)
		}
		requireWhole(t, viewers, 50)
		silence.end(leader)
		h.awaitMembers(t, 3)
		peertest.Eventually(t, 30*time.Second, "the silent leader knows what was placed", func() bool {
			_, known := h.peers[leader].Placements(t)["live/"+placed[0]]
			return known
		})
		requireWhole(t, viewers, 10)
		requireUncut(t, encoders)
		t.Logf("the longest time between two frames was %v", longestGap(viewers))
	}
}
