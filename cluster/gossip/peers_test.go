package gossip_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/memberlist"
	"go.uber.org/goleak"

	"srsx/cluster/gossip"
)

// TestMain sees to it that closed peers leave nothing behind. memberlist ends
// its probes by their own timers, which takes seconds after Shutdown.
func TestMain(m *testing.M) {
	code := m.Run()
	deadline := time.Now().Add(20 * time.Second)
	err := goleak.Find()
	for err != nil && time.Now().Before(deadline) {
		err = goleak.Find()
	}
	if err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

const (
	clusterA = "aaaaaaaa-0000-4000-8000-000000000001"
	clusterB = "bbbbbbbb-0000-4000-8000-000000000002"
	patience = 60 * time.Second // of a condition that a loaded machine may delay
)

// peer is a Gossip under test, with what it logged and the events it handed out.
type peer struct {
	*gossip.Gossip
	cfg  gossip.Config
	log  *logBuffer
	stop func() // as a process that ends: without a word to the others

	mu     sync.Mutex
	events []gossip.Event
}

// start runs a peer on a free port of loopback until the test ends.
func start(tb testing.TB, name string, change ...func(*gossip.Config)) *peer {
	tb.Helper()
	cfg := gossip.Config{
		Meta: gossip.Meta{
			ID: uuid.NewString(), Name: name, Version: "1.0", Commands: 1, Epoch: 1,
			ClusterAddr: name + ".test:12026", SystemAddr: name + ".test:12025",
		},
		Label:  "srsx",
		Listen: "127.0.0.1:0",
		Rejoin: 200 * time.Millisecond,
	}
	cfg.Tune(hurried)
	for _, c := range change {
		c(&cfg)
	}
	return run(tb, cfg)
}

func run(tb testing.TB, cfg gossip.Config) *peer {
	tb.Helper()
	p := &peer{cfg: cfg, log: &logBuffer{}}
	p.cfg.Log = slog.New(slog.NewTextHandler(p.log, nil))
	g, err := gossip.Open(tb.Context(), p.cfg)
	if err != nil {
		tb.Fatalf("open %s: %v", cfg.Meta.Name, err)
	}
	p.Gossip = g
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	tasks.Go(func() { _ = g.Serve(ctx) })
	tasks.Go(func() { p.collect(ctx) })
	p.stop = sync.OnceFunc(func() {
		cancel()
		tasks.Wait()
		if err := g.Close(); err != nil {
			tb.Errorf("close %s: %v", cfg.Meta.Name, err)
		}
	})
	tb.Cleanup(p.stop)
	return p
}

// again starts the peer anew, as after a stop: same identity, next epoch, on a
// free port unless change says otherwise.
func (p *peer) again(t *testing.T, change ...func(*gossip.Config)) *peer {
	t.Helper()
	p.stop()
	cfg := p.cfg
	cfg.Meta.Epoch++
	for _, c := range change {
		c(&cfg)
	}
	return run(t, cfg)
}

func (p *peer) collect(ctx context.Context) {
	for {
		select {
		case e := <-p.Events():
			p.mu.Lock()
			p.events = append(p.events, e)
			p.mu.Unlock()
		case <-ctx.Done():
			return
		}
	}
}

func (p *peer) saw(match func(gossip.Event) bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.events, match)
}

func (p *peer) member(name string) (gossip.Member, bool) {
	all := p.Members()
	i := slices.IndexFunc(all, func(m gossip.Member) bool { return m.Name == name })
	if i < 0 {
		return gossip.Member{}, false
	}
	return all[i], true
}

// sees reports whether a member of this name is in this state.
func (p *peer) sees(name string, state gossip.State) bool {
	m, ok := p.member(name)
	return ok && m.State == state
}

func (p *peer) joins(t *testing.T, others ...*peer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for _, o := range others {
		if err := p.Join(ctx, o.Addr().String()); err != nil {
			t.Fatalf("%s joins %s: %v", p.cfg.Meta.Name, o.cfg.Meta.Name, err)
		}
	}
}

func joinWithin(t *testing.T, p *peer, d time.Duration, seeds ...string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return p.Join(ctx, seeds...)
}

// hurried makes memberlist notice within a second what takes ten by default.
func hurried(c *memberlist.Config) {
	c.ProbeInterval = 200 * time.Millisecond
	c.ProbeTimeout = 100 * time.Millisecond
	c.GossipInterval = 20 * time.Millisecond
	c.GossipToTheDeadTime = 500 * time.Millisecond
	c.PushPullInterval = 500 * time.Millisecond
}

func eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	within(tb, patience, what, condition)
}

func within(tb testing.TB, limit time.Duration, what string, condition func() bool) {
	tb.Helper()
	deadline := time.Now().Add(limit)
	for !condition() {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %s: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// logBuffer keeps what a peer logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) lines() int { return strings.Count(l.String(), "\n") }

// network stands between peers and cuts them apart, by group.
type network struct {
	mu    sync.Mutex
	group map[string]int // by address; guarded by mu
}

func (n *network) cut(group int, peers ...*peer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.group == nil {
		n.group = make(map[string]int)
	}
	for _, p := range peers {
		n.group[p.Addr().String()] = group
	}
}

func (n *network) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.group = nil
}

func (n *network) reaches(from, to string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.group[from] == n.group[to]
}

// between puts the network between a peer and all others.
func (n *network) between(c *gossip.Config) {
	c.Tune(func(mc *memberlist.Config) {
		hurried(mc)
		inner, ok := mc.Transport.(memberlist.NodeAwareTransport)
		if !ok {
			panic("gossip has another kind of transport")
		}
		ip, port, _ := inner.FinalAdvertiseAddr("", 0)
		own := net.JoinHostPort(ip.String(), strconv.Itoa(port))
		mc.Transport = &cutTransport{NodeAwareTransport: inner, network: n, own: own}
	})
}

type cutTransport struct {
	memberlist.NodeAwareTransport
	network *network
	own     string
}

func (c *cutTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	if !c.network.reaches(c.own, a.Addr) {
		return time.Now(), nil
	}
	return c.NodeAwareTransport.WriteToAddress(b, a)
}

func (c *cutTransport) DialAddressTimeout(a memberlist.Address, d time.Duration) (net.Conn, error) {
	if !c.network.reaches(c.own, a.Addr) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
	}
	return c.NodeAwareTransport.DialAddressTimeout(a, d)
}

func inCluster(id string) func(*gossip.Config) {
	return func(c *gossip.Config) { c.Meta.Cluster = id }
}

func listenOn(addr netip.AddrPort) func(*gossip.Config) {
	return func(c *gossip.Config) { c.Listen = addr.String() }
}

func freshPort(c *gossip.Config) { c.Listen = "127.0.0.1:0" }
