package srt

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/srt/wire"
)

// Why a flow ended, beside what the session knows.
var (
	errOriginEnded  = errors.New("origin ended the connection")
	errOriginGone   = errors.New("origin's port is closed")
	errClientSilent = errors.New("client is silent")
	errOriginSilent = errors.New("origin is silent")
)

// ends is a set of the two ends of a flow.
type ends uint8

const (
	toClient ends = 1 << iota
	toOrigin
)

// flow is one connection between a client and an origin, of which each knows
// only us. While it is half-open the goroutine of open owns it; once up, the
// readers of the port and of the upstream carry its packets and whoever finds
// its end ends it.
type flow struct {
	server  *Server
	who     caller // the client's socket
	client  datagram.Way
	request proxy.Request
	session proxy.Session // set before the origin is asked

	hello      wire.Handshake // the client's conclusion
	conclusion []byte         // the same, whole
	arrived    time.Time

	// mu guards what follows. Once the flow is up only the reader of the
	// upstream's answers to late copies of the conclusion needs it.
	mu      sync.Mutex
	attempt *attempt  // nil: no origin is asked
	reply   []byte    // the origin's answer as the client got it
	replied time.Time // when

	up       atomic.Bool // what follows is set, and stays
	at       *upstream
	originID uint32
	sameID   *flow // guarded by the table

	over                     atomic.Bool
	quietClient, quietOrigin atomic.Int32 // looks of expire since the last packet
}

// fromClient relays a packet to the origin. The flow is up.
func (f *flow) fromClient(p []byte, out *datagram.Sender) {
	if f.quietClient.Load() != 0 {
		f.quietClient.Store(0)
	}
	if !wire.IsControl(p) {
		f.session.Count(int64(len(p)-wire.HeaderSize), 0)
	}
	out.Queue(f.at.socket, p, datagram.Way{})
	if wire.IsA(p, wire.ControlShutdown) {
		out.Flush() // the socket may be closed now
		f.end(nil, 0)
	}
}

// fromOrigin relays a packet to the client, or takes it for an answer while the
// flow is half-open.
func (f *flow) fromOrigin(u *upstream, p []byte, out *datagram.Sender) {
	if !f.up.Load() {
		f.answered(u, p)
		return
	}
	if f.quietOrigin.Load() != 0 {
		f.quietOrigin.Store(0)
	}
	switch {
	case !wire.IsControl(p):
		f.session.Count(0, int64(len(p)-wire.HeaderSize))
	case wire.IsA(p, wire.ControlHandshake):
		return // a copy of its answer: the client has that, with our cookie
	}
	out.Queue(f.server.port, p, f.client)
	if wire.IsA(p, wire.ControlShutdown) {
		f.end(errOriginEnded, 0)
	}
}

// end ends a flow that is up, and tells those ends that do not know. Only the
// first call counts.
func (f *flow) end(err error, tell ends) {
	if !f.over.CompareAndSwap(false, true) {
		return
	}
	// First, so that no packet follows the shutdown.
	f.server.table.remove(f, refusal{}, time.Now())
	if tell&toClient != 0 {
		f.server.send(wire.AppendShutdown(nil, f.who.id), f.client)
	}
	if tell&toOrigin != 0 {
		f.at.send(wire.AppendShutdown(nil, f.originID))
	}
	f.session.End(err)
	f.server.origins.give(f.at, f)
}

// gone says that the origin's port is closed.
func (f *flow) gone(u *upstream, err error) {
	if f.up.Load() {
		f.end(errOriginGone, toClient)
		return
	}
	f.tell(u, answer{err: fmt.Errorf("%w: %w", proxy.ErrUnreachable, err)})
}

// answerAgain answers a copy of the conclusion as the first was.
func (f *flow) answerAgain(h wire.Handshake, now time.Time) {
	f.mu.Lock()
	reply, replied := slices.Clone(f.reply), f.replied
	f.mu.Unlock()
	if len(reply) == 0 || h.FirstPacket != f.hello.FirstPacket {
		return
	}
	wire.Delay(reply, now.Sub(replied))
	f.server.send(reply, f.client)
}

// open finds the origin and does the handshake there, or refuses the caller.
func (f *flow) open(ctx context.Context) {
	s := f.server
	defer s.table.settle(f)
	session, err := s.config.Opener.Open(ctx, f.request)
	if err != nil {
		s.refusals.Note(f.request.Client, err)
		f.refuse(err)
		return
	}
	f.session = session
	if err = f.reach(session.Context()); err != nil { //nolint:contextcheck // the session's context comes from ctx
		session.End(err) // first: a caller may come again as soon as it knows
		f.refuse(err)
		return
	}
	context.AfterFunc(session.Context(), func() { f.end(context.Cause(session.Context()), toClient|toOrigin) }) //nolint:contextcheck // it is over
}

// refuse tells the caller why there is no flow.
func (f *flow) refuse(err error) {
	reason := reasonOf(err)
	f.server.table.remove(f, refusal{rejected: true, reason: reason}, time.Now())
	f.server.reject(f.hello, f.client, reason)
}
