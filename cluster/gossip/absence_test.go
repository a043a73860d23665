package gossip_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"srsx/cluster/gossip"
)

func TestSplitHealsAfterBothSidesGaveUp(t *testing.T) {
	n := &network{}
	a, b, c := start(t, "a", n.between), start(t, "b", n.between), start(t, "c", n.between)
	b.joins(t, a)
	c.joins(t, a)
	eventually(t, "c sees b", func() bool { return c.sees("b", gossip.Alive) && b.sees("c", gossip.Alive) })
	n.cut(1, c)
	eventually(t, "each side sees the other fail", func() bool {
		return a.sees("c", gossip.Failed) && b.sees("c", gossip.Failed) && c.sees("a", gossip.Failed) && c.sees("b", gossip.Failed)
	})
	// Longer than memberlist remembers the dead: none of them sends to the others
	// any more but by joining anew.
	never(t, 2*time.Second, "a side reaches the other through the cut", func() bool { return a.sees("c", gossip.Alive) })
	n.heal()
	eventually(t, "both sides are one again", func() bool {
		return a.sees("c", gossip.Alive) && b.sees("c", gossip.Alive) && c.sees("a", gossip.Alive) && c.sees("b", gossip.Alive)
	})
}

func TestPeerAtANewAddressIsTheSamePeer(t *testing.T) {
	slow := func(c *gossip.Config) {
		c.Rejoin = time.Minute // what is quick must not be so by these
		c.Tune(func(mc *memberlist.Config) {
			hurried(mc)
			mc.GossipToTheDeadTime, mc.PushPullInterval = time.Minute, time.Minute
			mc.SuspicionMult = 60 // 12 s, as in production: longer than peers take to settle
		})
	}
	a, b, c := start(t, "a", slow), start(t, "b", slow), start(t, "c", slow)
	b.joins(t, a)
	c.joins(t, a)
	eventually(t, "all have met", func() bool { return c.sees("b", gossip.Alive) && b.sees("c", gossip.Alive) })
	old := b.Addr()
	b2 := b.again(t, freshPort, func(c *gossip.Config) { c.Meta.ClusterAddr = "elsewhere.test:12026" })
	b2.joins(t, a)
	for _, p := range []*peer{a, c} {
		eventually(t, p.cfg.Meta.Name+" hands out that b has moved", func() bool {
			return p.saw(func(e gossip.Event) bool {
				return e.Moved() && e.Was.Gossip == old && e.Member.Gossip == b2.Addr() && e.Member.ClusterAddr == "elsewhere.test:12026"
			})
		})
		eventually(t, p.cfg.Meta.Name+" sees b alive", func() bool { return p.sees("b", gossip.Alive) })
		if got := len(p.Members()); got != 3 {
			t.Errorf("%s has %d members; want 3", p.cfg.Meta.Name, got)
		}
	}
	eventually(t, "b has nothing to complain of", func() bool { return b2.Why() == "" })
}

func TestQuickRestartIsAnUpdate(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	b.joins(t, a)
	eventually(t, "a sees b", func() bool { return a.sees("b", gossip.Alive) })
	b2 := b.again(t, listenOn(b.Addr()), func(c *gossip.Config) { c.Meta.Version = "1.1" })
	b2.joins(t, a)
	eventually(t, "a knows the new run of b", func() bool {
		m, _ := a.member("b")
		return m.State == gossip.Alive && m.Meta == b2.cfg.Meta
	})
	eventually(t, "a hands out the new epoch", func() bool {
		return a.saw(func(e gossip.Event) bool { return e.Was.Epoch == 1 && e.Member.Epoch == 2 && !e.Moved() })
	})
}

func TestAllMovedButOneFindEachOther(t *testing.T) {
	remember := func(c *gossip.Config) { c.PeersFile = filepath.Join(t.TempDir(), "peers") }
	a, b, c := start(t, "a", remember), start(t, "b", remember), start(t, "c", remember)
	b.joins(t, a)
	c.joins(t, a)
	eventually(t, "all have met", func() bool { return c.sees("b", gossip.Alive) && b.sees("c", gossip.Alive) })
	at := a.Addr()
	for _, p := range []*peer{a, b, c} {
		p.stop()
	}
	// b and c were told of no seed: they know a by their files alone, and each
	// other by a.
	b2, c2 := b.again(t, freshPort), c.again(t, freshPort)
	if !b2.sees("a", gossip.Failed) || !b2.sees("c", gossip.Failed) {
		t.Errorf("b starts with %+v; want a and c as members that failed", b2.Members())
	}
	a2 := a.again(t, listenOn(at))
	eventually(t, "all see all", func() bool {
		for _, p := range []*peer{a2, b2, c2} {
			if !p.sees("a", gossip.Alive) || !p.sees("b", gossip.Alive) || !p.sees("c", gossip.Alive) {
				return false
			}
		}
		return true
	})
}

func TestForcedLeaveHoldsAgainstOldNews(t *testing.T) {
	n := &network{}
	a, b, c := start(t, "a", n.between), start(t, "b", n.between), start(t, "c", n.between)
	b.joins(t, a)
	c.joins(t, a)
	eventually(t, "all have met", func() bool { return c.sees("b", gossip.Alive) && b.sees("c", gossip.Alive) })
	if err := a.ForceLeave(t.Context(), "nobody"); !errors.Is(err, gossip.ErrUnknownMember) {
		t.Errorf("ForceLeave of nobody = %v; want ErrUnknownMember", err)
	}
	// c is cut off and does not hear that b failed and was declared gone.
	n.cut(1, c)
	b.stop()
	eventually(t, "a sees both fail", func() bool { return a.sees("b", gossip.Failed) && a.sees("c", gossip.Failed) })
	if err := a.ForceLeave(t.Context(), "b"); err != nil {
		t.Fatalf("ForceLeave = %v", err)
	}
	if !a.sees("b", gossip.Left) {
		t.Error("a does not see b left when ForceLeave returns")
	}
	eventually(t, "c sees b fail", func() bool { return c.sees("b", gossip.Failed) })
	n.heal()
	eventually(t, "c hears that b is gone", func() bool { return c.sees("b", gossip.Left) })
	never(t, 1500*time.Millisecond, "a is talked out of it", func() bool { return !a.sees("b", gossip.Left) })
	a2 := a.again(t, freshPort, n.between)
	a2.joins(t, c)
	eventually(t, "who comes later hears it too", func() bool { return a2.sees("c", gossip.Alive) })
	b2 := b.again(t, freshPort)
	b2.joins(t, c)
	eventually(t, "b is a member again after its next start", func() bool {
		return c.sees("b", gossip.Alive) && a2.sees("b", gossip.Alive)
	})
}

// An operator need not wait until gossip has noticed that a peer is dead.
func TestForcedLeaveOfAPeerThatHasJustDied(t *testing.T) {
	a, b, c := start(t, "a"), start(t, "b"), start(t, "c")
	b.joins(t, a)
	c.joins(t, a)
	eventually(t, "all have met", func() bool { return c.sees("b", gossip.Alive) && b.sees("c", gossip.Alive) })
	b.stop()
	if err := a.ForceLeave(t.Context(), "b"); err != nil {
		t.Fatalf("ForceLeave = %v", err)
	}
	if !a.sees("b", gossip.Left) {
		t.Error("a does not see b left when ForceLeave returns")
	}
	eventually(t, "c hears that b is gone", func() bool { return c.sees("b", gossip.Left) })
}

func TestForcedLeaveOfALivePeerHoldsUntilItsNextStart(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	b.joins(t, a)
	eventually(t, "a sees b", func() bool { return a.sees("b", gossip.Alive) })
	if err := a.ForceLeave(t.Context(), b.cfg.Meta.ID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b says why it is no member", func() bool { return strings.Contains(b.Why(), "start it again") })
	if err := b.UpdateMeta(func(m *gossip.Meta) { m.NonVoter = true }); err != nil {
		t.Fatal(err)
	}
	never(t, time.Second, "a takes b for a member while it runs on", func() bool { return !a.sees("b", gossip.Left) })
	b2 := b.again(t, freshPort)
	b2.joins(t, a)
	eventually(t, "a sees b again", func() bool { return a.sees("b", gossip.Alive) && b2.Why() == "" })
}
