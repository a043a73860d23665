//go:build linux

package e2e

import (
	"testing"
	"time"

	"srsx/test/peertest"
)

// Whatever stands between one peer and the leader, the third hears it: it leads
// on, and the one places streams again as soon as it is reached.
func TestAFirewallDeposesNobody(t *testing.T) {
	t.Parallel()
	h := startHosted(t, 3, "-place-timeout", "1s")
	h.register(t, "o1", 0)
	leader := h.leader(t, 0)
	barred, witness := h.others(leader)[0], h.others(leader)[1]
	encoders := append(startEncoders(t, h.live(barred), "b", 2), startEncoders(t, h.live(leader), "l", 2)...)
	awaitPublishing(t, encoders)
	viewers := append(startViewers(t, h.live(barred), "l", 2), startViewers(t, h.live(witness), "b", 2)...)
	requireWhole(t, viewers, 5)
	steady := []int{leader, witness}
	before := make(map[int]int)
	for _, i := range steady {
		before[i] = len(leaderships(t, h.peers[i]))
	}

	l, b, w := h.hosts[leader], h.hosts[barred], h.hosts[witness]
	for _, barrier := range []struct {
		name  string
		raise func()
		lasts time.Duration
	}{
		// The first lasts longer than a peer rests between two elections that it
		// starts because the leader's process seems to be dead.
		{"reset", func() { b.Reset(t, l) }, 12 * time.Second},
		{"deaf to all", func() { b.Deafen(t, l, w) }, 4 * time.Second},
		{"heard by nobody", func() { l.Deafen(t, b); w.Deafen(t, b) }, 4 * time.Second},
		{"deaf to the leader", func() { b.Deafen(t, l) }, 4 * time.Second},
		{"not heard by the leader", func() { l.Deafen(t, b) }, 4 * time.Second},
	} {
		barrier.raise()
		h.placeFor(t, barrier.lasts, steady)
		if _, err := h.place(t, barred); err == nil {
			t.Errorf("%s: the peer places streams; want it cut off", barrier.name)
		}
		for _, host := range h.hosts {
			host.Heal(t)
		}
		healed := time.Now()
		peertest.Eventually(t, 30*time.Second, barrier.name+" is over", func() bool {
			_, err := h.place(t, barred)
			return err == nil
		})
		t.Logf("%s: the peer placed again after %v", barrier.name, time.Since(healed).Round(time.Millisecond))
		requireWhole(t, viewers, 10)
		for _, i := range steady {
			if said := leaderships(t, h.peers[i]); len(said) != before[i] {
				t.Errorf("%s: leaders at %s: %v; want none after the first %d", barrier.name, h.peers[i].Node, said, before[i])
				before[i] = len(said)
			}
		}
	}
	h.awaitMembers(t, 3)
	if now := h.leader(t, barred); now != leader {
		t.Errorf("leader = %s; want %s still", h.peers[now].Node, h.peers[leader].Node)
	}
	requireUncut(t, encoders)
}

// placeFor places new streams through peers for some time, one after the other.
func (h *hosted) placeFor(t *testing.T, lasts time.Duration, through []int) {
	t.Helper()
	pace := time.NewTicker(50 * time.Millisecond)
	defer pace.Stop()
	for until := time.Now().Add(lasts); time.Now().Before(until); <-pace.C {
		for _, i := range through {
			if name, err := h.place(t, i); err != nil {
				t.Errorf("%s through %s = %v; want it placed", name, h.peers[i].Node, err)
			}
		}
	}
}
