package store

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A peer killed as leader or as follower, and started when both others are gone,
// knows again what it knew.
func TestPeerRestartedAloneKnowsWhatItKnew(t *testing.T) {
	const commands = 20_000
	for name, order := range map[string][]raft.ServerID{"leader": {"a", "b", "c"}, "follower": {"b", "a", "c"}} {
		t.Run(name, func(t *testing.T) {
			s := open(t, memoryDir(t))
			peers := map[raft.ServerID]*peer{
				"a": startOn(t, s, patientConfig("a")), "b": startInMemory(t, "b"), "c": startInMemory(t, "c"),
			}
			connect(peers)
			peers[order[0]].bootstrap(t, order...) // the first is the only one that knows the others, so it leads
			peers[order[0]].apply(t, commands, 8)
			eventually(t, "a has applied all", func() bool { n, _ := peers["a"].ledger.state(); return n == commands })

			began := time.Now()
			alone := startOn(t, crashed(t, s), raftConfig("a"))
			eventually(t, "99.9 % are applied again", func() bool {
				n, _ := alone.ledger.state()
				return n >= commands*999/1000
			})
			n, _ := alone.ledger.state()
			t.Logf("%d of %d again after %s", n, commands, time.Since(began))
			if alone.State() == raft.Leader || alone.Leader() != "" {
				t.Error("the peer leads, or follows a leader; want it alone")
			}
		})
	}
}

// This is raft's defect, not ours: it is why the owner of raft has to apply what
// is committed before NewRaft, and give raft 0 for GetCommitIndex. Once raft
// knows its members here, that can go.
func TestRaftForgetsItsMembersWhenItRestores(t *testing.T) {
	s := open(t, t.TempDir())
	before := startOn(t, s, raftConfig("a"))
	before.bootstrap(t, "a")
	before.apply(t, 10, 1)

	config := raftConfig("a")
	restored := startOn(t, crashed(t, s), config)
	if got := restored.GetConfiguration().Configuration().Servers; len(got) != 0 {
		t.Errorf("raft restores what is committed and knows %+v; it used to know nobody", got)
	}
	config.RestoreCommittedLogs = false
	waiting := startOn(t, crashed(t, s), config)
	eventually(t, "a leads when it does not restore", func() bool { return waiting.State() == raft.Leader })
}

// Replacing the members by hand works on a log without a snapshot as well.
func TestMembersAreReplacedByHand(t *testing.T) {
	s := open(t, t.TempDir())
	before := startOn(t, s, raftConfig("a"))
	before.bootstrap(t, "a")
	before.apply(t, 10, 1)
	before.stop()
	applied, sum := before.ledger.state()

	s = reopen(t, s)
	_, transport := raft.NewInmemTransport("a")
	err := raft.RecoverCluster(raftConfig("a"), &ledger{}, s, s, s.Snapshots(), transport, servers("a", "z"))
	if err != nil {
		t.Fatalf("RecoverCluster: %v", err)
	}
	s = reopen(t, s)
	after := startOn(t, s, raftConfig("a"))
	if got := after.GetConfiguration().Configuration(); !reflect.DeepEqual(got, servers("a", "z")) {
		t.Errorf("members %+v; want a and z", got)
	}
	if gotApplied, got := after.ledger.state(); gotApplied != applied || got != sum {
		t.Errorf("%d commands with state %x; want %d with %x", gotApplied, got, applied, sum)
	}
}

// A log with more committed entries than raft can replay.
func TestRaftStartsHoweverMuchIsCommitted(t *testing.T) {
	const maxAppendEntries = 4
	s, err := Open(t.TempDir(), Options{MaxAppendEntries: maxAppendEntries})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	config := raftConfig("a")
	config.MaxAppendEntries = maxAppendEntries
	_, transport := raft.NewInmemTransport("a")
	if err := raft.BootstrapCluster(config, s, s, s.Snapshots(), transport, servers("a", "b", "c")); err != nil {
		t.Fatal(err)
	}
	limit := MaxReplay(maxAppendEntries)
	logs := entries(2, limit+100, 10)
	for _, l := range logs {
		l.Term = 1
	}
	if err := errors.Join(s.StageCommitIndex(limit+90), s.StoreLogs(logs)); err != nil {
		t.Fatal(err)
	}
	p := startOn(t, s, config)
	eventually(t, "what can be replayed is applied", func() bool {
		n, _ := p.ledger.state()
		return n == limit-1 // the first entry is the configuration
	})
	if queue := uint64(reflect.ValueOf(p.Raft).Elem().FieldByName("fsmMutateCh").Cap()); queue*maxAppendEntries != limit {
		t.Errorf("raft queues %d batches; MaxReplay counts on %d", queue, limit/maxAppendEntries)
	}
}

// snapshotted runs one voter on a store until there are two snapshots and
// entries behind them, and returns its final state.
func snapshotted(t *testing.T, dir string, trailing uint64) (applied, sum uint64, ids []string) {
	t.Helper()
	s := open(t, dir)
	config := raftConfig("a")
	config.TrailingLogs = trailing
	p := startOn(t, s, config)
	p.bootstrap(t, "a")
	for range 2 {
		p.apply(t, 50, 1)
		if err := p.Raft.Snapshot().Error(); err != nil {
			t.Fatalf("Snapshot: %v", err)
		}
	}
	p.apply(t, 20, 1)
	list, err := s.Snapshots().List() // newest first
	if err != nil || len(list) != 2 {
		t.Fatalf("List = %d snapshots, %v; want 2", len(list), err)
	}
	p.stop()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	applied, sum = p.ledger.state()
	return applied, sum, []string{list[0].ID, list[1].ID}
}

func TestDamagedSnapshotGivesWayToTheOneBefore(t *testing.T) {
	for _, file := range []string{"state.bin", "meta.json"} {
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			applied, sum, ids := snapshotted(t, dir, 1000)
			if err := os.Truncate(filepath.Join(dir, "snapshots", ids[0], file), 7); err != nil {
				t.Fatal(err)
			}
			p := startOn(t, open(t, dir), raftConfig("a"))
			eventually(t, "all is applied again", func() bool { n, _ := p.ledger.state(); return n == applied })
			if _, got := p.ledger.state(); got != sum {
				t.Errorf("state %x; want %x as before", got, sum)
			}
		})
	}
}

// Raft would start from the snapshot before and panic on the first entry that
// the log no longer has.
func TestDamagedSnapshotThatTheLogCannotReplaceIsRefused(t *testing.T) {
	for _, file := range []string{"state.bin", "meta.json"} {
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			_, _, ids := snapshotted(t, dir, 10)
			newest := filepath.Join(dir, "snapshots", ids[0])
			if err := os.Truncate(filepath.Join(newest, file), 7); err != nil {
				t.Fatal(err)
			}
			requireDamage(t, dir, newest, "it begins with entry")
		})
	}
}

func requireDamage(t *testing.T, dir string, words ...string) {
	t.Helper()
	s, err := Open(dir, Options{})
	if err == nil {
		_ = s.Close()
	}
	if !errors.Is(err, ErrDamaged) {
		t.Fatalf("Open = %v; want %v", err, ErrDamaged)
	}
	for _, word := range append(words, wayOut) {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("Open = %v; want %q in it", err, word)
		}
	}
}
