package raftlb_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"srsx/fsm"
	"srsx/lb/raftlb"
)

// log is a cluster without a network: an entry is applied by every peer before
// Propose returns, peer 0 leads.
type log struct {
	mu      sync.Mutex // guards what follows
	entries []entry
	peers   []*peer
}

type entry struct {
	at       time.Time
	commands []fsm.Command
}

// peer is one peer's state and balancer.
type peer struct {
	*raftlb.Balancer

	log   *log
	mu    sync.Mutex // guards state
	state *fsm.State
	cut   bool // from the others; guarded by log.mu
}

var errCut = errors.New("no leader in reach")

// peers runs n balancers until the test ends.
func peers(t *testing.T, n int, tune ...func(i int, c *raftlb.Config)) []*peer {
	t.Helper()
	l := &log{}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() { cancel(); running.Wait() })
	for i := range n {
		config := raftlb.Config{Holder: fsm.Holder{Peer: string(rune('a' + i)), Epoch: 1}, LeaseTTL: 3 * time.Second}
		for _, f := range tune {
			f(i, &config)
		}
		p := &peer{log: l, state: fsm.NewState(fsm.Limits{}), Balancer: raftlb.New(config)}
		p.Lead(i == 0)
		l.peers = append(l.peers, p)
	}
	for _, p := range l.peers {
		running.Go(func() { p.Run(ctx, p) })
	}
	for _, p := range l.peers {
		p.awaitReady(t)
	}
	return l.peers
}

// awaitReady waits until the peer runs and its leader answers.
func (p *peer) awaitReady(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := p.Ask(t.Context(), []byte("\x02{}"))
		if err == nil && p.Balancer.Decisive() == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("peer not ready: %v", err)
		}
	}
}

func (p *peer) Propose(_ context.Context, commands ...fsm.Command) ([]fsm.Result, error) {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	if p.cut {
		return nil, errCut
	}
	p.log.entries = append(p.log.entries, entry{time.Now(), commands})
	for _, other := range p.log.peers {
		if other != p && !other.cut {
			other.catchUp()
		}
	}
	return p.catchUp(), nil
}

// catchUp applies what the log has more, and returns what its last entry did.
func (p *peer) catchUp() (results []fsm.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := p.state.Index(); i < uint64(len(p.log.entries)); i++ {
		results = p.state.Apply(i+1, p.log.entries[i].at, p.log.entries[i].commands...)
		p.Applied(p.state, time.Now(), results)
	}
	return results
}

func (p *peer) Ask(ctx context.Context, question []byte) ([]byte, error) {
	if p.isCut() {
		return nil, errCut
	}
	return p.log.peers[0].Answer(ctx, "", question)
}

func (p *peer) Majority(ctx context.Context, question []byte) error {
	yes := 0
	for _, voter := range p.log.peers {
		if (voter == p || !voter.isCut() && !p.isCut()) && voter.Witness(ctx, "", question) {
			yes++
		}
	}
	if yes <= len(p.log.peers)/2 {
		return errCut
	}
	return nil
}

func (p *peer) isCut() bool {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	return p.cut
}

func (p *peer) Await(context.Context, uint64) error { return nil }

func (p *peer) View(look func(*fsm.State)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	look(p.state)
}

func (p *peer) Decisive() error {
	if p.isCut() {
		return errCut
	}
	return nil
}

// leave cuts a peer off from the others.
func (p *peer) leave() {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	p.cut = true
}

// comeBack ends leave: the peer learns what it missed.
func (p *peer) comeBack() {
	p.log.mu.Lock()
	defer p.log.mu.Unlock()
	p.cut = false
	p.catchUp()
}
