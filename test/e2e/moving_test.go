//go:build linux

package e2e

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"srsx/test/peertest"
)

func TestPeersComeBackAtNewAddresses(t *testing.T) {
	t.Parallel()
	h := startHosted(t, 3)
	h.register(t, "o1", 0)
	if _, errs, code := h.peers[1].CLI(t, "origin", "weight", "o1", "7"); code != 0 {
		t.Fatalf("origin weight = %d %s", code, errs)
	}
	id := clusterOf(t, h.peers[2])
	requireSame := func(when string) {
		t.Helper()
		h.awaitMembers(t, 3)
		for i, p := range h.peers {
			peertest.Eventually(t, 30*time.Second, p.Node+" knows all "+when, func() bool {
				o := p.Origins(t)["o1"]
				return o.Weight == 7 && o.State == "up"
			})
			if got := clusterOf(t, p); got != id {
				t.Errorf("%s is in cluster %s %s; want %s still", p.Node, got, when, id)
			}
			if name, err := h.place(t, i); err != nil {
				t.Errorf("%s through %s %s: %v", name, p.Node, when, err)
			}
		}
	}

	h.stop(t)
	for _, host := range h.hosts {
		host.Move(t)
	}
	h.nameSeeds(t)
	h.allAgain(t)
	requireSame("when all have moved")

	// The seeds keep the addresses of before: those who stay are known otherwise.
	for i := range h.peers {
		stay := h.others(i)
		encoders := startEncoders(t, h.live(stay[0]), h.peers[i].Node, 2)
		awaitPublishing(t, encoders)
		viewers := slices.Concat(startViewers(t, h.live(stay[0]), h.peers[i].Node, 2), startViewers(t, h.live(stay[1]), h.peers[i].Node, 2))
		requireWhole(t, viewers, 10)
		h.peers[i].Signal(t, syscall.SIGTERM)
		if code := h.peers[i].Code(t, 40*time.Second); code != 0 {
			t.Errorf("%s ended with %d; want 0", h.peers[i].Node, code)
		}
		h.hosts[i].Move(t)
		h.again(t, i)
		requireSame("when " + h.peers[i].Node + " has moved")
		requireWhole(t, viewers, 10)
		requireUncut(t, encoders)
	}
}
