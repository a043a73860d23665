package cluster

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"srsx/fsm"
)

// Config of a [Node]. Zero values mean the defaults.
type Config struct {
	// ID is the UUID of this peer, the same for ever.
	ID string
	// RecoveryDir is where an operator puts peers.json, see [Open]; none: "".
	RecoveryDir string

	Limits fsm.Limits

	// Logs should be a [raft.CommitTrackingLogStore]: else a peer restarted
	// alone knows only its last snapshot.
	Logs      raft.LogStore
	Stable    raft.StableStore
	Snapshots raft.SnapshotStore

	// Transport carries raft. It is closed with the node.
	Transport Transport
	// RPC carries all else between the peers.
	RPC RPC

	// Observer is told what is applied; nil: nobody.
	Observer Observer
	// Answer answers what any peer asks the leader, see [Node.Ask]. It runs
	// on the leader, with all that is committed applied; nil: none.
	Answer func(ctx context.Context, from string, question []byte) ([]byte, error)
	// Witness answers yes or no to what any peer asks the voters, see
	// [Node.Majority]; nil: no.
	Witness func(ctx context.Context, from string, question []byte) bool
	// OnLeadership is called whenever [Leadership] changes, by one goroutine
	// that may skip values that were replaced meanwhile; nil: nobody.
	OnLeadership func(Leadership)
	// Understood returns the latest version of batches that every member
	// reads; nil: all read what this peer writes.
	Understood func() uint8

	// Stalled tells that a write to the log's disk takes too long, and when it
	// is over. Fence then cuts this peer's raft off from the others, so that
	// they elect a leader whose disk works, and lets it back. nil: never.
	Stalled <-chan bool
	Fence   func(shut bool)

	// Processes tells when a peer has died; nil: a dead leader is found out by
	// its silence.
	Processes Processes

	// Multiplier stretches the timeouts of raft for slow or distant hosts, 1
	// to 10.
	Multiplier int
	// Timeout bounds a proposal, a question or a read, together with its
	// context; default 10 s.
	Timeout time.Duration
	// EntrySize bounds a log entry in bytes, unless one command is larger;
	// default 16 KB.
	EntrySize int
	// Depth is how many batches are under way at once; default 2.
	Depth int
	// SnapshotEntries and SnapshotBytes of log are followed by a snapshot;
	// defaults 8192 and 32 MB. TrailingEntries stay in the log behind it; by
	// default twice as many, so that the snapshot before and the log are the
	// state too, should the newest be damaged.
	SnapshotEntries uint64
	SnapshotBytes   int64
	TrailingEntries uint64
	// BackupSize bounds what may be restored, in bytes; default 1 GB.
	BackupSize int64

	Log *slog.Logger // default: discards

	commitTimeout time.Duration // of raft; tests make it long
}

// Transport is what raft needs, as [raft.NetworkTransport] has it.
type Transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// RPC carries requests between peers.
type RPC interface {
	// Call sends a request to a peer and returns its reply. An error that
	// matches [ErrUnsent] means that the peer cannot have seen it.
	Call(ctx context.Context, to string, kind byte, request []byte) ([]byte, error)
	// Handle sets who answers requests of a kind.
	Handle(kind byte, answer func(ctx context.Context, from string, request []byte) ([]byte, error))
}

// Processes tells whether the process of a peer has died, as seen from here: its
// host refuses connections to it. Silence is no death.
type Processes interface {
	// AwaitDeath returns nil once the process has died, else when ctx is done.
	AwaitDeath(ctx context.Context, id string) error
	// Dead looks now.
	Dead(ctx context.Context, id string) bool
}

// Observer follows the state. It is called by whoever applies, in the order of
// the log and under the lock of [Node.View]: it must not call the node.
type Observer interface {
	// Applied tells what the commands of one entry did.
	Applied(state *fsm.State, at time.Time, results []fsm.Result)
	// Restored tells that a snapshot has replaced the state.
	Restored(state *fsm.State)
}

const (
	defaultTimeout         = 10 * time.Second
	defaultEntrySize       = 16 << 10 // bytes
	defaultDepth           = 2
	defaultSnapshotEntries = 8192
	defaultSnapshotBytes   = 32 << 20
	defaultBackupSize      = 1 << 30 // a million placements take 45 MB

	heartbeatTimeout = 500 * time.Millisecond
	leaseTimeout     = 250 * time.Millisecond
	// defaultCommitTimeout is how long followers may not know that an entry is
	// committed when no other follows it and the leader's word got lost, see
	// tellCommitted. It is the pace of raft's empty messages, too.
	defaultCommitTimeout = 200 * time.Millisecond
	// snapshotInterval is how often raft looks whether a snapshot is due.
	snapshotInterval = time.Second
	maxAppendEntries = 256
	maxMultiplier    = 10
)

func (c Config) withDefaults() Config {
	c.Multiplier = min(max(c.Multiplier, 1), maxMultiplier)
	c.Timeout = cmp.Or(c.Timeout, defaultTimeout)
	c.EntrySize = cmp.Or(c.EntrySize, defaultEntrySize)
	c.Depth = cmp.Or(c.Depth, defaultDepth)
	c.SnapshotEntries = cmp.Or(c.SnapshotEntries, defaultSnapshotEntries)
	c.SnapshotBytes = cmp.Or(c.SnapshotBytes, defaultSnapshotBytes)
	c.TrailingEntries = cmp.Or(c.TrailingEntries, 2*c.SnapshotEntries)
	c.BackupSize = cmp.Or(c.BackupSize, defaultBackupSize)
	c.commitTimeout = cmp.Or(c.commitTimeout, defaultCommitTimeout)
	if c.Observer == nil {
		c.Observer = nobody{}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// raftConfig returns raft's settings. Pre-vote is on: without it most elections
// after a partition took more than one term.
func (c Config) raftConfig() *raft.Config {
	stretch := func(d time.Duration) time.Duration { return d * time.Duration(c.Multiplier) }
	return &raft.Config{
		ProtocolVersion:    raft.ProtocolVersionMax,
		LocalID:            raft.ServerID(c.ID),
		HeartbeatTimeout:   stretch(heartbeatTimeout),
		ElectionTimeout:    stretch(heartbeatTimeout),
		LeaderLeaseTimeout: stretch(leaseTimeout),
		CommitTimeout:      c.commitTimeout,
		MaxAppendEntries:   maxAppendEntries,
		BatchApplyCh:       true,
		SnapshotInterval:   snapshotInterval,
		SnapshotThreshold:  c.SnapshotEntries,
		TrailingLogs:       c.TrailingEntries,
		NoLegacyTelemetry:  true,
		Logger:             NewRaftLogger(c.Log),
		// A removed peer goes on relaying, so raft does not shut itself down.
		ShutdownOnRemove: false,
		// The state is recovered before raft starts, see recover.go. What
		// is left of RestoreCommittedLogs is that raft tells the log what
		// is committed.
		NoSnapshotRestoreOnStart: true,
		RestoreCommittedLogs:     true,
	}
}

type nobody struct{}

func (nobody) Applied(*fsm.State, time.Time, []fsm.Result) {}
func (nobody) Restored(*fsm.State)                         {}
