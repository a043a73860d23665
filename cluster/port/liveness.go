package port

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// ErrProcessDied means that nothing listens any more where a peer's process
// did: its host is there and refuses the connection.
//
// A firewall that answers with a reset looks the same from one peer. Whoever
// acts on it asks the others first (see [Port.Probe]), and needs a majority.
var ErrProcessDied = errors.New("process of the peer has ended")

const (
	// confirmWithin is how long a process may take to die: its kernel closes one
	// descriptor after another, and the listener may be the last.
	confirmWithin   = time.Second
	minRewatchPause = 50 * time.Millisecond
	maxRewatchPause = 5 * time.Second
)

// serveLiveness holds a connection that says nothing until its end.
func serveLiveness(ctx context.Context, c *Conn) {
	defer context.AfterFunc(ctx, func() { _ = c.Close() })()
	defer func() { _ = c.Close() }()
	_, _ = c.Read(make([]byte, 1))
}

// WatchProcess keeps a connection to a peer's port and reports when the process
// behind it ends: the connection ends by EOF or reset, and the same address
// then refuses a new one. That takes a round trip, where a missing heartbeat
// takes an election timeout.
//
// The channel gets exactly one error and is closed: one matching
// [ErrProcessDied], or the cause of ctx, or net.ErrClosed when the port was
// closed. Any other end of a connection (a timeout, a partition, a reset by
// something in between while the peer still answers) says nothing about the
// process: the watch is taken up again, after a pause. So is one that was
// refused before there was a connection.
func (p *Port) WatchProcess(ctx context.Context, to Target) <-chan error {
	report := make(chan error, 1)
	go func() {
		defer close(report)
		report <- p.keepWatch(ctx, to)
	}()
	return report
}

func (p *Port) keepWatch(ctx context.Context, to Target) error {
	pause := minRewatchPause
	for {
		conn, err := p.Dial(ctx, KindLiveness, to)
		for err == nil {
			pause = minRewatchPause
			p.config.Log.DebugContext(ctx, "liveness link begins", "peer", conn.peer.ID, "addr", conn.peer.Addr)
			conn, err = p.outlive(ctx, conn)
		}
		if errors.Is(err, ErrProcessDied) {
			return err
		}
		p.config.Log.DebugContext(ctx, "liveness link ends", "peer", to.String(), "err", err, "pause", pause)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.done:
			return net.ErrClosed
		case <-time.After(pause):
		}
		pause = min(2*pause, maxRewatchPause)
	}
}

// outlive waits for the end of a connection, and returns the next one when its
// process lives.
func (p *Port) outlive(ctx context.Context, conn *Conn) (*Conn, error) {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	_, err := conn.Read(make([]byte, 1))
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err == nil {
		return nil, errors.New("peer broke the silence")
	}
	if !endedByPeer(err) {
		return nil, err
	}
	return p.confirm(ctx, Target{ID: conn.peer.ID, Addr: conn.peer.Addr})
}

// endedByPeer reports whether a connection was ended from outside, rather than
// by silence or by ourselves.
func endedByPeer(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// confirm returns a connection when a process answers at to.Addr, an IP address
// and port, and an error matching [ErrProcessDied] when the address refuses.
// Other errors leave it open. A process that is about to end may still take the
// connection and then drop it: that is asked again.
func (p *Port) confirm(ctx context.Context, to Target) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, confirmWithin)
	defer cancel()
	for pause := time.Millisecond; ; pause *= 2 {
		conn, err := p.Dial(ctx, KindLiveness, to)
		switch {
		case err == nil:
			return conn, nil
		case errors.Is(err, syscall.ECONNREFUSED):
			return nil, fmt.Errorf("%w: %w", ErrProcessDied, err)
		case !endedByPeer(err):
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
		}
	}
}

// Probe asks once whether a peer's process lives: nil when it answers, an error
// matching [ErrProcessDied] when every address of it refuses. Any other error,
// such as a timeout or a refusal by the handshake, leaves it open. It takes at
// most a second an address.
func (p *Port) Probe(ctx context.Context, to Target) error {
	if to.Addr == "" {
		to.Addr = p.config.Resolve(to.ID)
	}
	host, service, err := net.SplitHostPort(to.Addr)
	if err != nil {
		return fmt.Errorf("probe peer %v: %w", to, err)
	}
	// The dialer would give only the first address's error, and a resolver that
	// refuses the question would look like a peer that does.
	hosts, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return fmt.Errorf("probe peer %v: %s", to, err) //nolint:errorlint // hidden on purpose, see above
	}
	var died, unclear error
	for _, h := range hosts {
		conn, err := p.confirm(ctx, Target{ID: to.ID, Addr: net.JoinHostPort(h, service)})
		switch {
		case err == nil:
			return conn.Close()
		case errors.Is(err, ErrProcessDied):
			died = err
		default:
			unclear = err
		}
	}
	if unclear != nil {
		return unclear
	}
	return died
}
