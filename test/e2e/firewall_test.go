//go:build linux

package e2e

import (
	"testing"
	"time"

	"srsx/test/peertest"
)

// Whatever stands between one peer and the leader, the two others hear it: it
// leads on, and the one is back as soon as it is reached.
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
	before := [3]int{}
	for i, p := range h.peers {
		before[i] = len(leaderships(t, p))
	}

	a, b := h.hosts[barred], h.hosts[leader]
	for name, bar := range map[string]func(){
		"resets":                func() { a.Reset(t, b) },
		"follower hears nobody": func() { a.Deafen(t, b, h.hosts[witness]) },
		"follower is not heard": func() { b.Deafen(t, a); h.hosts[witness].Deafen(t, a) },
		"leader is not heard":   func() { a.Deafen(t, b) },
		"leader hears it not":   func() { b.Deafen(t, a) },
	} {
		bar()
		// Longer than a peer rests between two elections that it starts because the
		// leader's process seems to be dead.
		for until := time.Now().Add(12 * time.Second); time.Now().Before(until); {
			began := time.Now()
			if err := h.place(t, witness, "new"); err != nil {
				t.Errorf("%s: new stream through a peer that reaches the leader: %v", name, err)
			}
			if took := time.Since(began); took > 500*time.Millisecond {
				t.Errorf("%s: new stream took %v; want no election", name, took)
			}
			time.Sleep(100 * time.Millisecond) // a load, not a wait
		}
		for _, i := range []int{leader, witness} {
			if said := leaderships(t, h.peers[i]); len(said) != before[i] {
				t.Errorf("%s: %s saw leadership change: %v; want none after the first %d", name, h.peers[i].Node, said, before[i])
				before[i] = len(said)
			}
		}
		for _, host := range h.hosts {
			host.Heal(t)
		}
		healed := time.Now()
		peertest.Eventually(t, 30*time.Second, name+": the peer places again", func() bool {
			return h.place(t, barred, "back") == nil
		})
		t.Logf("%s: the peer placed again %v after it was healed", name, time.Since(healed).Round(time.Millisecond))
		h.awaitMembers(t, 3)
		requireWhole(t, viewers, 10)
	}
	if now := h.leader(t, barred); now != leader {
		t.Errorf("leader = %s; want %s still", h.peers[now].Node, h.peers[leader].Node)
	}
	for _, i := range []int{leader, witness} {
		if said := leaderships(t, h.peers[i]); len(said) != before[i] {
			t.Errorf("%s saw leadership change after it was healed: %v; want none after the first %d", h.peers[i].Node, said, before[i])
		}
	}
	requireUncut(t, encoders)
}
