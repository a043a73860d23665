package port_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"srsx/cluster/keyring"
	"srsx/cluster/port"
)

func TestPeersMeetUnderEveryGuard(t *testing.T) {
	key := keyring.Generate()
	ca := newAuthority(t)
	for name, guard := range map[string]func(t *testing.T, node string) func(*port.Config){
		"none": func(*testing.T, string) func(*port.Config) { return func(*port.Config) {} },
		"key":  func(t *testing.T, _ string) func(*port.Config) { t.Helper(); return withKeys(ring(t, key)) },
		"certificates": func(t *testing.T, node string) func(*port.Config) {
			t.Helper()
			return withCerts(ca.load(t, port.CertificateName(node, "test")))
		},
		"both": func(t *testing.T, node string) func(*port.Config) {
			t.Helper()
			certs, keys := ca.load(t, port.CertificateName(node, "test")), ring(t, key)
			return func(c *port.Config) { c.Certs, c.Keys = certs, keys }
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := start(t, "a", guard(t, "a"))
			b := open(t, "b", guard(t, "b"))
			met := make(chan port.Peer, 1)
			b.Handle(port.KindRPC, func(_ context.Context, c *port.Conn) {
				defer func() { _ = c.Close() }()
				met <- c.Peer()
				_, _ = c.Write([]byte("hello"))
			})
			serve(t, b)
			c := dial(t, a, port.KindRPC, b.target())
			if got := c.Peer(); got.ID != b.id || got.Name != "b" || got.Addr != b.Addr().String() {
				t.Errorf("dialer met %+v; want b", got)
			}
			if got := <-met; got.ID != a.id || got.Name != "a" {
				t.Errorf("acceptor met %+v; want a", got)
			}
			got := make([]byte, 5)
			if _, err := c.Read(got); err != nil || string(got) != "hello" {
				t.Errorf("read %q, %v; want hello", got, err)
			}
		})
	}
}

func TestOtherClusterIsRefusedOnBothSides(t *testing.T) {
	one, two := uuid.NewString(), uuid.NewString()
	for name, c := range map[string]struct {
		a, b  func(*port.Config)
		words []string
	}{
		"other name": {withCluster("berlin", one), withCluster("paris", one), []string{`"berlin"`, `"paris"`}},
		"other UUID": {withCluster("test", one), withCluster("test", two), []string{one, two}},
	} {
		t.Run(name, func(t *testing.T) {
			r := ring(t, keyring.Generate())
			requireRefusal(t, start(t, "a", c.a), start(t, "b", c.b), port.KindRPC, port.ErrOtherCluster, c.words...)
			requireRefusal(t, start(t, "a", c.a, withKeys(r)), start(t, "b", c.b, withKeys(r)),
				port.KindRPC, port.ErrOtherCluster, c.words...)
		})
	}
}

func TestNewcomerIsAcceptedBothWays(t *testing.T) {
	member := start(t, "member", withCluster("test", uuid.NewString()))
	newcomer := start(t, "newcomer")
	requireEcho(t, dial(t, newcomer, port.KindRPC, member.target()), "x")
	requireEcho(t, dial(t, member, port.KindRPC, newcomer.target()), "x")
}

func TestNewcomersLetIntoTwoClustersPart(t *testing.T) {
	cluster := uuid.NewString()
	member := start(t, "member", withCluster("test", cluster))
	newcomer, other := start(t, "newcomer"), start(t, "other")
	toMember, toOther := dial(t, newcomer, port.KindRPC, member.target()), dial(t, newcomer, port.KindRPC, other.target())
	fromOther := dial(t, other, port.KindRPC, newcomer.target())
	requireEcho(t, fromOther, "x")

	if err := newcomer.SetClusterID(cluster); err != nil {
		t.Fatal(err)
	}
	requireEnd(t, toOther)
	requireEnd(t, fromOther)
	requireEcho(t, toMember, "x")
	late := dial(t, newcomer, port.KindRPC, other.target())
	if err := newcomer.SetClusterID(cluster); err != nil { // what it is already
		t.Fatal(err)
	}
	requireEcho(t, late, "x")
	if err := other.SetClusterID(uuid.NewString()); err != nil {
		t.Fatal(err)
	}
	requireEnd(t, late)
	requireRefusal(t, newcomer, other, port.KindRPC, port.ErrOtherCluster)
}

func TestKeyOfAnyAgeInTheRingIsAccepted(t *testing.T) {
	old, fresh := keyring.Generate(), keyring.Generate()
	ra, rb := ring(t, old, fresh), ring(t, old, fresh)
	a, b := start(t, "a", withKeys(ra)), start(t, "b", withKeys(rb))
	if err := ra.Use(fresh.Fingerprint()); err != nil { // in the middle of a rotation
		t.Fatal(err)
	}
	requireEcho(t, dial(t, a, port.KindRPC, b.target()), "x")
	requireEcho(t, dial(t, b, port.KindRPC, a.target()), "x")
}

func TestRemovedKeyEndsWhatItAuthenticated(t *testing.T) {
	old, fresh := keyring.Generate(), keyring.Generate()
	ra, rb := ring(t, old, fresh), ring(t, old, fresh)
	a, b := start(t, "a", withKeys(ra)), start(t, "b", withKeys(rb))
	before := dial(t, a, port.KindRPC, b.target())
	requireEcho(t, before, "x")
	for _, r := range []*keyring.Ring{ra, rb} {
		if err := r.Use(fresh.Fingerprint()); err != nil {
			t.Fatal(err)
		}
	}
	after := dial(t, a, port.KindRPC, b.target())
	if err := rb.Remove(old.Fingerprint()); err != nil {
		t.Fatal(err)
	}
	requireEnd(t, before)
	requireEcho(t, after, "x")
}

func TestStrangersAreRefusedBeforeAnyServiceSeesThem(t *testing.T) {
	key := keyring.Generate()
	ours, foreign := newAuthority(t), newAuthority(t)
	certs := func(a *authority, node string) func(*port.Config) {
		return withCerts(a.load(t, port.CertificateName(node, "test")))
	}
	none := func(*port.Config) {}
	for name, c := range map[string]struct {
		a, b  func(*port.Config)
		words string
	}{
		"other key":            {withKeys(ring(t, keyring.Generate())), withKeys(ring(t, key)), `does not have the key`},
		"no key here":          {none, withKeys(ring(t, key)), "was offered neither"},
		"no key there":         {withKeys(ring(t, key)), none, "wants neither"},
		"key for certificates": {withKeys(ring(t, key)), certs(ours, "b"), "wants certificates"},
		"certificates of another CA": {
			certs(foreign, "a"), certs(ours, "b"), "signed by unknown authority",
		},
		"certificate of another name": {
			certs(ours, "c"), certs(ours, "b"), "c.test.srsx",
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := start(t, "a", c.a), open(t, "b", c.b)
			b.Handle(port.KindRPC, func(_ context.Context, c *port.Conn) {
				t.Error("service was called for a stranger")
				_ = c.Close()
			})
			serve(t, b)
			requireRefusal(t, a, b, port.KindRPC, port.ErrUntrusted, c.words)
		})
	}
}

func TestAnotherNodeAtTheAddressIsRefused(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	_, err := a.Dial(t.Context(), port.KindRPC, port.Target{ID: uuid.NewString(), Addr: b.Addr().String()})
	if !errors.Is(err, port.ErrWrongNode) || !strings.Contains(err.Error(), b.id) {
		t.Errorf("Dial = %v; want ErrWrongNode naming %s", err, b.id)
	}
	eventually(t, "the other node logs why", func() bool { return strings.Contains(b.log.String(), port.ErrWrongNode.Error()) })
}

func TestOurOwnNodeIDIsRefused(t *testing.T) {
	a := start(t, "a")
	copied := start(t, "copy", func(c *port.Config) { c.NodeID = a.id })
	requireRefusal(t, a, a, port.KindRPC, port.ErrWrongNode, a.id)
	requireRefusal(t, copied, a, port.KindRPC, port.ErrWrongNode, a.id)
}

func TestReservedKindsAreRefused(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	for _, kind := range []port.Kind{port.KindRaft, 0, 4, 255} {
		if _, err := a.Dial(t.Context(), kind, b.target()); !errors.Is(err, port.ErrUnserved) {
			t.Errorf("Dial of kind %d = %v; want ErrUnserved", kind, err)
		}
	}
}

func TestAddressComesFromResolve(t *testing.T) {
	b := start(t, "b")
	a := start(t, "a", func(c *port.Config) {
		c.Resolve = func(id string) string {
			if id == b.id {
				return b.Addr().String()
			}
			return ""
		}
	})
	requireEcho(t, dial(t, a, port.KindRPC, port.Target{ID: b.id}), "x")
	if _, err := a.Dial(t.Context(), port.KindRPC, port.Target{ID: uuid.NewString()}); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("Dial of a node without address = %v; want an error that says so", err)
	}
}

func TestDialEndsWithItsContextAndItsDeadline(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	to := port.Target{Addr: silent.Addr().String()}

	a := start(t, "a", func(c *port.Config) { c.HandshakeTimeout = 50 * time.Millisecond })
	if _, err = a.Dial(t.Context(), port.KindRPC, to); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial of a silent peer = %v; want DeadlineExceeded", err)
	}
	b := start(t, "b")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err = b.Dial(ctx, port.KindRPC, to); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial with a cancelled context = %v; want Canceled", err)
	}
}

func TestBadConfigurationIsRefused(t *testing.T) {
	good := port.Config{NodeID: uuid.NewString(), NodeName: "a", ClusterName: "test"}
	for name, change := range map[string]func(*port.Config){
		"node id":       func(c *port.Config) { c.NodeID = "one" },
		"zero node id":  func(c *port.Config) { c.NodeID = uuid.Nil.String() },
		"no name":       func(c *port.Config) { c.NodeName = "" },
		"long name":     func(c *port.Config) { c.NodeName = strings.Repeat("a", 129) },
		"control names": func(c *port.Config) { c.ClusterName = "a\nb" },
		"cluster id":    func(c *port.Config) { c.ClusterID = "one" },
	} {
		config := good
		change(&config)
		if p, err := port.Listen(t.Context(), "127.0.0.1:0", config); err == nil {
			_ = p.Close()
			t.Errorf("Listen with a bad %s = nil; want an error", name)
		}
	}
}

func TestTakenPortIsNamed(t *testing.T) {
	a := start(t, "a")
	_, err := port.Listen(t.Context(), a.Addr().String(), port.Config{NodeID: uuid.NewString(), NodeName: "b", ClusterName: "test"})
	if err == nil || err.Error() != "listen cluster "+a.Addr().String()+": address already in use" {
		t.Errorf("Listen on a taken port = %v", err)
	}
}

func TestCloseEndsEveryConnection(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	dialed, accepted := dial(t, a, port.KindRPC, b.target()), dial(t, b, port.KindRPC, a.target())
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := dialed.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read of a dialed connection = %v; want ErrClosed", err)
	}
	requireEnd(t, accepted)
	if _, err := a.Dial(t.Context(), port.KindRPC, b.target()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial after Close = %v; want ErrClosed", err)
	}
}
