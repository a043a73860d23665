// Package relay carries the media of WebRTC sessions between clients and
// origins, byte for byte: STUN, DTLS, SRTP and SRTCP. It routes by what the
// first STUN request of a client says, and believes nothing without integrity.
package relay

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/webrtc/ufrag"
)

// Why the relay ends a session by itself.
const (
	errSilent  = silence("nothing comes from the client any more")
	errNoMedia = silence("no media came after the answer")
)

var (
	errOrigin   = errors.New("origin ended the connection")
	errReplaced = errors.New("origin gave its credentials to a later session")
)

// silence is a time that ran out.
type silence string

func (s silence) Error() string { return string(s) }

// Timeout and Temporary make it a net.Error.
func (silence) Timeout() bool { return true }

// Temporary is false: the session is over.
func (silence) Temporary() bool { return false }

// Finder is what the relay needs from the balancer beside the Opener.
type Finder interface {
	proxy.Origins
	Lookup(s lb.Stream) (lb.Placement, lb.Origin, bool)
	Placements() iter.Seq[lb.PlacementStatus]
}

// Config of a [Relay]. Zero values mean the defaults.
type Config struct {
	Opener proxy.Opener     // required
	Finder Finder           // required
	Key    func() ufrag.Key // required: of the routes in ufrags; may change once the peer is in its cluster

	// Ask puts a question to the other peers and returns the first answer that is
	// not empty, nil when there is none before ctx ends; see [Relay.Answer].
	// Default: there are no others.
	Ask func(ctx context.Context, question []byte) (answer []byte)
	// Ended is told of sessions that this peer ended for a reason of its own or
	// an operator's, so that the origin can be told.
	Ended func(t Ticket)

	IdleTime  time.Duration // without anything from a client until its session ends; default 30 s, as consent (RFC 7675)
	AwaitTime time.Duration // for the first media after the answer; default 30 s
	MaxFlows  int           // at once; default 20000
	Log       *slog.Logger  // default: none
}

// Relay is the media side of a peer. Run has to run, and one of Serve for each
// port. Its methods are safe for concurrent use.
type Relay struct {
	config Config
	drops  drops

	// clock is the time in nanoseconds, as of the last tick: a datagram has no
	// time to ask for a better one.
	clock  atomic.Int64
	prints proxy.Prints
	asking asker
	naming naming
	// holding has a place for each flow that is getting its session.
	holding chan struct{}
	work    sync.WaitGroup  // goroutines of flows and questions
	life    context.Context //nolint:containedctx // of what outlives a datagram; ends with Run
	stop    context.CancelFunc

	// mu guards what follows. Datagrams of known paths only read.
	mu       sync.RWMutex
	paths    map[datagram.Way]*path
	flows    map[string]*flow     // by each ufrag that leads to them
	open     map[*flow]struct{}   // all there are
	opening  map[string]bool      // by id: their origin is being reached
	expected map[string]*expected // by ufrag: signalled, no media yet
	ended    map[string]time.Time // ids of sessions that start no flow until then
	draining bool                 // no flow starts that no session here waits for
}

// New returns a relay.
func New(config Config) *Relay {
	if config.IdleTime <= 0 {
		config.IdleTime = 30 * time.Second
	}
	if config.AwaitTime <= 0 {
		config.AwaitTime = 30 * time.Second
	}
	if config.MaxFlows <= 0 {
		config.MaxFlows = 20_000
	}
	if config.Ended == nil {
		config.Ended = func(Ticket) {}
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	r := &Relay{
		config:   config,
		paths:    make(map[datagram.Way]*path),
		flows:    make(map[string]*flow),
		open:     make(map[*flow]struct{}),
		opening:  make(map[string]bool),
		expected: make(map[string]*expected),
		ended:    make(map[string]time.Time),
	}
	r.asking = newAsker()
	r.holding = make(chan struct{}, maxHolding)
	r.naming.placements = config.Finder.Placements
	r.life, r.stop = context.WithCancel(context.Background())
	r.clock.Store(time.Now().UnixNano())
	return r
}

const (
	tick      = 250 * time.Millisecond // of the clock
	sweepTick = 2                      // ticks between two looks at what is over
)

// Run keeps the time and ends what is over, until ctx ends; then it ends all
// sessions. The ports have to be closed by then, or soon.
func (r *Relay) Run(ctx context.Context) error {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	defer r.shut() //nolint:contextcheck // sessions have contexts of their own
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			r.clock.Store(now.UnixNano())
			if n%sweepTick == 0 {
				r.sweep(now) //nolint:contextcheck // sessions have contexts of their own
			}
		}
	}
}

func (r *Relay) shut() {
	r.mu.Lock()
	r.stop()
	r.mu.Unlock()
	for _, f := range r.all() {
		f.end(proxy.ErrShutdown)
	}
	r.work.Wait()
	r.forgetExpected(func(*expected) (bool, error) { return true, proxy.ErrShutdown })
}

// Drain lets no more sessions come that were signalled at other peers.
func (r *Relay) Drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.draining = true
}

// aside runs a piece of work beside everything else, unless the relay is shut.
func (r *Relay) aside(work func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.life.Err() == nil {
		r.work.Go(work)
	}
}

func (r *Relay) all() []*flow {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*flow, 0, len(r.open))
	for f := range r.open {
		list = append(list, f)
	}
	return list
}

// Flows returns how many sessions have media at this peer.
func (r *Relay) Flows() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.open)
}
