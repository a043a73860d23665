//go:build linux

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"testing"
	"time"

	"srsx/test/mediatest"
	"srsx/test/peertest"
)

// splitLasts outlasts the leases of peers, the TTL of origins and every pause
// between two attempts, by far.
const splitLasts = 5 * time.Minute

// The peer that is cut off has led, and has an origin whose heartbeats only it
// gets.
func TestStreamsOutliveASplitOfFiveMinutes(t *testing.T) {
	t.Parallel()
	h := startHosted(t, 3, "-place-timeout", "2s", "-ready-grace", "2s")
	alone := h.leader(t, 0)
	a, b := h.others(alone)[0], h.others(alone)[1]
	h.register(t, "o1", a)
	h.register(t, "o2", alone)
	within := startEncoders(t, h.live(alone), "within", 4)
	without := startEncoders(t, h.live(a), "without", 4)
	encoders := slices.Concat(within, without)
	awaitPublishing(t, encoders)
	ending := publish(t, h.live(alone), "ending")
	publish(t, h.live(alone), "again").Close()
	viewers := slices.Concat(
		startViewers(t, h.live(alone), "within", 4), startViewers(t, h.live(b), "within", 2), // two have nobody outside
		startViewers(t, h.live(alone), "without", 2), startViewers(t, h.live(b), "without", 4),
	)
	requireWhole(t, viewers, 10)
	before := h.awaitAgreement(t, "live/ending", "live/again")

	h.hosts[alone].Cut(t, h.hosts[a], h.hosts[b])
	over := time.After(splitLasts)
	requireRefusals(t, h.peers[alone], h.crowd)
	if err := publishOnce(t, h.live(alone), "again"); err != nil {
		t.Errorf("publish of a known stream = %v; want it to go on", err)
	}
	viewers = slices.Concat(viewers, startViewers(t, h.live(alone), "within", 1), startViewers(t, h.live(alone), "without", 1))
	var placed []string
	for _, i := range []int{a, b} {
		name, err := h.place(t, i)
		if err != nil {
			t.Errorf("new stream through %s = %v; want the majority to place it", h.peers[i].Node, err)
		}
		placed = append(placed, "live/"+name)
		if h.stale(t, i) {
			t.Errorf("%s says that it is stale; want it to have a leader", h.peers[i].Node)
		}
	}
	if !h.stale(t, alone) {
		t.Error("the peer that is alone does not say that it is stale")
	}
	ending.Close()
	for split := true; split; {
		select {
		case <-over:
			split = false
		case <-time.After(5 * time.Second):
		}
		requireWhole(t, viewers, 50)
		if t.Failed() {
			t.FailNow()
		}
	}
	requireRefusals(t, h.peers[alone], h.crowd)

	h.hosts[alone].Heal(t)
	healed := time.Now()
	peertest.Eventually(t, 30*time.Second, "the peer that was alone places streams", func() bool {
		_, err := h.place(t, alone)
		return err == nil
	})
	t.Logf("it placed streams again after %v", time.Since(healed).Round(time.Millisecond))
	h.awaitMembers(t, 3)
	t.Logf("all members were together again after %v", time.Since(healed).Round(time.Millisecond))
	h.awaitAgreement(t)
	t.Logf("all agreed after %v", time.Since(healed).Round(time.Millisecond))
	requireWhole(t, viewers, 250) // longer than a stream is kept after its last holder
	requireUncut(t, encoders)
	t.Logf("the longest time between two frames was %v", longestGap(viewers))
	after := h.awaitAgreement(t)
	for _, e := range encoders {
		name := "live/" + e.name
		if got, want := after[name], before[name]; got != want {
			t.Errorf("%s = %+v; want it as before, %+v", name, got, want)
		}
	}
	for _, name := range append(placed, "live/again") {
		if p, ok := after[name]; ok {
			t.Errorf("%s = %+v; want it gone: nobody has it", name, p)
		}
	}
	// That nobody held it any more was known only to the peer that was given up:
	// it goes ten minutes after.
	if p := after["live/ending"]; p.Publishing {
		t.Errorf("live/ending = %+v; want no publisher", p)
	}
}

// publish publishes a stream until the test ends.
func publish(t *testing.T, to mediatest.Target, name string) *mediatest.Client {
	t.Helper()
	c, err := mediatest.Dial(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if err = c.Publish(name); err != nil {
		t.Fatalf("publish %s: %v", name, err)
	}
	return c
}

// awaitAgreement waits until all peers have the same placements, those named
// among them, and returns them.
func (h *hosted) awaitAgreement(t *testing.T, names ...string) map[string]peertest.PlacementState {
	t.Helper()
	var all map[string]peertest.PlacementState
	peertest.Eventually(t, 60*time.Second, "all peers agree", func() bool {
		for i, p := range h.peers {
			its := p.Placements(t)
			for name, placement := range its {
				placement.Sessions = 0 // each counts its own
				its[name] = placement
			}
			if i > 0 && !maps.Equal(all, its) {
				return false
			}
			all = its
		}
		return !slices.ContainsFunc(names, func(name string) bool { return all[name].Origin == "" })
	})
	return all
}

// stale reports whether a peer says that its answers may be out of date.
func (h *hosted) stale(t *testing.T, i int) bool {
	t.Helper()
	var reply struct {
		Data struct{ Freshness struct{ Stale bool } }
	}
	_, body := h.peers[i].Call(t, http.MethodGet, "/api/v1/placements", nil)
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		t.Fatal(fmt.Errorf("placements: %w in %s", err, body))
	}
	return reply.Data.Freshness.Stale
}
