// Package raftlb is the balancer of a cluster: the state machine is replicated,
// every peer answers from its own replica, and the leader decides. What is
// known is served without a majority; what is new waits for one.
package raftlb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/decide"
	"srsx/lb/liveness"
	"srsx/lb/replica"
)

// Node is what this package needs of a peer of the cluster; see cluster.Node.
type Node interface {
	// Propose returns what commands did once a majority has stored them and
	// this peer has applied them.
	Propose(ctx context.Context, commands ...fsm.Command) ([]fsm.Result, error)
	// Ask has the leader's Balancer answer a question.
	Ask(ctx context.Context, question []byte) (answer []byte, err error)
	// Majority returns nil once a majority of the voters has said yes to a
	// question by their Balancer's Witness.
	Majority(ctx context.Context, question []byte) error
	// Await returns when this peer has applied the entry at index.
	Await(ctx context.Context, index uint64) error
	// View shows the state as this peer has it, which stands still meanwhile.
	View(look func(*fsm.State))
	// Decisive returns nil when a leader is in reach, else why not.
	Decisive() error
}

// Config of a [Balancer]. Zero values mean the defaults.
type Config struct {
	Holder fsm.Holder // this run of this peer
	Policy fsm.Policy
	TTL    time.Duration   // silence after which an origin is probed; default 30 s
	Probe  liveness.Prober // default: liveness.Probe

	// LeaseTTL is how long the leader waits for a sign of life of a peer before
	// what that run of it held becomes orphaned; default 30 s.
	LeaseTTL time.Duration
}

// Balancer implements lb.Balancer over a cluster. Until Run it knows nothing and
// decides nothing.
type Balancer struct {
	replica.Front

	config  Config
	replica *replica.Replica
	soft    softState
	placer  placer
	upkeep  upkeep
	node    atomic.Pointer[Node] // set by Run
	led     chan bool            // the newest word of Lead

	closed context.Context //nolint:containedctx // the life of the balancer, which its methods have in common
	end    context.CancelCauseFunc

	mu      sync.Mutex // guards what follows
	policy  fsm.Policy
	leading *leadership // nil: another peer leads, or none
}

var _ lb.Balancer = (*Balancer)(nil)

// New returns a balancer that waits for Run.
func New(config Config) *Balancer {
	if config.LeaseTTL <= 0 {
		config.LeaseTTL = 30 * time.Second
	}
	if config.Probe == nil {
		config.Probe = liveness.Probe
	}
	b := &Balancer{replica: replica.New(), config: config, policy: config.Policy, led: make(chan bool, 1)}
	b.Front = replica.NewFront(b.replica, b.status, b.operate)
	b.closed, b.end = context.WithCancelCause(context.Background())
	b.placer.init()
	b.upkeep.init()
	return b
}

// Run works for the balancer until ctx ends or it is closed.
func (b *Balancer) Run(ctx context.Context, node Node) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(b.closed, stop)() //nolint:contextcheck // two lives end it
	b.node.Store(&node)
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { b.place(ctx, node) })
	running.Go(func() { b.keepUp(ctx, node) })
	running.Go(func() { b.exchange(ctx, node) })
	b.followLeadership(ctx, node)
}

// Close ends what waits, and Run.
func (b *Balancer) Close() error {
	b.end(lb.ErrClosed)
	b.replica.Close()
	return nil
}

// SetPolicy replaces the policy by which this peer places while it leads.
func (b *Balancer) SetPolicy(p fsm.Policy) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.policy = p
	if b.leading != nil {
		b.leading.decider.SetPolicy(p)
	}
}

// peer returns the node, or why there is none.
func (b *Balancer) peer() (Node, error) {
	if b.closed.Err() != nil {
		return nil, lb.ErrClosed
	}
	if n := b.node.Load(); n != nil {
		return *n, nil
	}
	return nil, fmt.Errorf("%w: the peer is starting", lb.ErrUndecided)
}

// Decisive implements lb.Balancer.
func (b *Balancer) Decisive() error {
	node, err := b.peer()
	if err != nil {
		return err
	}
	if err := node.Decisive(); err != nil {
		return fmt.Errorf("%w: %w", lb.ErrUndecided, err)
	}
	return nil
}

// Lead tells whether this peer leads from now on, with all applied that was
// agreed before. One goroutine at a time calls it.
func (b *Balancer) Lead(leads bool) {
	select {
	case <-b.led: // not yet looked at, and no longer true
	default:
	}
	b.led <- leads
}

// Applied takes over what an entry of the log changed. The node calls it in the
// order of the log; s is as the entry left it.
func (b *Balancer) Applied(s *fsm.State, _ time.Time, results []fsm.Result) {
	b.replica.Follow(s, results...)
	if l := b.leads(); l != nil {
		l.decider.Follow(s, results...)
	}
	for _, result := range results {
		for _, change := range result.Changes {
			if !change.Stream.IsZero() {
				b.compareOne(s, change.Stream)
			}
		}
	}
}

// compareOne has a stream brought in line if the cluster thinks otherwise of it
// than the sessions of this peer.
func (b *Balancer) compareOne(s *fsm.State, stream lb.Stream) {
	_, held, _ := b.replica.Holding(stream)
	p, placed := s.Placement(stream)
	if held != (placed && slices.Contains(p.Holders, b.config.Holder)) {
		b.upkeep.check(stream)
	}
}

// Restored takes over a state that a snapshot brought.
func (b *Balancer) Restored(s *fsm.State) {
	b.replica.Reset(s)
	if l := b.leads(); l != nil {
		l.decider.Reset(s)
	}
	b.upkeep.checkAll()
}

// Explain implements lb.Balancer: by the leader, who has all loads, or else by
// what this peer knows.
func (b *Balancer) Explain(ctx context.Context, w lb.Want) (lb.Explanation, error) {
	node, err := b.peer()
	if err != nil {
		return lb.Explanation{}, err
	}
	var e lb.Explanation
	if err := ask(ctx, node, questionExplain, w, &e); err == nil {
		return e, nil
	}
	own := decide.New(b.currentPolicy(), nil, liveness.Config{})
	node.View(func(s *fsm.State) { e = own.Explain(s, w) })
	return e, nil
}

func (b *Balancer) currentPolicy() fsm.Policy {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.policy
}

// undecided puts an error of the cluster into the words of Balancer.
func undecided(err error) error {
	if errors.Is(err, lb.ErrClosed) || errors.Is(err, lb.ErrUndecided) {
		return err
	}
	return fmt.Errorf("%w: %w", lb.ErrUndecided, err)
}
