package gossip_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"srsx/cluster/gossip"
)

func TestPeersMeetAndTellWhatTheyAre(t *testing.T) {
	a := start(t, "a")
	b := start(t, "b", func(c *gossip.Config) { c.Meta.NonVoter = true })
	c := start(t, "c", func(c *gossip.Config) { c.Meta.Expect = 3 })
	b.joins(t, a)
	c.joins(t, b)
	for _, p := range []*peer{a, b, c} {
		for _, other := range []*peer{a, b, c} {
			name := other.cfg.Meta.Name
			eventually(t, p.cfg.Meta.Name+" sees "+name, func() bool { return p.sees(name, gossip.Alive) })
			m, _ := p.member(name)
			if m.Meta != other.cfg.Meta {
				t.Errorf("%s knows %+v; want %+v", p.cfg.Meta.Name, m.Meta, other.cfg.Meta)
			}
			if m.Gossip != other.Addr() {
				t.Errorf("%s reaches %s at %s; want %s", p.cfg.Meta.Name, name, m.Gossip, other.Addr())
			}
		}
		if why := p.Why(); why != "" {
			t.Errorf("Why of %s = %q; want nothing", p.cfg.Meta.Name, why)
		}
	}
	eventually(t, "a hands out that c joined", func() bool {
		return a.saw(func(e gossip.Event) bool { return e.Kind == gossip.Joined && e.Member.Name == "c" && e.Was.ID == "" })
	})
}

func TestPeersMeetOverIPv6(t *testing.T) {
	six := func(c *gossip.Config) { c.Listen = "[::1]:0" }
	a, b := start(t, "a", six), start(t, "b", six)
	b.joins(t, a)
	eventually(t, "they see each other", func() bool { return a.sees("b", gossip.Alive) && b.sees("a", gossip.Alive) })
}

func TestNewDescriptionReachesTheOthers(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	b.joins(t, a)
	if err := a.UpdateMeta(func(m *gossip.Meta) { m.Cluster = clusterA }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b hears of the cluster of a", func() bool {
		return b.saw(func(e gossip.Event) bool {
			return e.Kind == gossip.Updated && e.Was.Cluster == "" && e.Member.Cluster == clusterA
		})
	})
	if err := a.UpdateMeta(func(m *gossip.Meta) { m.Name = "" }); err == nil {
		t.Error("UpdateMeta to no name = nil; want an error")
	}
	if m, _ := a.member("a"); m.Cluster != clusterA {
		t.Errorf("own description = %+v; want the one before the refused change", m.Meta)
	}
}

func TestStoppedPeerStaysAMember(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	b.joins(t, a)
	b.stop()
	eventually(t, "a sees b fail", func() bool { return a.sees("b", gossip.Failed) })
	eventually(t, "a hands out that b failed", func() bool {
		return a.saw(func(e gossip.Event) bool { return e.Kind == gossip.HasFailed && e.Member.Name == "b" })
	})
	// Longer than memberlist itself remembers it.
	never(t, 2*time.Second, "a forgets b or takes it for left", func() bool { return !a.sees("b", gossip.Failed) })
}

func TestPeerThatLeavesHasLeft(t *testing.T) {
	a, b, c := start(t, "a"), start(t, "b"), start(t, "c")
	b.joins(t, a)
	c.joins(t, a)
	eventually(t, "c sees b", func() bool { return c.sees("b", gossip.Alive) })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := b.Leave(ctx); err != nil {
		t.Fatalf("Leave = %v", err)
	}
	for _, p := range []*peer{a, c} {
		if !p.sees("b", gossip.Left) {
			t.Errorf("%s does not see that b left when Leave returns", p.cfg.Meta.Name)
		}
	}
	b.stop()
	never(t, 2*time.Second, "a or c takes b for failed", func() bool {
		return a.sees("b", gossip.Failed) || c.sees("b", gossip.Failed)
	})
	late := start(t, "late")
	late.joins(t, a)
	b2 := b.again(t, freshPort)
	b2.joins(t, late)
	eventually(t, "all see b alive after its next start", func() bool {
		return a.sees("b", gossip.Alive) && c.sees("b", gossip.Alive) && late.sees("b", gossip.Alive)
	})
}

func TestJoinSaysInOneLineWhatFailed(t *testing.T) {
	a := start(t, "a")
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := free.Addr().String()
	_ = free.Close()
	err = joinWithin(t, a, 200*time.Millisecond, closed, "nobody:0")
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), "nobody:0") {
		t.Errorf("Join = %v; want one line about both addresses", err)
	}
}

func TestOwnAddressIsNobodyToJoin(t *testing.T) {
	a := start(t, "a")
	alias := start(t, "b", func(c *gossip.Config) { c.Listen = ":0"; c.Advertise = "127.0.0.1" })
	for _, p := range []*peer{a, alias} {
		own := p.Addr().String()
		if p == alias {
			own = fmt.Sprintf("127.0.0.9:%d", p.Addr().Port()) // the same listener by another address
		}
		if err := joinWithin(t, p, 300*time.Millisecond, own); err == nil || !strings.Contains(err.Error(), "itself") {
			t.Errorf("Join of itself at %s = %v; want an error that says so", own, err)
		}
	}
}

func TestJoinWaitsForTheSeed(t *testing.T) {
	a := start(t, "a")
	addr := a.Addr()
	a.stop()
	b := start(t, "b")
	if err := joinWithin(t, b, 100*time.Millisecond, addr.String()); err == nil {
		t.Fatal("Join of a stopped seed = nil")
	}
	joined := make(chan error, 1)
	go func() { joined <- joinWithin(t, b, patience, addr.String()) }()
	a.again(t, listenOn(addr))
	if err := <-joined; err != nil {
		t.Errorf("Join of a seed that comes late = %v", err)
	}
}

func TestSeedsAreLookedUpAnewAndMeanAllTheirAddresses(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	var answer atomic.Pointer[[]netip.Addr]
	var asked atomic.Int32
	answer.Store(&[]netip.Addr{})
	// One port for all: the addresses differ.
	port := a.Addr().Port()
	b2 := b.again(t, func(c *gossip.Config) { c.Listen = fmt.Sprintf("127.0.0.2:%d", port) })
	c := start(t, "c", func(c *gossip.Config) {
		c.Seeds = []string{fmt.Sprintf("peers.test:%d", port)}
		c.Lookup(func(_ context.Context, host string) ([]netip.Addr, error) {
			asked.Add(1)
			if found := *answer.Load(); len(found) > 0 {
				return found, nil
			}
			return nil, errors.New("no such host " + host)
		})
	})
	eventually(t, "Why names the name that is not found", func() bool { return strings.Contains(c.Why(), "no such host peers.test") })
	before := asked.Load()
	answer.Store(&[]netip.Addr{a.Addr().Addr(), b2.Addr().Addr()})
	eventually(t, "c meets both", func() bool { return c.sees("a", gossip.Alive) && c.sees("b", gossip.Alive) })
	if asked.Load() == before {
		t.Error("the name was not looked up again")
	}
	eventually(t, "Why has nothing left to say", func() bool { return c.Why() == "" })
}

func TestTriedOnceNobodyIsLeftToMeet(t *testing.T) {
	keyed := func(c *gossip.Config) { c.Keyring = newKeyring(t, 1) }
	a := start(t, "a", keyed, inCluster(clusterA))
	for name, c := range map[string]struct {
		as     string
		change func(*gossip.Config)
		closed bool
	}{
		"no seeds":        {"b", func(c *gossip.Config) { c.Seeds = nil }, true},
		"nobody there":    {"b", func(c *gossip.Config) { c.Seeds = []string{"127.0.0.1:1"} }, true},
		"met a cluster":   {"b", keyed, true},
		"another key":     {"b", func(c *gossip.Config) { c.Keyring = newKeyring(t, 2) }, false},
		"another cluster": {"b", func(c *gossip.Config) { keyed(c); c.Label = "other" }, false},
		"name is taken":   {"a", keyed, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, c.as, func(g *gossip.Config) { g.Seeds = []string{a.Addr().String()} }, c.change)
			if !c.closed {
				eventually(t, "it says why", func() bool { return p.Why() != "" })
				never(t, time.Second, "Tried is closed", func() bool { return isClosed(p.Tried()) })
				return
			}
			eventually(t, "Tried is closed", func() bool { return isClosed(p.Tried()) })
			if m, _ := p.member("a"); name == "met a cluster" && m.Cluster != clusterA {
				t.Errorf("when Tried is closed a is %+v; want its cluster known", m)
			}
		})
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestMessagesReachWhomTheyName(t *testing.T) {
	type message struct{ from, text string }
	received := make(chan message, 1)
	a := start(t, "a", func(c *gossip.Config) {
		c.OnMessage = func(from string, payload []byte) { received <- message{from, string(payload)} }
	})
	b := start(t, "b")
	if err := b.Send(t.Context(), a.cfg.Meta.ID, []byte("x")); !errors.Is(err, gossip.ErrNotAlive) {
		t.Errorf("Send to a peer not met = %v; want ErrNotAlive", err)
	}
	b.joins(t, a)
	if err := b.Send(t.Context(), a.cfg.Meta.ID, []byte("hello")); err != nil {
		t.Fatalf("Send = %v", err)
	}
	select {
	case m := <-received:
		if m.from != b.cfg.Meta.ID || m.text != "hello" {
			t.Errorf("received %+v; want hello from b", m)
		}
	case <-time.After(patience):
		t.Error("nothing received")
	}
}

func TestManyPeersConverge(t *testing.T) { converge(t, many) }

// BenchmarkThirtyPeersConverge takes the time from the start of thirty peers
// until each of them knows all, with the timers of production.
func BenchmarkThirtyPeersConverge(b *testing.B) {
	for b.Loop() {
		converge(b, 30)
	}
}

func converge(tb testing.TB, peers int) {
	tb.Helper()
	all := make([]*peer, peers)
	for i := range all {
		all[i] = start(tb, fmt.Sprintf("p%02d", i), func(c *gossip.Config) {
			c.Tune(nil) // as in production
			if i > 0 {
				c.Seeds = []string{all[0].Addr().String()}
			}
		})
	}
	eventually(tb, "every peer sees all alive", func() bool {
		return !slices.ContainsFunc(all, func(p *peer) bool {
			alive := 0
			for _, m := range p.Members() {
				if m.State == gossip.Alive {
					alive++
				}
			}
			return alive != peers
		})
	})
	for _, p := range all {
		p.stop()
	}
}

func TestDamagedPeersFileIsOnlyForgotten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "peers")
	if err := os.WriteFile(file, []byte(`[{"id": "tru`), 0o600); err != nil {
		t.Fatal(err)
	}
	a := start(t, "a", func(c *gossip.Config) { c.PeersFile = file })
	if got := len(a.Members()); got != 1 {
		t.Errorf("%d members; want itself alone", got)
	}
	if !strings.Contains(a.log.String(), file) {
		t.Errorf("log = %q; want the name of the file", a.log)
	}
}

func TestTakenPortIsAnError(t *testing.T) {
	a := start(t, "a")
	cfg := a.cfg
	cfg.Listen = a.Addr().String()
	if _, err := gossip.Open(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), a.Addr().String()) {
		t.Errorf("Open on a taken port = %v; want an error that names it", err)
	}
}

func TestSeedsAreChecked(t *testing.T) {
	for _, good := range []string{"a", "a.b.c", "a:1", "10.0.0.1", "10.0.0.1:12027", "::1", "[::1]", "[::1]:12027"} {
		if err := gossip.CheckSeed(good); err != nil {
			t.Errorf("CheckSeed(%q) = %v; want nil", good, err)
		}
	}
	for _, bad := range []string{"", " ", "a:0", "a:65536", "a:b", ":12027", "[::1]:0"} {
		if err := gossip.CheckSeed(bad); err == nil {
			t.Errorf("CheckSeed(%q) = nil; want an error", bad)
		}
	}
}

// never watches for a while that something does not happen.
func never(t *testing.T, d time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if condition() {
			t.Fatal(what)
		}
	}
}
