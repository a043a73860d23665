//go:build linux

package e2e

import (
	"strings"
	"testing"
	"time"

	"srsx/test/peertest"
)

func TestFivePeersThatExpectThreeFoundOneCluster(t *testing.T) {
	t.Parallel()
	h := startHosted(t, 5)
	id := clusterOf(t, h.peers[0])
	requireOne := func(when string) {
		t.Helper()
		for _, p := range h.peers {
			if got := clusterOf(t, p); got != id {
				t.Errorf("%s is in cluster %s %s; want %s, as the others", p.Node, got, when, id)
			}
		}
	}
	requireOne("when all have met")
	for _, p := range h.peers {
		p.Kill()
	}
	h.allAgain(t)
	requireOne("when all were killed and came back")

	host := h.lan.Host(t)
	nobody := h.lan.Host(t).IP() + ":12027"
	lost := peertest.Start(t, peertest.Options{Node: "peer6", Host: host, NotReady: true, Flags: []string{"-join", nobody}})
	if code := lost.Code(t, time.Minute); code != 1 || !strings.Contains(lost.Output(), nobody) {
		t.Errorf("-join of nobody = %d %s; want 1, and whom it did not reach", code, lost.Output())
	}
	h.hosts = append(h.hosts, host)
	h.peers = append(h.peers, h.start(t, peertest.Options{Node: "peer6", Host: host, DataDir: lost.DataDir}))
	h.awaitMembers(t, 6)
	requireOne("when a peer came that had met nobody before")
}
