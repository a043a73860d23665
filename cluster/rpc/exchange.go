// Package rpc carries requests and their answers between the peers of a
// cluster, many at once over one connection a pair of peers.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"srsx/cluster/port"
)

// Handler answers requests of one kind. ctx ends with the asker's patience, or
// with the connection, and then it should return. The payload is the handler's own, and so is the reply
// the exchange's. See [CallError] for its errors.
type Handler func(ctx context.Context, from port.Peer, payload []byte) (reply []byte, err error)

// Config of an exchange. Zero values mean the defaults.
type Config struct {
	// Beat is how often a side that has nothing to say tells that it is alive;
	// default 1 s. After four times that a silent peer counts as dead.
	Beat time.Duration
	Log  *slog.Logger // default: none
}

// Exchange is the calls of this peer, both ways. It is safe for concurrent use.
type Exchange struct {
	port     *port.Port
	beat     time.Duration
	log      *slog.Logger
	handlers [256]atomic.Pointer[Handler]

	life context.Context //nolint:containedctx // ends with Close and with no call: dials are shared
	stop context.CancelCauseFunc
	work sync.WaitGroup // dials and links

	mu      sync.Mutex
	peers   map[string]*remote // guarded by mu, as all below; by node id
	byAddr  map[string]*link   // for targets without an id
	dialing map[port.Target]*dialing
	closed  bool
}

// New makes the exchange of a port, before the port serves.
func New(p *port.Port, config Config) *Exchange {
	x := &Exchange{
		port: p, beat: config.Beat, log: config.Log,
		peers:   make(map[string]*remote),
		byAddr:  make(map[string]*link),
		dialing: make(map[port.Target]*dialing),
	}
	if x.beat <= 0 {
		x.beat = time.Second
	}
	if x.log == nil {
		x.log = slog.New(slog.DiscardHandler)
	}
	x.life, x.stop = context.WithCancelCause(context.Background())
	p.Handle(port.KindRPC, func(ctx context.Context, c *port.Conn) {
		if l := x.begin(c, port.Target{}); l != nil {
			x.run(ctx, l)
		}
	})
	return x
}

// Handle has h called for each request of a kind, in a goroutine of its own.
func (x *Exchange) Handle(kind byte, h Handler) { x.handlers[kind].Store(&h) }

// Call asks a peer and returns its reply. It uses the connection there is,
// whichever side made it; without one it dials. When the connection turns out
// broken before the request has gone out, it tries one other, and it never
// sends a request twice.
//
// The error is a [*CallError] when the handler returned one; else it matches
// [ErrNotExecuted] or [ErrUnknownOutcome], and the cause of ctx when that ended.
// The payload, up to MaxPayload, may be reused when Call returns.
func (x *Exchange) Call(ctx context.Context, to port.Target, kind byte, payload []byte) ([]byte, error) {
	reply, err := x.call(ctx, to, request{kind: kind, payload: payload})
	if err != nil {
		return nil, fmt.Errorf("call %v: %w", to, err)
	}
	return reply, nil
}

func (x *Exchange) call(ctx context.Context, to port.Target, r request) ([]byte, error) {
	if len(r.payload) > MaxPayload {
		return nil, notExecuted(fmt.Errorf("it has %d bytes; at most %d can be sent", len(r.payload), MaxPayload))
	}
	for again := true; ; again = false {
		l, err := x.link(ctx, to)
		if err != nil {
			return nil, notExecuted(err)
		}
		reply, err := l.call(ctx, r)
		if again && errors.Is(err, errLinkEnded) && errors.Is(err, ErrNotExecuted) {
			continue // an ended link is not found again
		}
		return reply, err
	}
}

// Close ends every link and waits for the handlers.
func (x *Exchange) Close() error {
	x.port.Handle(port.KindRPC, nil)
	x.stop(errClosed)
	x.mu.Lock()
	x.closed = true
	for _, far := range x.peers {
		for _, l := range far.links {
			l.end(errClosed)
		}
	}
	x.mu.Unlock()
	x.work.Wait()
	return nil
}
