package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/peertest"
)

// fleet is peers of one cluster, each the real binary.
type fleet struct {
	peers []*peertest.Peer
	flags []string
	env   []string
	// config is YAML for each; empty: none.
	config string
}

// startFleet runs n equal peers that found their cluster together.
func startFleet(t *testing.T, n int, flags ...string) *fleet {
	t.Helper()
	return startFleetOf(t, n, fleet{flags: flags})
}

// startFleetOf runs n peers that are like a fleet without any.
func startFleetOf(t *testing.T, n int, like fleet) *fleet {
	t.Helper()
	ports := make([]*peertest.Ports, n)
	seeds := make([]string, n)
	for i := range ports {
		ports[i] = peertest.FreePorts(t)
		seeds[i] = ports[i].Gossip
	}
	f := &like
	f.flags = append([]string{
		"-bootstrap-expect", "3", "-retry-join", strings.Join(seeds, ","), "-raft-multiplier", "2",
	}, f.flags...)
	for i := range n {
		f.peers = append(f.peers, f.start(t, peertest.Options{Node: fmt.Sprintf("peer%d", i+1), Ports: ports[i], NotReady: true}))
	}
	for _, p := range f.peers {
		p.AwaitReady(t)
	}
	f.awaitMembers(t, n)
	peertest.Eventually(t, 30*time.Second, "the cluster has a name", func() bool { return clusterOf(t, f.peers[0]) != "-" })
	return f
}

func (f *fleet) start(t *testing.T, o peertest.Options) *peertest.Peer {
	t.Helper()
	o.Flags, o.Env, o.Config = f.flags, append(slices.Clone(f.env), o.Env...), f.config
	return peertest.Start(t, o)
}

// again starts a peer that has ended, on its ports and its data.
func (f *fleet) again(t *testing.T, i int) {
	t.Helper()
	f.againUnready(t, i)
	f.peers[i].AwaitReady(t)
}

func (f *fleet) againUnready(t *testing.T, i int) {
	t.Helper()
	old := f.peers[i]
	o := peertest.Options{Node: old.Node, Ports: old.Ports, DataDir: old.DataDir, Host: old.Host, NotReady: true}
	if o.Host != nil {
		o.Ports = nil // it may have moved
	}
	f.peers[i] = f.start(t, o)
}

// stop ends all peers as an operator does.
func (f *fleet) stop(t *testing.T) {
	t.Helper()
	for _, p := range f.peers {
		p.Signal(t, syscall.SIGTERM)
	}
	for _, p := range f.peers {
		requireEnd(t, p)
	}
}

// requireEnd checks that a peer that was told to stop does.
func requireEnd(t *testing.T, p *peertest.Peer) {
	t.Helper()
	if code := p.Code(t, 40*time.Second); code != 0 {
		t.Errorf("%s ended with %d; want 0", p.Node, code)
	}
}

// allAgain starts all peers at once after they have ended.
func (f *fleet) allAgain(t *testing.T) {
	t.Helper()
	for i := range f.peers {
		f.againUnready(t, i)
	}
	for _, p := range f.peers {
		p.AwaitReady(t)
	}
	f.awaitMembers(t, len(f.peers))
}

// memberState is a peer in the API of another.
type memberState struct {
	Name, State, Role string
	Leader            bool
}

func membersAt(t *testing.T, p *peertest.Peer) map[string]memberState {
	t.Helper()
	var reply struct {
		Data struct {
			Members []memberState `json:"members"`
		} `json:"data"`
	}
	_, body := p.Call(t, http.MethodGet, "/api/v1/members", nil)
	if err := json.Unmarshal([]byte(body), &reply); err != nil {
		t.Fatalf("members: %v in %s", err, body)
	}
	members := make(map[string]memberState)
	for _, m := range reply.Data.Members {
		members[m.Name] = m
	}
	return members
}

// awaitMembers waits until every peer sees n others and itself as members of
// one cluster with one leader.
func (f *fleet) awaitMembers(t *testing.T, n int) {
	t.Helper()
	for _, p := range f.peers {
		peertest.Eventually(t, 60*time.Second, p.Node+" sees the whole cluster", func() bool {
			members, leaders, seated := membersAt(t, p), 0, 0
			for _, m := range members {
				if m.Leader {
					leaders++
				}
				if m.State == "alive" && m.Role != "none" {
					seated++
				}
			}
			return seated == n && leaders == 1
		})
	}
}

// leader returns the index of the peer that leads, as peer by sees it.
func (f *fleet) leader(t *testing.T, by int) int {
	t.Helper()
	leads := -1
	peertest.Eventually(t, 60*time.Second, "a leader", func() bool {
		members := membersAt(t, f.peers[by])
		for i, p := range f.peers {
			if m := members[p.Node]; m.Leader && m.State == "alive" {
				leads = i
				return true
			}
		}
		return false
	})
	return leads
}

// register has an origin's heartbeats go to one of the peers.
func register(t *testing.T, f *fleet, ids ...string) []*origintest.Origin {
	t.Helper()
	var origins []*origintest.Origin
	for i, id := range ids {
		origins = append(origins, origintest.Start(t, origintest.Config{
			Server: id, Register: f.peers[i%len(f.peers)].Register(), Interval: time.Second,
		}))
	}
	for _, p := range f.peers {
		p.AwaitOrigins(t, len(ids))
	}
	return origins
}

func TestPublishedAtOnePeerPlaysAtAnother(t *testing.T) {
	f := startFleet(t, 3, "-encrypt", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
	register(t, f, "o1", "o2")
	encode(t, "rtmp://"+f.peers[0].RTMP+"/live/cam")
	for _, p := range f.peers[1:] {
		awaitOK(t, "http://"+p.HTTP+"/live/cam.flv")
		for _, play := range []string{"rtmp://" + p.RTMP + "/live/cam", "http://" + p.HTTP + "/live/cam.flv"} {
			frames, _ := decode(t, play, 2)
			requireContinuous(t, frames, 2)
		}
	}
	// The playlist comes from one peer, its segments from the next.
	playlist := "http://" + f.peers[1].HTTP + "/live/cam.m3u8"
	awaitOK(t, playlist)
	where, err := url.Parse(playlist)
	if err != nil {
		t.Fatal(err)
	}
	children, _ := lines(t, where)
	if len(children) != 1 {
		t.Fatalf("master has %d children; want 1", len(children))
	}
	segments, _ := lines(t, children[0])
	if len(segments) == 0 {
		t.Fatal("no segments")
	}
	for i, segment := range segments {
		segment.Host = f.peers[(i+2)%3].HTTP
		if body := get(t, segment.String()); len(body) == 0 || len(body)%188 != 0 {
			t.Errorf("segment from peer %d has %d bytes; want packets of MPEG-TS", (i+2)%3+1, len(body))
		}
	}
}

// What a publisher was told of its stream, a consistent read at another peer
// knows at once.
func TestConsistentReadKnowsWhatWasSaid(t *testing.T) {
	f := startFleet(t, 3)
	register(t, f, "o1", "o2")
	for i := range 60 {
		name := fmt.Sprintf("n%d", i)
		c, err := mediatest.Dial(t.Context(), live(f.peers[i%3].RTMP))
		if err != nil {
			t.Fatal(err)
		}
		if err = c.Publish(name); err != nil {
			t.Fatalf("publish %s: %v", name, err)
		}
		other := f.peers[(i+1)%3]
		status, body := other.Call(t, http.MethodGet, "/api/v1/placements/__defaultVhost__/live/"+name+"?consistent", nil)
		if status != http.StatusOK {
			t.Errorf("%s at %s = %d %s; want 200", name, other.Node, status, body)
		}
		c.Close()
	}
}

// viewer plays a pattern and counts what is missing.
type viewer struct {
	mu           sync.Mutex
	frames, lost uint32        // guarded by mu
	longest      time.Duration // guarded by mu; between two frames
	cuts         int           // guarded by mu; ends that were not ours
	err          error         // guarded by mu; why it ended last
}

// run plays once. What it misses before it begins is not lost.
func (v *viewer) run(ctx context.Context, of mediatest.Target, name string) {
	c, err := mediatest.Dial(ctx, of)
	if err == nil {
		defer c.Close()
		defer context.AfterFunc(ctx, c.Close)()
		err = c.Play(name)
	}
	var last uint32
	var at time.Time // of the last frame; zero: none yet
	for err == nil {
		var number uint32
		if _, number, err = c.NextFrame(); err != nil {
			break
		}
		v.mu.Lock()
		if !at.IsZero() {
			v.lost += number - last - 1
			v.longest = max(v.longest, time.Since(at))
		}
		v.frames++
		v.mu.Unlock()
		last, at = number, time.Now()
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if ctx.Err() == nil {
		v.cuts++
		v.err = err
	}
}

func (v *viewer) seen() (frames, lost uint32, longest time.Duration, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.frames, v.lost, v.longest, v.err
}

// startViewers plays n streams of encoders until the test ends.
func startViewers(t *testing.T, of mediatest.Target, prefix string, n int) []*viewer {
	t.Helper()
	return startViewing(t, prefix, n, func(ctx context.Context, v *viewer, name string) { v.run(ctx, of, name) })
}

// startReturningViewers plays n streams of encoders until the test ends, and
// comes back whenever it is cut off.
func startReturningViewers(t *testing.T, of mediatest.Target, prefix string, n int) []*viewer {
	t.Helper()
	return startViewing(t, prefix, n, func(ctx context.Context, v *viewer, name string) {
		for ctx.Err() == nil {
			v.run(ctx, of, name)
			select {
			case <-ctx.Done():
			case <-time.After(reconnectAfter):
			}
		}
	})
}

func startViewing(t *testing.T, prefix string, n int, run func(ctx context.Context, v *viewer, name string)) []*viewer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	viewers := make([]*viewer, n)
	for i := range viewers {
		viewers[i] = &viewer{}
		running.Go(func() { run(ctx, viewers[i], fmt.Sprintf("%s%03d", prefix, i)) })
	}
	return viewers
}

// requireWhole checks that viewers got more frames than before, each of them.
func requireWhole(t *testing.T, viewers []*viewer, more uint32) {
	t.Helper()
	starts := make([]uint32, len(viewers))
	for i, v := range viewers {
		starts[i], _, _, _ = v.seen()
	}
	for i, v := range viewers {
		peertest.Eventually(t, 30*time.Second, fmt.Sprintf("viewer %d goes on", i), func() bool {
			frames, _, _, err := v.seen()
			return err != nil || frames >= starts[i]+more
		})
		frames, lost, longest, err := v.seen()
		if err != nil || lost > 0 {
			t.Errorf("viewer %d: %d frames, %d lost, longest gap %v, ended: %v; want none lost", i, frames, lost, longest, err)
		}
	}
}

func TestLeaderIsKilledWhileStreamsFlow(t *testing.T) {
	f := startFleet(t, 3)
	register(t, f, "o1", "o2")
	doomed := f.leader(t, 0)
	a, b := f.peers[(doomed+1)%3], f.peers[(doomed+2)%3]
	encoders := startEncoders(t, live(a.RTMP), "s", 20)
	for _, e := range encoders {
		peertest.Eventually(t, 30*time.Second, e.name+" is published", e.publishing)
	}
	viewers := append(startViewers(t, live(b.RTMP), "s", 20), startViewers(t, live(a.RTMP), "s", 20)...)
	requireWhole(t, viewers, 20)

	f.peers[doomed].Kill()
	killed := time.Now()
	startEncoders(t, live(b.RTMP), "late", 5)
	peertest.Eventually(t, 30*time.Second, "new streams are placed", func() bool {
		n := 0
		for name, p := range b.Placements(t) {
			if strings.HasPrefix(name, "live/late") && p.Publishing {
				n++
			}
		}
		return n == 5
	})
	t.Logf("new streams placed %v after the leader was killed", time.Since(killed).Round(time.Millisecond))
	requireWhole(t, viewers, 40)
	for _, e := range encoders {
		if _, cuts := e.measured(); cuts > 0 {
			t.Errorf("%s was cut off; want it to go on", e.name)
		}
	}

	f.again(t, doomed)
	f.awaitMembers(t, 3)
	peertest.Eventually(t, 30*time.Second, "the peer that was killed knows all", func() bool {
		return len(f.peers[doomed].Placements(t)) == len(b.Placements(t))
	})
}

func TestWholeClusterStopsAndComesBack(t *testing.T) {
	f := startFleet(t, 3)
	register(t, f, "o1", "o2", "o3")
	encoders := startEncoders(t, live(f.peers[0].RTMP), "s", 10)
	for _, e := range encoders {
		peertest.Eventually(t, 30*time.Second, e.name+" is published", e.publishing)
	}
	if _, errs, code := f.peers[1].CLI(t, "origin", "weight", "o1", "7"); code != 0 {
		t.Fatalf("origin weight = %d %s", code, errs)
	}
	before := clusterOf(t, f.peers[2])
	f.stop(t)
	f.allAgain(t)
	if after := clusterOf(t, f.peers[0]); after != before {
		t.Errorf("cluster = %s; want the same, %s", after, before)
	}
	peertest.Eventually(t, 30*time.Second, "the weight is known again", func() bool {
		return f.peers[2].Origins(t)["o1"].Weight == 7
	})
	for _, e := range encoders {
		peertest.Eventually(t, 60*time.Second, e.name+" is published again", e.publishing)
	}
}

// clusterOf returns the UUID of a peer's cluster, by its snapshot.
func clusterOf(t *testing.T, p *peertest.Peer) string {
	t.Helper()
	file := t.TempDir() + "/snapshot"
	if _, errs, code := p.CLI(t, "snapshot", "save", file); code != 0 {
		t.Fatalf("snapshot save = %d %s", code, errs)
	}
	out, errs, code := p.CLI(t, "snapshot", "inspect", file)
	if code != 0 {
		t.Fatalf("snapshot inspect = %d %s", code, errs)
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(out, "cluster "), "\n")
	return strings.TrimSpace(id)
}

func TestMinorityServesWhatItKnowsAndRefusesTheRest(t *testing.T) {
	f := startFleet(t, 3, "-place-timeout", "1s", "-ready-grace", "1s")
	register(t, f, "o1")
	encoder := startEncoders(t, live(f.peers[0].RTMP), "s", 1)[0]
	peertest.Eventually(t, 30*time.Second, "published", encoder.publishing)
	peertest.Eventually(t, 30*time.Second, "known everywhere", func() bool { return len(f.peers[0].Placements(t)) == 1 })
	viewers := startViewers(t, live(f.peers[0].RTMP), "s", 1)
	requireWhole(t, viewers, 10)
	f.peers[1].Kill()
	f.peers[2].Kill()
	requireWhole(t, viewers, 40)
	if _, errs, code := f.peers[0].CLI(t, "placement", "get", "live/s000"); code != 0 {
		t.Errorf("placement get = %d %s; want what this peer knows", code, errs)
	}
	if _, errs, code := f.peers[0].CLI(t, "placement", "get", "-consistent", "live/s000"); code != 1 || !strings.Contains(errs, "undecided") {
		t.Errorf("placement get -consistent = %d %s; want a refusal for want of a majority", code, errs)
	}
	requireWhole(t, startViewers(t, live(f.peers[0].RTMP), "s", 1), 10) // who comes now
	requireRefusals(t, f.peers[0], &net.Dialer{})
	f.again(t, 1)
	peertest.Eventually(t, 30*time.Second, "a majority places again", func() bool {
		return publishOnce(t, live(f.peers[0].RTMP), "again") == nil
	})
	requireWhole(t, viewers, 10)
}

// requireRefusals checks what a peer without a majority tells those who bring a
// new stream, and those who watch over it.
func requireRefusals(t *testing.T, p *peertest.Peer, from mediatest.Dialer) {
	t.Helper()
	target := live(p.RTMP)
	target.From = from
	var status *mediatest.StatusError
	if err := publishOnce(t, target, "new"); !errors.As(err, &status) || status.Code != "NetStream.Publish.Rejected" {
		t.Errorf("publish of a new stream = %v; want NetStream.Publish.Rejected", err)
	}
	player, err := mediatest.Dial(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer player.Close()
	if err = player.Play("other"); !errors.As(err, &status) || status.Code != "NetStream.Play.Failed" {
		t.Errorf("play of a new stream = %v; want NetStream.Play.Failed", err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}}
	response, err := client.Get("http://" + p.HTTP + "/live/other.flv")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("play of a new stream = %s, Retry-After %q; want 503 with it", response.Status, response.Header.Get("Retry-After"))
	}
	peertest.Eventually(t, 20*time.Second, "/readyz says so", func() bool {
		status, _ := p.Call(t, http.MethodGet, "/readyz", nil)
		return status == http.StatusServiceUnavailable
	})
}

// publishOnce publishes a stream for a moment.
func publishOnce(t *testing.T, to mediatest.Target, name string) error {
	t.Helper()
	c, err := mediatest.Dial(t.Context(), to)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Publish(name)
}
