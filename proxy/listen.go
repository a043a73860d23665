package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// ListenConfig says whom a listener serves. Zero values mean the defaults, a
// negative limit none.
type ListenConfig struct {
	Name    string   // in errors, logs and metrics: rtmp, http, ...
	Trusted Networks // may send a PROXY protocol header, version 1 or 2

	MaxConns int // open at once; default 50000
	// MaxConnsPerAddr is for each address that connects to us; default 10000.
	// It does not hold for trusted ones: they speak for many clients.
	MaxConnsPerAddr int

	// HeaderTimeout is how long a trusted peer may take for the first byte and
	// the header; default 10 s. One that sends none is a client itself.
	HeaderTimeout time.Duration
	// UserTimeout is how long sent bytes may stay unacknowledged before the
	// client counts as vanished; default 30 s. Linux only.
	UserTimeout time.Duration

	Log     *slog.Logger // default: none
	Metrics *Metrics     // default: registered nowhere
}

func (c ListenConfig) withDefaults() ListenConfig {
	c.MaxConns = orDefault(c.MaxConns, 50_000)
	c.MaxConnsPerAddr = orDefault(c.MaxConnsPerAddr, 10_000)
	if c.HeaderTimeout <= 0 {
		c.HeaderTimeout = 10 * time.Second
	}
	if c.UserTimeout <= 0 {
		c.UserTimeout = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Metrics == nil {
		c.Metrics = NewMetrics(nil)
	}
	return c
}

// Listen opens a TCP listener for clients. addr is host:port or a port alone.
// Its connections' RemoteAddr is the real client; from a trusted network it
// may wait for the PROXY header, so ask in the connection's own goroutine.
// Accept returns an error only when the listener is closed or the system
// took it away. The error of Listen reads "listen rtmp 0.0.0.0:1935: address already in use".
func Listen(ctx context.Context, addr string, config ListenConfig) (net.Listener, error) {
	config = config.withDefaults()
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	// Keepalive is set by tune, with the rest.
	tcp, err := (&net.ListenConfig{KeepAlive: -1}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen %s %s: %w", config.Name, addr, bareError(err))
	}
	return &listener{
		Listener: tcp,
		config:   config,
		done:     make(chan struct{}),
		byAddr:   make(map[netip.Addr]int),
	}, nil
}

// ListenUDP opens a UDP port for clients; addr and the error are as for Listen.
func ListenUDP(ctx context.Context, addr, name string) (*net.UDPConn, error) {
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	packets, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen %s %s: %w", name, addr, bareError(err))
	}
	conn, ok := packets.(*net.UDPConn)
	if !ok {
		_ = packets.Close()
		return nil, fmt.Errorf("listen %s %s: no UDP", name, addr)
	}
	return conn, nil
}

// bareError is the system's own words without "listen tcp ...: bind:".
func bareError(err error) error {
	if opErr := (*net.OpError)(nil); errors.As(err, &opErr) {
		err = opErr.Err
	}
	if callErr := (*os.SyscallError)(nil); errors.As(err, &callErr) {
		err = callErr.Err
	}
	return err
}

// keepAlive finds a peer that vanished while nothing is sent to it, such as a
// publisher: 15 s of silence, then three probes.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}
}

type listener struct {
	net.Listener
	config ListenConfig
	close  sync.Once
	done   chan struct{}

	// mu guards what follows.
	mu     sync.Mutex
	open   int
	byAddr map[netip.Addr]int // untrusted ones only
}

// maxAcceptPause bounds the pause after an error that will pass, such as being
// out of descriptors.
const maxAcceptPause = time.Second

func (l *listener) Accept() (net.Conn, error) {
	pause := 5 * time.Millisecond
	for {
		conn, err := l.Listener.Accept()
		if err == nil {
			if wrapped := l.admit(conn); wrapped != nil {
				return wrapped, nil
			}
			continue
		}
		if !passes(err) {
			return nil, err
		}
		l.config.Metrics.acceptErrors.WithLabelValues(l.config.Name).Inc()
		l.config.Log.Warn("accept failed", "listener", l.config.Name, "err", err, "pause", pause)
		select {
		case <-l.done:
			return nil, net.ErrClosed
		case <-time.After(pause):
		}
		pause = min(2*pause, maxAcceptPause)
	}
}

// passes reports whether accepting may succeed again: not when the socket is
// closed or listens no more (accept(2)).
func passes(err error) bool {
	for _, last := range []error{net.ErrClosed, syscall.EINVAL, syscall.EBADF, syscall.ENOTSOCK, syscall.EOPNOTSUPP} {
		if errors.Is(err, last) {
			return false
		}
	}
	return true
}

func (l *listener) Close() error {
	l.close.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// admit counts and prepares a connection. Over a limit it closes it and
// returns nil.
func (l *listener) admit(raw net.Conn) net.Conn {
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		_ = raw.Close()
		return nil
	}
	from := AddrPortOf(tcp.RemoteAddr()).Addr()
	trusted := l.config.Trusted.Contains(from)
	if limit := l.enter(from, trusted); limit != "" {
		l.config.Metrics.rejectedConns.WithLabelValues(l.config.Name, limit).Inc()
		// No lingering: what a flood leaves behind is the kernel's memory.
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
		return nil
	}
	conn := &clientConn{TCPConn: tcp, leave: func() { l.leave(from, trusted) }}
	if err := tune(tcp, l.config.UserTimeout); err != nil {
		l.config.Log.Debug("tune connection", "listener", l.config.Name, "err", err)
	}
	if !trusted {
		return conn
	}
	return proxyproto.NewConn(conn,
		proxyproto.WithPolicy(proxyproto.USE),
		proxyproto.SetReadHeaderTimeout(l.config.HeaderTimeout))
}

// enter counts a connection, or returns the name of the limit that forbids it.
func (l *listener) enter(from netip.Addr, trusted bool) string { //nolint:revive // trusted is a fact of the peer, not a mode
	l.mu.Lock()
	defer l.mu.Unlock()
	if exceeds(l.open, l.config.MaxConns) {
		return "total"
	}
	if !trusted {
		if exceeds(l.byAddr[from], l.config.MaxConnsPerAddr) {
			return "address"
		}
		l.byAddr[from]++
	}
	l.open++
	l.config.Metrics.openConns.WithLabelValues(l.config.Name).Inc()
	return ""
}

func (l *listener) leave(from netip.Addr, trusted bool) { //nolint:revive // see enter
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.config.Metrics.openConns.WithLabelValues(l.config.Name).Dec()
	if trusted {
		return
	}
	l.byAddr[from]--
	if l.byAddr[from] == 0 {
		delete(l.byAddr, from)
	}
}

// clientConn gives its place back when closed. The TCP connection is embedded
// as such, so that its ReadFrom and WriteTo stay in reach.
type clientConn struct {
	*net.TCPConn
	left  atomic.Bool
	leave func()
}

func (c *clientConn) Close() error {
	if c.left.CompareAndSwap(false, true) {
		c.leave()
	}
	return c.TCPConn.Close()
}

// TCPConn returns the TCP connection below one that [Listen] accepted, below
// TLS, or one that is such itself; false when there is none. Close the outer
// one. Bytes that the outer one read ahead, at most a PROXY header's buffer,
// come only from its Read: below TLS never read, and else not before the
// protocol's handshake has been read through the outer one.
func TCPConn(conn net.Conn) (*net.TCPConn, bool) {
	for {
		switch c := conn.(type) {
		case *net.TCPConn:
			return c, true
		case *clientConn:
			return c.TCPConn, true
		case *proxyproto.Conn:
			conn = c.Raw()
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		default:
			return nil, false
		}
	}
}
