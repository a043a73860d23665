package port_test

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"srsx/cluster/keyring"
	"srsx/cluster/port"
)

// counter is a state machine that counts what was applied.
type counter struct{ applied atomic.Int64 }

func (c *counter) Apply(*raft.Log) any                 { return c.applied.Add(1) }
func (c *counter) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("no snapshots here") }
func (c *counter) Restore(io.ReadCloser) error         { return errors.New("no snapshots here") }

// voter is a raft server whose transport is a port.
type voter struct {
	*peer
	raft   *raft.Raft
	stream *port.RaftStream
	fsm    *counter
}

// formVoters starts raft on n peers, whose configuration knows them by address
// only as their ids.
func formVoters(t *testing.T, n int) []*voter {
	t.Helper()
	addresses := make(map[string]string)
	guard := withKeys(ring(t, keyring.Generate()))
	cluster := uuid.NewString()
	voters := make([]*voter, n)
	var configuration raft.Configuration
	for i := range voters {
		p := open(t, string(rune('a'+i)), guard, withCluster("test", cluster), func(c *port.Config) {
			c.Resolve = func(id string) string { return addresses[id] }
		})
		voters[i] = &voter{peer: p, stream: p.Raft(), fsm: &counter{}}
		addresses[p.id] = p.Addr().String()
		configuration.Servers = append(configuration.Servers, raft.Server{ID: raft.ServerID(p.id), Address: raft.ServerAddress(p.id)})
	}
	for _, v := range voters {
		serve(t, v.peer)
		v.run(t, configuration)
	}
	return voters
}

func (v *voter) run(t *testing.T, configuration raft.Configuration) {
	t.Helper()
	quiet := hclog.NewNullLogger()
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: v.stream, ServerAddressProvider: v.stream, MaxPool: 3, Timeout: 2 * time.Second, Logger: quiet,
	})
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(v.id)
	config.HeartbeatTimeout, config.ElectionTimeout = time.Second, time.Second
	config.LeaderLeaseTimeout, config.CommitTimeout = 500*time.Millisecond, 10*time.Millisecond
	config.Logger = quiet
	store := raft.NewInmemStore()
	r, err := raft.NewRaft(config, v.fsm, store, store, raft.NewInmemSnapshotStore(), transport)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Shutdown().Error(); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		_ = transport.Close()
	})
	if err := r.BootstrapCluster(configuration).Error(); err != nil {
		t.Fatal(err)
	}
	v.raft = r
}

// leader waits for a leader among some voters.
func leader(t *testing.T, among []*voter) *voter {
	t.Helper()
	var found *voter
	eventually(t, "a leader", func() bool {
		for _, v := range among {
			if v.raft.State() == raft.Leader {
				found = v
				return true
			}
		}
		return false
	})
	return found
}

func others(all []*voter, but *voter) []*voter {
	var rest []*voter
	for _, v := range all {
		if v != but {
			rest = append(rest, v)
		}
	}
	return rest
}

func requireApplied(t *testing.T, voters []*voter, n int64) {
	t.Helper()
	for _, v := range voters {
		eventually(t, "every peer has applied all", func() bool { return v.fsm.applied.Load() >= n })
	}
}

func propose(t *testing.T, v *voter) {
	t.Helper()
	if err := v.raft.Apply([]byte("x"), patience).Error(); err != nil {
		t.Fatalf("Apply = %v", err)
	}
}

func TestRaftAgreesOverThePortAndIsFencedAlone(t *testing.T) {
	voters := formVoters(t, 3)
	first := leader(t, voters)
	propose(t, first)
	requireApplied(t, voters, 1)
	for _, v := range voters {
		eventually(t, "every peer knows the leader by its id", func() bool {
			addr, id := v.raft.LeaderWithID()
			return string(addr) == first.id && string(id) == first.id
		})
	}

	first.stream.Fence()
	rest := others(voters, first)
	second := leader(t, rest)
	propose(t, second)
	requireApplied(t, rest, 2)
	for _, v := range rest { // neither out nor in
		if _, err := first.stream.Dial(raft.ServerAddress(v.id), patience); !errors.Is(err, port.ErrFenced) {
			t.Errorf("raft Dial of a fenced peer = %v; want ErrFenced", err)
		}
		if _, err := v.stream.Dial(raft.ServerAddress(first.id), patience); !errors.Is(err, port.ErrFenced) {
			t.Errorf("raft Dial to a fenced peer = %v; want ErrFenced", err)
		}
		requireEcho(t, dial(t, v.peer, port.KindRPC, first.target()), "rpc goes on")
		requireEcho(t, dial(t, first.peer, port.KindRPC, v.target()), "rpc goes on")
	}
	if got := first.fsm.applied.Load(); got != 1 {
		t.Errorf("fenced peer has applied %d; want 1", got)
	}

	first.stream.Unfence()
	requireApplied(t, voters, 2)
}

func TestRaftDialTakesNoOtherNodeForTheOneItMeant(t *testing.T) {
	b, c := start(t, "b"), start(t, "c")
	c.Raft()
	a := start(t, "a", func(config *port.Config) { // b's address was given to c
		config.Resolve = func(string) string { return c.Addr().String() }
	})
	stream := a.Raft()
	if _, err := stream.Dial(raft.ServerAddress(b.id), patience); !errors.Is(err, port.ErrWrongNode) {
		t.Errorf("Dial = %v; want ErrWrongNode", err)
	}
	if addr, err := stream.ServerAddr(raft.ServerID(b.id)); err != nil || string(addr) != b.id {
		t.Errorf("ServerAddr = %v, %v; want the id itself", addr, err)
	}
}

func TestConnectionToItselfEndsWithTheStream(t *testing.T) {
	a := start(t, "a")
	stream := a.Raft()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := stream.Accept()
		accepted <- c
	}()
	if _, err := stream.Dial(raft.ServerAddress(a.id), patience); err != nil {
		t.Fatal(err)
	}
	far := <-accepted
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := far.Read(make([]byte, 1)); err == nil {
		t.Errorf("read of the accepted end = %v; want it closed", err)
	}
}

func TestClosedRaftStreamTakesAndKeepsNothing(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	stream := b.Raft()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, _ := stream.Accept()
		accepted <- c
	}()
	c := dial(t, a, port.KindRaft, b.target())
	if got := <-accepted; got == nil {
		t.Fatal("Accept = nil; want the connection")
	}
	rpc := dial(t, a, port.KindRPC, b.target())
	waiting := dial(t, a, port.KindRaft, b.target()) // nobody accepts it
	if err := stream.Close(); err != nil {
		t.Fatal(err)
	}
	requireEnd(t, c)
	requireEnd(t, waiting)
	requireEcho(t, rpc, "the rest goes on")
	if _, err := stream.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close = %v; want ErrClosed", err)
	}
	if _, err := a.Dial(t.Context(), port.KindRaft, b.target()); !errors.Is(err, port.ErrUnserved) {
		t.Errorf("Dial after Close = %v; want ErrUnserved", err)
	}
}
