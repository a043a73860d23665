package bench

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"srsx/test/peertest"
)

const (
	idleSettled = 5 * time.Second
	idleFor     = 20 * time.Second
	manyPeers   = 30
)

// idle measures what three peers do when nothing happens.
func idle(b *testing.B, r *report) {
	f := startFleet(b)
	time.Sleep(idleSettled) // until what the streams of the start held is released
	peertest.Eventually(b, time.Minute, "no streams", func() bool { return len(f.peers[0].Placements(b)) == 0 })
	applied := f.applied(b)
	used := make([]time.Duration, len(f.peers))
	for i, p := range f.peers {
		used[i] = processorOf(b, p.PID())
	}
	began := time.Now()
	time.Sleep(idleFor)
	most := time.Duration(0)
	for i, p := range f.peers {
		most = max(most, processorOf(b, p.PID())-used[i])
	}
	share := 100 * most.Seconds() / time.Since(began).Seconds()
	entries := f.applied(b) - applied
	r.add(figure{what: "idle, log entries", measured: strconv.FormatUint(entries, 10), wanted: "0", met: entries == 0})
	r.add(figure{
		what: "idle, of a core, the busiest of three", measured: fmt.Sprintf("%.1f %%", share), wanted: "<= 2.0 %", met: share <= 2,
	})
}

// applied returns how far the log has been applied.
func (f *fleet) applied(b *testing.B) uint64 {
	b.Helper()
	var reply struct {
		Data struct {
			Freshness struct {
				Applied uint64 `json:"applied"`
			} `json:"freshness"`
		} `json:"data"`
	}
	f.read(b, f.peers[0], "/api/v1/origins", &reply)
	return reply.Data.Freshness.Applied
}

// converge measures how long it takes until thirty peers, each a process, all
// started at once to join a cluster of three, know each other and are members.
func converge(b *testing.B, r *report) {
	t := start(b, roleBatched, 1)
	joining := make([]*process, manyPeers-len(t))
	for i := range joining {
		ports := peertest.FreePorts(b)
		joining[i] = launch(b, roleBatched, Options{
			Name: fmt.Sprintf("joins%02d", i), Dir: b.TempDir(), Cluster: ports.Cluster, Gossip: ports.Gossip,
			Seeds: t[0].options.Seeds, Alone: true,
		})
	}
	began := time.Now()
	var opening sync.WaitGroup
	for _, p := range joining {
		opening.Go(func() {
			if err := p.try("Open", p.options, &Server{}); err != nil {
				b.Errorf("open %s: %v", p.options.Name, err)
			}
		})
	}
	opening.Wait()
	opened := time.Since(began)
	var last int64
	for _, p := range append(t[:], joining...) {
		var at int64
		p.call(b, "Meet", manyPeers, &at)
		last = max(last, at)
	}
	f := within(fmt.Sprintf("%d peers (processes) know each other and are members", manyPeers), time.Unix(0, last).Sub(began), 5*time.Second)
	f.measured += fmt.Sprintf(" (the last was open after %s)", ms(opened))
	r.add(f)
}

// Meet waits until so many peers are members and known by gossip, and returns
// when that was.
func (d *Drive) Meet(n int, at *int64) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		servers, named := d.batched.peer.Servers(), 0
		for _, s := range servers {
			if d.batched.peer.NameOf(s.ID) != "" {
				named++
			}
		}
		if named == n {
			*at = time.Now().UnixNano()
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of %d members are known by gossip: %s", named, n, strings.TrimSpace(fmt.Sprint(servers)))
		}
	}
}
