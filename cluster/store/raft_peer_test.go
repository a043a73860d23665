package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// ledger is a state machine that knows how many commands it has applied and
// whether they were the same as another's.
type ledger struct {
	mu      sync.Mutex
	applied uint64
	sum     uint64
}

func (f *ledger) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	h := fnv.New64a()
	_, _ = h.Write(binary.BigEndian.AppendUint64(nil, f.sum))
	_, _ = h.Write(l.Data)
	f.sum = h.Sum64()
	f.applied++
	return nil
}

func (f *ledger) state() (applied, sum uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.applied, f.sum
}

func (f *ledger) Snapshot() (raft.FSMSnapshot, error) {
	applied, sum := f.state()
	return page(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, applied), sum)), nil
}

func (f *ledger) Restore(r io.ReadCloser) error {
	content, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	if len(content) != 16 {
		return fmt.Errorf("ledger of %d bytes", len(content))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied, f.sum = binary.BigEndian.Uint64(content), binary.BigEndian.Uint64(content[8:])
	return nil
}

type page []byte

func (p page) Persist(sink raft.SnapshotSink) error {
	_, err := sink.Write(p)
	return err
}

func (page) Release() {}

// raftConfig is for peers that are alone. They elect themselves soon.
func raftConfig(id raft.ServerID) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = id
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 200*time.Millisecond, 200*time.Millisecond, 100*time.Millisecond
	c.CommitTimeout = 5 * time.Millisecond
	c.MaxAppendEntries = 256
	c.BatchApplyCh = true
	c.RestoreCommittedLogs = true
	c.Logger = hclog.NewNullLogger()
	return c
}

// patientConfig is for peers with others, on a machine that does much else.
func patientConfig(id raft.ServerID) *raft.Config {
	c := raftConfig(id)
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 3*time.Second, 3*time.Second, 3*time.Second
	return c
}

// peer is a raft peer on a Store, or in memory.
type peer struct {
	*raft.Raft
	ledger    ledger
	transport *raft.InmemTransport
}

func servers(ids ...raft.ServerID) raft.Configuration {
	var c raft.Configuration
	for _, id := range ids {
		c.Servers = append(c.Servers, raft.Server{ID: id, Address: raft.ServerAddress(id)})
	}
	return c
}

func startPeer(t *testing.T, c *raft.Config, logs raft.LogStore, stable raft.StableStore, snapshots raft.SnapshotStore) *peer {
	t.Helper()
	p := &peer{}
	_, p.transport = raft.NewInmemTransport(raft.ServerAddress(c.LocalID))
	started := make(chan error)
	go func() {
		var err error
		p.Raft, err = raft.NewRaft(c, &p.ledger, logs, stable, snapshots, p.transport)
		started <- err
	}()
	select {
	case err := <-started:
		if err != nil {
			t.Fatalf("NewRaft: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("NewRaft does not return")
	}
	t.Cleanup(p.stop)
	return p
}

func startOn(t *testing.T, s *Store, c *raft.Config) *peer {
	t.Helper()
	return startPeer(t, c, s, s, s.Snapshots())
}

func startInMemory(t *testing.T, id raft.ServerID) *peer {
	t.Helper()
	c := patientConfig(id)
	c.RestoreCommittedLogs = false
	memory := raft.NewInmemStore()
	return startPeer(t, c, memory, memory, raft.NewDiscardSnapshotStore())
}

func (p *peer) stop() { _ = p.Shutdown().Error() }

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute still not: %s", what)
		}
	}
}

func (p *peer) bootstrap(t *testing.T, ids ...raft.ServerID) {
	t.Helper()
	if err := p.BootstrapCluster(servers(ids...)).Error(); err != nil {
		t.Fatalf("BootstrapCluster: %v", err)
	}
	eventually(t, string(ids[0])+" leads", func() bool { return p.State() == raft.Leader })
}

// apply has commands applied by a number of callers, each one after the other.
func (p *peer) apply(t *testing.T, commands, callers int) {
	t.Helper()
	var callersDone sync.WaitGroup
	for caller := range callers {
		callersDone.Go(func() {
			for i := caller; i < commands; i += callers {
				if err := p.Apply(fmt.Appendf(nil, "command %d", i), 0).Error(); err != nil {
					t.Errorf("Apply %d: %v", i, err)
					return
				}
			}
		})
	}
	callersDone.Wait()
}

func connect(peers map[raft.ServerID]*peer) {
	for _, a := range peers {
		for _, b := range peers {
			a.transport.Connect(b.transport.LocalAddr(), b.transport)
		}
	}
}

// crashed copies the directory of a store while it is open: what is on disk.
func crashed(t *testing.T, s *Store) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(filepath.Dir(s.path))); err != nil {
		t.Fatal(err)
	}
	alone, err := Open(dir, Options{MaxAppendEntries: raftConfig("a").MaxAppendEntries})
	if err != nil {
		t.Fatalf("Open of the copy: %v", err)
	}
	t.Cleanup(func() { _ = alone.Close() })
	return alone
}
