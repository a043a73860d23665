//go:build linux

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"srsx/test/mediatest"
	"srsx/test/netns"
	"srsx/test/origintest"
	"srsx/test/peertest"
)

// hosted is a fleet whose every peer is a host of its own, with the default
// ports and timeouts. The seeds of all are one name.
type hosted struct {
	*fleet

	lan   *netns.Network
	hosts []*netns.Host // of the peers
	crowd *netns.Host   // where encoders and players are

	placed atomic.Int64
}

const seeds = "peers.test"

// startHosted runs n equal peers that found their cluster together.
func startHosted(t *testing.T, n int, flags ...string) *hosted {
	t.Helper()
	lan := netns.New(t)
	h := &hosted{lan: lan, crowd: lan.Host(t), fleet: &fleet{
		flags: append([]string{"-bootstrap-expect", "3", "-retry-join", seeds}, flags...),
		env:   []string{"PROXY_GRACE_QUIT_TIMEOUT=1s"}, // for sessions of peers that stop
	}}
	for range n {
		h.hosts = append(h.hosts, lan.Host(t))
	}
	h.nameSeeds(t)
	for i, host := range h.hosts {
		h.peers = append(h.peers, h.start(t, peertest.Options{Node: fmt.Sprintf("peer%d", i+1), Host: host, NotReady: true}))
	}
	for _, p := range h.peers {
		p.AwaitReady(t)
	}
	h.awaitMembers(t, n)
	return h
}

// nameSeeds lets the name of the seeds stand for where the peers are now.
func (h *hosted) nameSeeds(t *testing.T) {
	t.Helper()
	addresses := make([]string, len(h.hosts))
	for i, host := range h.hosts {
		addresses[i] = host.IP()
	}
	h.lan.Name(t, seeds, addresses...)
}

// register runs an origin on a host of its own, whose heartbeats go to peer i.
func (h *hosted) register(t *testing.T, id string, i int) *origintest.Origin {
	t.Helper()
	o := origintest.Start(t, origintest.Config{
		Server: id, Register: h.peers[i].Register(), Interval: time.Second, Host: h.lan.Host(t),
	})
	for _, p := range h.peers {
		peertest.Eventually(t, 30*time.Second, id+" is up", func() bool { return p.Origins(t)[id].State == "up" })
	}
	return o
}

// live is the app at a peer, as the crowd reaches it.
func (h *hosted) live(i int) mediatest.Target {
	to := live(h.peers[i].RTMP)
	to.From = h.crowd
	return to
}

// others returns the indices of all peers but one.
func (h *hosted) others(i int) []int {
	var others []int
	for j := range h.peers {
		if j != i {
			others = append(others, j)
		}
	}
	return others
}

// awaitPublishing waits until each encoder's origin has accepted its stream.
func awaitPublishing(t *testing.T, encoders []*encoder) {
	t.Helper()
	for _, e := range encoders {
		peertest.Eventually(t, 30*time.Second, e.name+" is published", e.publishing)
	}
}

// requireUncut checks that encoders went on.
func requireUncut(t *testing.T, encoders []*encoder) {
	t.Helper()
	for _, e := range encoders {
		if _, cuts := e.measured(); cuts > 0 {
			t.Errorf("%s was cut off %d times; want it to go on", e.name, cuts)
		}
	}
}

// longestGap returns the longest time that any viewer went without a frame.
func longestGap(viewers []*viewer) time.Duration {
	var longest time.Duration
	for _, v := range viewers {
		_, _, gap, _ := v.seen()
		longest = max(longest, gap)
	}
	return longest.Round(time.Millisecond)
}

// place publishes a stream that nobody has heard of, for a moment, through peer
// i, and returns its name.
func (h *hosted) place(t *testing.T, i int) (name string, err error) {
	t.Helper()
	name = fmt.Sprintf("new%d", h.placed.Add(1))
	return name, publishOnce(t, h.live(i), name)
}

// leadership is what a peer has last said of who leads.
type leadership struct {
	Leader      string
	Term        int
	Established bool
}

// leaderships returns what a peer has said of who leads since it started.
func leaderships(t *testing.T, p *peertest.Peer) []leadership {
	t.Helper()
	var said []leadership
	for line := bufio.NewScanner(strings.NewReader(p.Output())); line.Scan(); {
		if !strings.Contains(line.Text(), `"leadership changed"`) {
			continue
		}
		var l leadership
		if err := json.Unmarshal(line.Bytes(), &l); err != nil {
			t.Fatalf("log: %v in %s", err, line.Text())
		}
		said = append(said, l)
	}
	return said
}
