// Package srt serves SRT callers: it answers their handshake until the stream
// id tells which stream they mean, does the handshake with the origin of that
// stream in their name, and relays packets from then on. Socket ids, ciphertext
// and all that the two negotiate pass as they are: AES-GCM authenticates the
// header of a packet, so none can be rewritten.
package srt

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/srt/wire"
)

// maxDatagram is the longest packet that is relayed, in bytes: the largest
// Ethernet frames there are. SRT itself stays below 1500 unless it is configured
// otherwise.
const maxDatagram = 9000

// Config of a [Server]. Zero values mean the defaults.
type Config struct {
	Opener  proxy.Opener // finds origins; required
	VHosts  proxy.VHosts // the virtual hosts that are their own
	Log     *slog.Logger // default: none
	Metrics *Metrics     // default: registered nowhere

	// Patience is how long a caller waits for its answer; default 2.5 s, since
	// libsrt's give up after 3 s.
	Patience time.Duration
	// OriginTimeout is how long an origin may be silent when it is asked, before
	// another is; default 1 s.
	OriginTimeout time.Duration
	// IdleTimeout is how long one end of a flow may be silent; default 30 s.
	// SRT's own ends send something each second and give up earlier, libsrt
	// after 5 s unless it is configured otherwise.
	IdleTimeout time.Duration

	// Handshakes that may wait for an origin: default 10000, and 500 for each
	// IPv4 address or IPv6 /64.
	HalfOpen, HalfOpenPerClient int
}

func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	for timeout, standard := range map[*time.Duration]time.Duration{
		&c.Patience: 2500 * time.Millisecond, &c.OriginTimeout: time.Second, &c.IdleTimeout: 30 * time.Second,
	} {
		if *timeout <= 0 {
			*timeout = standard
		}
	}
	if c.HalfOpen <= 0 {
		c.HalfOpen = 10_000
	}
	if c.HalfOpenPerClient <= 0 {
		c.HalfOpenPerClient = 500
	}
	return c
}

// Server serves SRT on one port.
type Server struct {
	port     *datagram.Socket
	config   Config
	metrics  *Metrics
	refusals *proxy.RefusalLog
	cookies  cookies
	table    *table
	origins  *upstreams
	running  sync.WaitGroup // handshakes, the janitor

	answer []byte // reused: only the reader of the port writes answers into it
}

// NewServer returns a server of port.
func NewServer(port *datagram.Socket, config Config) *Server {
	config = config.withDefaults()
	return &Server{
		port: port, config: config, metrics: config.Metrics,
		refusals: proxy.NewRefusalLog(config.Log, "srt"),
		cookies:  newCookies(),
		table:    newTable(config.HalfOpen, config.HalfOpenPerClient, config.Metrics.halfOpen),
		origins:  newUpstreams(config.Metrics),
		answer:   make([]byte, 0, wire.HandshakeSize),
	}
}

// Serve serves until ctx ends, and closes the port when both ends of every flow
// have been told. It returns an error only when the system takes the port away.
func (s *Server) Serve(ctx context.Context) error {
	defer s.port.Close() //nolint:errcheck // its sockets are gone either way
	ctx, cancel := context.WithCancel(ctx)
	defer s.running.Wait()
	defer cancel()
	s.running.Go(func() { s.expire(ctx) })
	err := s.port.Start(func(p []byte, from datagram.Way, out *datagram.Sender) { s.packet(ctx, p, from, out) })
	if err != nil {
		return fmt.Errorf("port %s: %w", s.port.Addr(), err)
	}
	select {
	case <-ctx.Done():
		s.port.Stop()
	case <-s.port.Done():
		err = fmt.Errorf("port %s: %w", s.port.Addr(), net.ErrClosed)
	}
	for _, f := range s.table.flows() {
		f.end(proxy.ErrShutdown, toClient|toOrigin)
	}
	return err
}

// send sends one packet to a client. What cannot be sent is lost, as on any
// network.
func (s *Server) send(p []byte, to datagram.Way) { _ = s.port.Send(p, to) }

// packet deals with one datagram from a client.
func (s *Server) packet(ctx context.Context, p []byte, from datagram.Way, out *datagram.Sender) {
	if len(p) < wire.HeaderSize || len(p) > maxDatagram {
		s.metrics.drop(dropSize)
		return
	}
	id := wire.Destination(p)
	if id == 0 {
		s.handshake(ctx, p, from)
		return
	}
	f, known := s.table.find(id, from.Remote)
	switch {
	case f != nil:
		f.fromClient(p, out)
	case known: // libsrt takes it for an attack
		s.metrics.drop(dropForeign)
	default:
		s.metrics.drop(dropUnknown)
	}
}

// expire ends flows of which one end has been silent for too long.
func (s *Server) expire(ctx context.Context) {
	const looks = 10 // in the time that an end may be silent
	pace := time.NewTicker(s.config.IdleTimeout / looks)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		for _, f := range s.table.flows() {
			switch {
			case f.quietClient.Add(1) > looks:
				f.end(errClientSilent, toClient|toOrigin)
			case f.quietOrigin.Add(1) > looks:
				f.end(errOriginSilent, toClient|toOrigin)
			}
		}
	}
}
