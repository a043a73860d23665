package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/peertest"
)

// fleet is three peers of the real binary, in front of one origin.
type fleet struct {
	peers []*peertest.Peer
	seeds string
	yaml  string
	next  int // number of the next stream
}

// startFleet founds a cluster of three.
func startFleet(b *testing.B) *fleet {
	b.Helper()
	origin := origintest.Start(b, origintest.Config{})
	f := &fleet{yaml: fmt.Sprintf("origins: [{id: origin, rtmp: [%q], http: [%q]}]\n", origin.RTMP(), origin.HTTP())}
	ports := make([]*peertest.Ports, 3)
	seeds := make([]string, len(ports))
	for i := range ports {
		ports[i] = peertest.FreePorts(b)
		seeds[i] = ports[i].Gossip
	}
	f.seeds = strings.Join(seeds, ",")
	for i, p := range ports {
		f.peers = append(f.peers, f.start(b, peertest.Options{Node: fmt.Sprintf("peer%d", i+1), Ports: p, NotReady: true}))
	}
	for _, p := range f.peers {
		p.AwaitReady(b)
	}
	f.settle(b)
	return f
}

func (f *fleet) start(b *testing.B, o peertest.Options) *peertest.Peer {
	b.Helper()
	o.Flags, o.Config = []string{"-bootstrap-expect", "3", "-retry-join", f.seeds}, f.yaml
	return peertest.Start(b, o)
}

// settle waits until each peer has new streams placed by a leader of three.
func (f *fleet) settle(b *testing.B) {
	b.Helper()
	for _, p := range f.peers {
		peertest.Eventually(b, time.Minute, p.Node+" is one of three", func() bool {
			var reply struct {
				Data struct {
					Members []struct {
						State, Role string
						Leader      bool
					} `json:"members"`
				} `json:"data"`
			}
			f.read(b, p, "/api/v1/members", &reply)
			voters, leaders := 0, 0
			for _, m := range reply.Data.Members {
				if m.State == "alive" && (m.Role == "voter" || m.Role == "leader") {
					voters++
				}
				if m.Leader {
					leaders++
				}
			}
			return voters == len(f.peers) && leaders == 1
		})
		peertest.Eventually(b, time.Minute, p.Node+" places", func() bool { return f.publish(p) == nil })
	}
}

func (f *fleet) read(b *testing.B, p *peertest.Peer, path string, into any) {
	b.Helper()
	status, body := p.Call(b, http.MethodGet, path, nil)
	if status != http.StatusOK {
		b.Fatalf("GET %s = %d %s", path, status, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		b.Fatalf("GET %s: %v in %s", path, err, body)
	}
}

// leader returns the peer that leads, as another says, and that other one.
func (f *fleet) leader(b *testing.B) (leader, follower *peertest.Peer) {
	b.Helper()
	peertest.Eventually(b, time.Minute, "a leader", func() bool {
		leader, follower = nil, nil
		var reply struct {
			Data struct {
				Leader string `json:"leader"`
			} `json:"data"`
		}
		f.read(b, f.peers[0], "/api/v1/status/leader", &reply)
		for _, p := range f.peers {
			if p.Node == reply.Data.Leader {
				leader = p
			} else {
				follower = p
			}
		}
		return leader != nil
	})
	return leader, follower
}

// publish publishes a new stream at a peer for a moment.
func (f *fleet) publish(p *peertest.Peer) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := mediatest.Dial(ctx, mediatest.Target{Addr: p.RTMP, App: "live"})
	if err != nil {
		return err
	}
	defer c.Close()
	f.next++
	return c.Publish(fmt.Sprintf("s%06d", f.next))
}

// outage does something to the leader and returns the longest that a new stream
// had to wait at a follower since, of those that came within a time. A stream that
// is refused waits on, as the next one.
func (f *fleet) outage(b *testing.B, harm func(leader *peertest.Peer), within time.Duration) time.Duration {
	b.Helper()
	leader, follower := f.leader(b)
	began := time.Now()
	harm(leader)
	longest, asked := time.Duration(0), began
	for asked.Sub(began) < within {
		if err := f.publish(follower); err != nil {
			b.Logf("publish %v after the harm: %v", time.Since(began), err)
			if time.Since(began) > time.Minute {
				b.Fatal("nothing is placed any more")
			}
			continue
		}
		longest = max(longest, time.Since(asked))
		asked = time.Now()
	}
	return longest
}

// again starts a peer that has ended, on its ports and its data.
func (f *fleet) again(b *testing.B, ended *peertest.Peer) {
	b.Helper()
	for i, p := range f.peers {
		if p == ended {
			f.peers[i] = f.start(b, peertest.Options{Node: p.Node, Ports: p.Ports, DataDir: p.DataDir})
		}
	}
	f.settle(b)
}

// processorOf returns the processor time that a process has used.
func processorOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	// The name of the program may have spaces; utime and stime are fields 14 and
	// 15, and state, after the name, is field 3.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	const ticks = 100 // a second: USER_HZ, on every Linux that Go runs on
	sum := 0
	for _, field := range fields[11:13] {
		n, err := strconv.Atoi(field)
		if err != nil {
			b.Fatal(err)
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / ticks
}
