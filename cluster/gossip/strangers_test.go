package gossip_test

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"srsx/cluster/gossip"
)

func TestTwoClustersThatMeetDoNotMerge(t *testing.T) {
	a1, a2 := start(t, "a1", inCluster(clusterA)), start(t, "a2", inCluster(clusterA))
	b1, b2 := start(t, "b1", inCluster(clusterB)), start(t, "b2", inCluster(clusterB))
	a2.joins(t, a1)
	b2.joins(t, b1)
	err := joinWithin(t, b1, time.Second, a1.Addr().String())
	if err == nil || !strings.Contains(err.Error(), "another cluster") {
		t.Errorf("Join of another cluster = %v; want an error that says so", err)
	}
	// A newcomer that meets both goes with the first, and brings no news of it to
	// the second.
	n := start(t, "n")
	n.joins(t, a1)
	if err := joinWithin(t, n, time.Second, b2.Addr().String()); err == nil {
		t.Error("Join of a second cluster = nil; want an error")
	}
	if why := n.Why(); !strings.Contains(why, clusterB) {
		t.Errorf("Why of the newcomer = %q; want it to name the other cluster", why)
	}
	never(t, time.Second, "a peer of one cluster lists one of the other", func() bool {
		for _, p := range []*peer{a1, a2, n} {
			for _, stranger := range []string{"b1", "b2"} {
				if _, known := p.member(stranger); known {
					return true
				}
			}
		}
		for _, p := range []*peer{b1, b2} {
			for _, stranger := range []string{"a1", "a2"} {
				if _, known := p.member(stranger); known {
					return true
				}
			}
		}
		return false
	})
}

func TestNewcomerThatJoinsAnotherClusterIsDisowned(t *testing.T) {
	a, n := start(t, "a", inCluster(clusterA)), start(t, "n")
	n.joins(t, a)
	eventually(t, "a sees the newcomer", func() bool { return a.sees("n", gossip.Alive) })
	if err := n.UpdateMeta(func(m *gossip.Meta) { m.Cluster = clusterB }); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a no longer lists it", func() bool { _, known := a.member("n"); return !known })
	eventually(t, "a hands out that it is lost", func() bool {
		return a.saw(func(e gossip.Event) bool { return e.Kind == gossip.HasFailed && e.Member.Name == "n" })
	})
}

func TestOtherNameOrKeyIsNotHeard(t *testing.T) {
	key := func(c *gossip.Config) { c.Keyring = newKeyring(t, 1) }
	secret, plain := start(t, "secret", key), start(t, "plain")
	for name, change := range map[string]func(*gossip.Config){
		"other name": func(c *gossip.Config) { c.Label = "other" },
		"other key":  func(c *gossip.Config) { c.Keyring = newKeyring(t, 2) },
		"no key":     func(*gossip.Config) {},
	} {
		stranger := start(t, strings.ReplaceAll(name, " ", "-"), change)
		for _, p := range []*peer{secret, plain} {
			if name == "no key" && p == plain {
				continue
			}
			if err := joinWithin(t, stranger, 300*time.Millisecond, p.Addr().String()); err == nil {
				t.Errorf("%s: Join of %s = nil; want an error", name, p.cfg.Meta.Name)
			}
			if got := len(p.Members()); got != 1 {
				t.Errorf("%s: %s has %d members; want itself alone", name, p.cfg.Meta.Name, got)
			}
		}
	}
	friend := start(t, "friend", key)
	friend.joins(t, secret)
	eventually(t, "peers with one key meet", func() bool { return secret.sees("friend", gossip.Alive) })
}

func TestKeyIsRotatedWhileTheyTalk(t *testing.T) {
	a := start(t, "a", func(c *gossip.Config) { c.Keyring = newKeyring(t, 1) })
	b := start(t, "b", func(c *gossip.Config) { c.Keyring = newKeyring(t, 1) })
	b.joins(t, a)
	next := newKeyring(t, 2).GetPrimaryKey()
	for _, step := range []func(*memberlist.Keyring) error{
		func(r *memberlist.Keyring) error { return r.AddKey(next) },
		func(r *memberlist.Keyring) error { return r.UseKey(next) },
		func(r *memberlist.Keyring) error { return r.RemoveKey(newKeyring(t, 1).GetPrimaryKey()) },
	} {
		for _, p := range []*peer{a, b} {
			if err := step(p.cfg.Keyring); err != nil {
				t.Fatal(err)
			}
		}
	}
	c := start(t, "c", func(c *gossip.Config) { c.Keyring = newKeyring(t, 2) })
	c.joins(t, a)
	eventually(t, "b meets who has only the new key", func() bool { return b.sees("c", gossip.Alive) })
}

func TestNameBelongsToWhoHadItFirst(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	b.joins(t, a)
	eventually(t, "a sees b", func() bool { return a.sees("b", gossip.Alive) })
	imposter := start(t, "b")
	if err := joinWithin(t, imposter, 300*time.Millisecond, a.Addr().String()); err == nil || !strings.Contains(err.Error(), "name is taken") {
		t.Errorf("Join under a taken name = %v; want an error that says so", err)
	}
	if why := imposter.Why(); !strings.Contains(why, "-node") || !strings.Contains(why, b.cfg.Meta.ID) {
		t.Errorf("Why = %q; want it to name the holder and the setting", why)
	}
	eventually(t, "a logs it", func() bool { return strings.Contains(a.log.String(), imposter.cfg.Meta.ID) })
	if m, _ := a.member("b"); m.ID != b.cfg.Meta.ID {
		t.Errorf("b is %s; want still %s", m.ID, b.cfg.Meta.ID)
	}

	// The name of a failed peer is kept for it until somebody says it is gone.
	b.stop()
	eventually(t, "a sees b fail", func() bool { return a.sees("b", gossip.Failed) })
	eventually(t, "Why tells the command that frees the name", func() bool {
		_ = joinWithin(t, imposter, 300*time.Millisecond, a.Addr().String())
		return strings.Contains(a.Why(), "force-leave b")
	})
	if m, _ := a.member("b"); m.ID != b.cfg.Meta.ID {
		t.Errorf("b is %s; want still %s", m.ID, b.cfg.Meta.ID)
	}
	if err := a.ForceLeave(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	imposter.joins(t, a)
	eventually(t, "the name has its new holder", func() bool {
		for _, m := range a.Members() {
			if m.ID == imposter.cfg.Meta.ID && m.State == gossip.Alive {
				return true
			}
		}
		return false
	})
}

func TestCopiedIdentityIsReported(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	b.joins(t, a)
	copied := start(t, "b", func(c *gossip.Config) { c.Meta.ID, c.Meta.Epoch = b.cfg.Meta.ID, b.cfg.Meta.Epoch+1 })
	_ = joinWithin(t, copied, time.Second, b.Addr().String())
	eventually(t, "the first says that another runs with its identity", func() bool {
		return strings.Contains(b.Why(), "data directory")
	})
}

// TestGarbageHurtsNobody sends what is not gossip, and what only begins like it,
// by packet and by stream, for as long as a peer would need to be missed.
func TestGarbageHurtsNobody(t *testing.T) {
	for name, change := range map[string]func(*gossip.Config){
		"plain":     func(*gossip.Config) {},
		"encrypted": func(c *gossip.Config) { c.Keyring = newKeyring(t, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := start(t, "a", change), start(t, "b", change)
			b.joins(t, a)
			eventually(t, "a sees b", func() bool { return a.sees("b", gossip.Alive) })
			quiet := a.log.lines()
			for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
				sendGarbage(t, a.Addr().String())
			}
			if !a.sees("b", gossip.Alive) || !b.sees("a", gossip.Alive) {
				t.Error("a flooded peer is missed; want both alive")
			}
			if b.saw(func(e gossip.Event) bool { return e.Kind == gossip.HasFailed }) {
				t.Error("b took a for failed")
			}
			if got := a.log.lines() - quiet; got > 60 {
				t.Errorf("the flood wrote %d lines; want the log bounded", got)
			}
			// The streams still held open use up the share of their host, not of others.
			c := start(t, "c", change)
			if err := joinWithin(t, c, 3*time.Second, a.Addr().String()); err != nil {
				t.Errorf("Join of a flooded peer = %v", err)
			}
		})
	}
}

// sendGarbage sends one of each: random bytes, the label and then random bytes,
// headers that promise much, a packet that is too long, and streams held open.
func sendGarbage(t *testing.T, addr string) {
	t.Helper()
	noise := make([]byte, 1200)
	_, _ = rand.Read(noise)
	label := append([]byte{244, 4}, "srsx"...)
	labelled := append(append([]byte{}, label...), noise...)
	var promises [][]byte
	for _, kind := range []byte{6, 7, 8, 9, 10} { // push/pull, compound, user, compressed, encrypted
		promise := append(append([]byte{}, label...), kind)
		promises = append(promises, binary.BigEndian.AppendUint32(promise, 1<<31))
	}
	packets, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	for range 50 {
		for _, b := range append(promises, noise, labelled, make([]byte, 9000), label[:3]) {
			_, _ = packets.Write(b)
		}
	}
	for _, b := range append(promises, noise, labelled, label[:3], nil) {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 66)}}
		stream, err := from.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stream.Close() })
		_, _ = stream.Write(b)
	}
}

func TestForeignPacketsCostNoLine(t *testing.T) {
	a := start(t, "a")
	quiet := a.log.lines()
	packets, err := net.Dial("udp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	for _, b := range [][]byte{[]byte("GET / HTTP/1.1"), {244, 5, 'o', 't', 'h', 'e', 'r', 1}, make([]byte, 4000)} {
		_, _ = packets.Write(b)
	}
	b := start(t, "b")
	b.joins(t, a) // so that the packets before were read
	never(t, 300*time.Millisecond, "a foreign packet was logged", func() bool { return a.log.lines() > quiet })
}

func TestOneHostHoldsOnlyItsShareOfStreams(t *testing.T) {
	a := start(t, "a")
	const attempts = 200
	closed := make(chan bool, attempts)
	for range attempts {
		stream, err := net.Dial("tcp", a.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		go func() {
			_ = stream.SetReadDeadline(time.Now().Add(3 * time.Second)) // before memberlist gives up on it
			_, err := stream.Read(make([]byte, 1))
			var timeout net.Error
			closed <- !errors.As(err, &timeout) || !timeout.Timeout()
		}()
	}
	refused := 0
	for range attempts {
		if <-closed {
			refused++
		}
	}
	if refused < attempts/2 {
		t.Errorf("%d of %d idle streams were refused; want most", refused, attempts)
	}
}

func TestEndlessStreamIsCutOff(t *testing.T) {
	a := start(t, "a", func(c *gossip.Config) { c.Keyring = newKeyring(t, 1) })
	stream, err := net.Dial("tcp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	_ = stream.SetDeadline(time.Now().Add(patience))
	// An encrypted message of 16 MiB, which memberlist itself would gather.
	_, _ = stream.Write(append(append([]byte{244, 4}, "srsx"...), 10, 1, 0, 0, 0))
	chunk, sent := make([]byte, 64<<10), 0
	for err == nil && sent < 15<<20 {
		_, err = stream.Write(chunk)
		sent += len(chunk)
	}
	if err == nil {
		t.Errorf("%d bytes were taken; want the stream closed long before", sent)
	}
}

func newKeyring(t *testing.T, seed byte) *memberlist.Keyring {
	t.Helper()
	key := make([]byte, 32)
	key[0] = seed
	ring, err := memberlist.NewKeyring(nil, key)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}
