package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"srsx/fsm"
)

// Node is one peer's part in consensus: it proposes commands to the leader,
// whoever that is, applies what is agreed, and answers from its own copy.
type Node struct {
	config    Config
	log       *slog.Logger
	machine   *machine
	journal   *journal
	raft      *raft.Raft
	queue     *queue
	reads     *readers
	hints     *hints
	tellings  tellings
	leaders   *leaders
	transfers transfers
	deaths    deaths
	offers    offers
	restoring chan struct{} // of size 1: held while a backup is being restored here

	fenced   atomic.Bool
	closing  chan struct{} // closed when Close begins
	down     chan struct{} // closed when raft has been told to stop
	stop     context.CancelFunc
	running  sync.WaitGroup // what stop ends
	watching sync.WaitGroup // what the closing of down ends
	flights  flights
	once     sync.Once
}

// Open recovers the state from disk and takes part in consensus until Close. A
// peers.json in the recovery directory replaces the membership first. A peer
// that has state serves it at once, see [Node.View], and needs nobody for that.
func Open(ctx context.Context, config Config) (*Node, error) {
	config = config.withDefaults()
	settings := config.raftConfig()
	transport := &mended{Transport: config.Transport, timeout: settings.ElectionTimeout}
	config.Transport = transport
	n := &Node{
		config:  config,
		log:     config.Log,
		machine: newMachine(config.Limits, config.Observer, config.Log),
		journal: newJournal(config.Logs, config.Stable),
		queue:   newQueue(),
		reads:   newReaders(),
		hints:   newHints(),
		flights: flights{idle: make(chan struct{}, 1)},

		restoring: make(chan struct{}, 1),
		closing:   make(chan struct{}),
		down:      make(chan struct{}),
	}
	n.machine.onSettled = n.hints.rouse
	snapshots := &readableSnapshots{SnapshotStore: config.Snapshots}
	err := recoverPeers(config, n.journal, snapshots)
	if err != nil {
		return nil, err
	}
	if err = undoHalfBootstrap(config); err != nil {
		return nil, err
	}
	if err = recoverState(n.machine, n.journal, snapshots); err != nil {
		return nil, fmt.Errorf("recover state: %w", err)
	}
	led := make(chan bool, 1)
	settings.NotifyCh = led
	n.raft, err = raft.NewRaft(settings, n.machine, n.journal, config.Stable, snapshots, config.Transport)
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	transport.raft.Store(n.raft)
	n.leaders = newLeaders(n.raft)
	n.journal.appended.Store(new(n.hints.appended))
	n.serve()

	ctx, n.stop = context.WithCancel(context.WithoutCancel(ctx))
	n.watching.Go(func() { n.watchLeadership(ctx, led) })
	n.running.Go(func() { n.dispatch(ctx) })
	n.running.Go(func() { n.reads.run(ctx, n.readIndex) })
	n.running.Go(func() { n.followHints(ctx) })
	n.running.Go(func() { n.tellCommitted(ctx) })
	n.running.Go(func() { n.keepHouse(ctx) })
	n.running.Go(func() { n.keepHighWater(ctx) })
	if config.Stalled != nil {
		n.running.Go(func() { n.watchDisk(ctx) })
	}
	if config.Processes != nil {
		n.running.Go(func() { n.watchLeader(ctx) })
	}
	return n, nil
}

// ID returns the id of this peer.
func (n *Node) ID() string { return n.config.ID }

// View calls f with the state as far as this peer has applied it. It does not
// change meanwhile, so f should be short and must not call the node.
func (n *Node) View(f func(*fsm.State)) { n.machine.view(f) }

// closeTimeout bounds how long Close waits for raft, which takes no notice while
// its disk hangs. A tenth of it is for what raft has not looked at yet; all else
// it answers when it is shut down.
const closeTimeout = 5 * time.Second

// Close ends this peer's part in consensus without a word to the others, who
// find out by its silence; see [Node.Shutdown]. It does not wait for a stalled
// disk: raft may then go on using the stores.
func (n *Node) Close() error {
	err := error(nil)
	n.once.Do(func() { err = n.close() })
	return err
}

func (n *Node) close() error {
	close(n.closing)
	n.stop()
	n.queue.close(ErrClosed)
	n.reads.close(ErrClosed)
	n.running.Wait()
	timeout := closeTimeout
	if n.fenced.Load() {
		timeout = 0 // raft does not answer
	}
	waitFor(timeout/10, n.flights.settle)
	down := n.raft.Shutdown()
	close(n.down)
	n.watching.Wait()
	switch stopped := waitFor(timeout, func() { _ = down.Error() }); {
	case stopped:
		return nil
	case n.fenced.Load():
		return fmt.Errorf("close: %w", ErrFenced)
	default:
		return errors.New("close: raft does not stop")
	}
}

// Shutdown hands leadership over, if this peer leads, and closes. The others then
// need not miss it first. The peer stays a member.
func (n *Node) Shutdown(ctx context.Context) error {
	if n.raft.State() == raft.Leader && !n.fenced.Load() {
		transferring, cancel := context.WithTimeout(ctx, n.config.Timeout)
		defer cancel()
		if err := n.transferHere(transferring, ""); err != nil {
			n.log.InfoContext(ctx, "leadership not handed over", "err", err)
		}
	}
	return n.Close()
}

// waitFor reports whether wait returned in time.
func waitFor(timeout time.Duration, wait func()) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait()
	}()
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case <-done:
		return true
	case <-late.C:
		return false
	}
}

// refused returns why this peer takes no request now, or nil.
func (n *Node) refused() error {
	select {
	case <-n.closing:
		return ErrClosed
	default:
	}
	if n.fenced.Load() {
		return ErrFenced
	}
	_, halted := n.machine.position()
	return halted
}
