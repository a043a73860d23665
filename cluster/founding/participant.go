// Package founding lets peers that have no log yet found one cluster together,
// and only one, however they start, crash and lose each other meanwhile: see
// docs/adr/0010-founding-by-promise.md.
package founding

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"srsx/cluster/durable"
)

const (
	tick       = 500 * time.Millisecond
	sendTime   = 5 * time.Second // of one message to one peer
	maxInbox   = 256             // messages that wait; more are lost, which the protocol bears
	maxSending = 16              // messages under way; likewise
)

// Config is what a Participant needs.
type Config struct {
	Self Peer   // ID, Name, Expect and NonVoter
	File string // where its promise is kept

	// View returns what gossip shows now.
	View func() View
	// Send gives a message to the Deliver of another peer, by its id. Messages may
	// be lost, late or doubled.
	Send func(ctx context.Context, to string, message []byte) error
	// Found makes the first log of the cluster, with the peers of the proposal.
	// When it returns nil, View reports this peer as a member, also after a crash.
	// After a crash within, it may be called again with the same proposal.
	Found func(ctx context.Context, p Proposal) error

	Log *slog.Logger
}

// Participant takes part in founding a cluster, or keeps others from founding a
// second one. It is safe for concurrent use.
type Participant struct {
	cfg   Config
	inbox chan delivery

	mu    sync.Mutex
	stand stand // guarded by mu
}

// stand is how far the machine is, for others to read.
type stand struct {
	waiting  string
	mistake  bool
	proposed string // UUID
}

type delivery struct {
	from    string
	message Message
}

// NewParticipant returns one that has done nothing yet.
func NewParticipant(cfg Config) *Participant {
	return &Participant{cfg: cfg, inbox: make(chan delivery, maxInbox)}
}

// Deliver takes in what another peer sent. It does not wait.
func (p *Participant) Deliver(from string, message []byte) {
	m, err := decodeMessage(message)
	if err != nil {
		p.cfg.Log.Debug("unreadable message of a peer", "peer", from, "err", err)
		return
	}
	select {
	case p.inbox <- delivery{from, m}:
	default:
	}
}

// Why says in one line what this peer waits for; empty once it is a member. A
// mistake is one that an operator has to correct.
func (p *Participant) Why() (reason string, mistake bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stand.waiting, p.stand.mistake
}

// Proposed returns the UUID of the cluster that this peer has proposed to found,
// and may have founded, also before a restart; empty: none.
func (p *Participant) Proposed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stand.proposed
}

// Serve takes part until ctx ends, as a member too: others may ask what it holds.
// It returns an error when a promise cannot be kept on disk, or the cluster not
// be founded; the process has to start anew then.
func (p *Participant) Serve(ctx context.Context) error {
	kept, err := readState(p.cfg.File)
	if err != nil {
		return err
	}
	m := NewMachine(p.cfg.Self, kept)
	sending := &outbox{cfg: p.cfg, slots: make(chan struct{}, maxSending)}
	defer sending.tasks.Wait()
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	for {
		out := m.Observe(time.Now(), p.cfg.View())
		if err := p.carryOut(ctx, out, sending); err != nil {
			return err
		}
		p.note(m)
		select {
		case d := <-p.inbox:
			if err := p.carryOut(ctx, m.Receive(time.Now(), d.from, d.message), sending); err != nil {
				return err
			}
		case <-ticks.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// carryOut does what the machine decided, in the order that makes it safe: what
// is said to others is on disk before.
func (p *Participant) carryOut(ctx context.Context, out Effects, sending *outbox) error {
	if out.Save != nil {
		if err := writeState(p.cfg.File, *out.Save); err != nil {
			return err
		}
	}
	if out.Found != nil {
		p.cfg.Log.InfoContext(ctx, "founding the cluster", "cluster", out.Found.Cluster(), "peers", len(out.Found.Peers))
		if err := p.cfg.Found(ctx, *out.Found); err != nil {
			return fmt.Errorf("found cluster: %w", err)
		}
	}
	for _, e := range out.Send {
		sending.send(ctx, e)
	}
	return nil
}

// note keeps how far the machine is.
func (p *Participant) note(m *Machine) {
	var now stand
	now.waiting, now.mistake = m.Waiting()
	now.proposed = m.Proposed()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stand = now
}

// outbox sends without keeping the machine waiting for a peer that is slow.
type outbox struct {
	cfg   Config
	slots chan struct{}
	tasks sync.WaitGroup
}

func (o *outbox) send(ctx context.Context, e Envelope) {
	select {
	case o.slots <- struct{}{}:
	default:
		return
	}
	o.tasks.Go(func() {
		defer func() { <-o.slots }()
		sending, cancel := context.WithTimeout(ctx, sendTime)
		defer cancel()
		if err := o.cfg.Send(sending, e.To, e.encode()); err != nil {
			o.cfg.Log.DebugContext(ctx, "message about founding was lost", "peer", e.To, "err", err)
		}
	})
}

// readState returns what was kept in file, the zero State when there is none. A
// damaged file is an error: without its promise this peer could break it.
func readState(file string) (State, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, nil
	}
	if err != nil {
		return State{}, fmt.Errorf("read promise: %w", err)
	}
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, fmt.Errorf("promise in %s: %w; restore the file, or remove the data directory to join as a new peer", file, err)
	}
	if s.Promise != nil {
		if err := s.Promise.check(); err != nil {
			return State{}, fmt.Errorf("promise in %s: %w; restore the file, or remove the data directory to join as a new peer", file, err)
		}
	}
	return s, nil
}

func writeState(file string, s State) error {
	data, err := json.Marshal(s)
	if err == nil {
		err = durable.WriteFile(file, append(data, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep promise: %w", err)
	}
	return nil
}
