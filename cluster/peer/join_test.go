package peer

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"srsx/cluster/keyring"
	"srsx/test/proxytest"
)

func TestJoinThatFailsFoundsNothing(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close()
	p := start(t, "a", func(c *Config) {
		c.Expect, c.Join, c.JoinTimeout = 1, []string{nobody.Addr().String()}, 300*time.Millisecond
	})
	select {
	case err = <-p.ended:
		p.ended <- err // for the end of the test
	case <-time.After(proxytest.Patience):
		t.Fatal("it serves, and nobody has answered")
	}
	if err == nil || !strings.Contains(err.Error(), "-join") {
		t.Errorf("Serve = %v; want the join that failed", err)
	}
	if has, err := p.HasState(); has || err != nil || len(p.Servers()) > 0 {
		t.Errorf("state %t, %v, servers %v; want no cluster", has, err, p.Servers())
	}
}

func TestStrangersStayOut(t *testing.T) {
	key := keyring.Generate().Encode()
	member := start(t, "a", func(c *Config) { c.Expect, c.Key = 1, key })
	eventually(t, "a is a cluster", member.votes("a"))
	for name, change := range map[string]func(*Config){
		"another key":  func(c *Config) { c.Key = keyring.Generate().Encode() },
		"no key":       func(c *Config) { c.Key = "" },
		"another name": func(c *Config) { c.Key, c.ClusterName = key, "other" },
	} {
		stranger := start(t, "stranger", func(c *Config) {
			near(member)(c)
			change(c)
		})
		eventually(t, "it says why it waits: "+name, stranger.says("not in a cluster yet"))
		if stranger.seated() || !member.votes("a")() || !member.replicas()() {
			t.Errorf("%s: it knows %v, the member %v; want it out", name, stranger.Servers(), member.Servers())
		}
		stranger.kill(t)
	}
	friend := start(t, "b", func(c *Config) {
		near(member)(c)
		c.Key = key
	})
	eventually(t, "one with the key is let in", func() bool { return friend.clusterID() != "" })
}

// What a member has written once it reads back, on other ports, as when its host
// has moved; and nothing of it is left in the process when it is gone.
func TestRestartedPeerKnowsWhatItKnew(t *testing.T) {
	path := t.TempDir()
	alone := func(c *Config) { c.Expect, c.Dir = 1, dataDir(t, path) }
	first := start(t, "a", alone)
	eventually(t, "a is a cluster", first.votes("a"))
	place(t, first, "one")
	first.shutDown(t)
	baseline := proxytest.Measure(t)
	for range 2 {
		again := start(t, "a", alone)
		eventually(t, "it leads again", func() bool { return again.keeper.Load() != nil })
		if !again.knows("one") {
			t.Error("it does not know what it has written")
		}
		place(t, again, "two")
		again.shutDown(t)
	}
	baseline.Require(t)
}

// A release that reads less keeps the others at what it reads; when it is gone they
// go on to the next version, and it is not let in any more.
func TestVersionOfCommandsIsWhatAllRead(t *testing.T) {
	reads := func(version uint16, next func(*Config)) func(*Config) {
		return func(c *Config) {
			c.reads = version
			next(c)
		}
	}
	a := start(t, "a", reads(2, func(c *Config) { c.Expect = 1 }))
	eventually(t, "a is a cluster", a.votes("a"))
	b := start(t, "b", reads(2, near(a)))
	eventually(t, "b is a member", func() bool { return a.isServer(b.id) })
	if inUse := a.commandVersion(); inUse != 2 {
		t.Errorf("version %d in use; want 2, which both read", inUse)
	}
	old := start(t, "old", reads(1, near(a)))
	eventually(t, "the old one says that it needs a newer release", old.says("ERROR", "commands up to version 1", "the cluster uses 2"))
	eventually(t, "the leader says so, too", a.says("peer is left as it is", "old understands commands up to version 1"))
	if a.isServer(old.id) || old.seated() {
		t.Error("the old one was let in")
	}
	place(t, b, "s")
}

func TestAbsentMemberOfAnOlderReleaseCounts(t *testing.T) {
	a := start(t, "a", func(c *Config) { c.Expect, c.reads = 1, 1 })
	eventually(t, "a is a cluster", a.votes("a"))
	newer := func(c *Config) {
		near(a)(c)
		c.reads = 2
	}
	b := start(t, "b", newer)
	start(t, "c", newer)
	eventually(t, "all vote", b.votes("a", "b", "c"))
	ctx, cancel := context.WithTimeout(t.Context(), proxytest.Patience)
	defer cancel()
	if err := b.TransferLeadership(ctx, "b"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b leads", func() bool { return b.keeper.Load() != nil })
	a.kill(t)
	time.Sleep(2 * versionsFresh) // what was found before a died is old
	if inUse := b.commandVersion(); inUse != 1 {
		t.Errorf("version %d in use; want 1, which is all that the absent one reads", inUse)
	}
}
