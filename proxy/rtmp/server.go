// Package rtmp serves RTMP clients: it answers what comes before publish or
// play itself, finds the origin of the stream, says there what the client said
// here, and relays from then on.
package rtmp

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/rtmp/wire"
)

// Config of a [Server]. Zero values mean the defaults.
type Config struct {
	Opener  proxy.Opener   // finds origins; required
	VHosts  proxy.VHosts   // the virtual hosts that are their own
	Trusted proxy.Networks // whose F3 client address is believed
	NodeID  string         // of this peer, in the hop mark
	Log     *slog.Logger   // default: none

	// Registered returns the origin that serves RTMP at an address to which
	// another redirects; ok is false for any other address. Default: none is.
	Registered func(addr string) (origin lb.Origin, ok bool)
	// TellClient says to which origins the client's address is sent, in an F3
	// header before the handshake. Default: to none.
	TellClient func(origin lb.Origin) bool

	StepTimeout  time.Duration // for each step until publish or play; default 10 s
	SetupTimeout time.Duration // for all of them; default 30 s
	WriteTimeout time.Duration // for a reader that does not read; default 10 s
	IdleTimeout  time.Duration // for a publisher that sends nothing; default 60 s
}

// Server serves RTMP on one listener.
type Server struct {
	config Config
}

// NewServer returns a server.
func NewServer(config Config) *Server {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.Registered == nil {
		config.Registered = func(string) (lb.Origin, bool) { return lb.Origin{}, false }
	}
	if config.TellClient == nil {
		config.TellClient = func(lb.Origin) bool { return false }
	}
	for timeout, standard := range map[*time.Duration]time.Duration{
		&config.StepTimeout: 10 * time.Second, &config.SetupTimeout: 30 * time.Second,
		&config.WriteTimeout: 10 * time.Second, &config.IdleTimeout: 60 * time.Second,
	} {
		if *timeout <= 0 {
			*timeout = standard
		}
	}
	return &Server{config: config}
}

// Serve accepts clients until ln is closed, and returns when the last of them
// has gone. When ctx ends their connections are closed.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		clients.Go(func() { s.serve(ctx, conn) })
	}
}

// serve is one client from accept to close.
func (s *Server) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	end := time.Now().Add(s.config.SetupTimeout)
	client, err := s.accept(conn, end)
	if err == nil {
		err = client.command(ctx, end)
	}
	if err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
		s.config.Log.InfoContext(ctx, "client refused", "kind", "rtmp", "client", proxy.AddrPortOf(conn.RemoteAddr()), "err", err)
	}
}

// accept does the handshake.
func (s *Server) accept(conn net.Conn, end time.Time) (*client, error) {
	if err := conn.SetDeadline(earlier(time.Now().Add(s.config.StepTimeout), end)); err != nil {
		return nil, err
	}
	peer := proxy.AddrPortOf(conn.RemoteAddr())
	told, rw, err := readClientAddress(conn)
	if err != nil {
		return nil, err
	}
	if told.IsValid() && s.config.Trusted.Contains(peer.Addr()) {
		peer = netip.AddrPortFrom(told, 0)
	}
	if err := wire.Accept(rw); err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	c := &client{server: s, conn: wire.NewConn(conn, s.config.WriteTimeout), addr: peer}
	c.conn.SetLimit(wire.MaxCommand)
	return c, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
