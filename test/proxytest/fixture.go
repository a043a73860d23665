// Package proxytest stands a protocol's server before origins for its tests,
// in memory mode and in the test's own process, and tells whether what comes
// and goes leaves anything behind.
package proxytest

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"srsx/lb"
	"srsx/lb/memlb"
	"srsx/proxy"
)

// Patience bounds every wait of a test: a busy machine is no failure.
const Patience = 30 * time.Second

// Log collects what was logged. It is safe for concurrent use.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write keeps p.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all that was logged so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Lines returns the lines logged so far that hold all texts.
func (l *Log) Lines(texts ...string) []string {
	var found []string
	for line := range strings.Lines(l.String()) {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			found = append(found, line)
		}
	}
	return found
}

// Fixture is a balancer and a router that know some origins.
type Fixture struct {
	Balancer *memlb.Balancer
	Router   *proxy.Router
	Log      *Log
	Logger   *slog.Logger // writes to Log
}

// New runs a router over origins until the test ends.
func New(tb testing.TB, config proxy.RouterConfig, origins ...lb.Origin) *Fixture {
	tb.Helper()
	f := &Fixture{Log: &Log{}, Balancer: memlb.New(memlb.Config{Peer: "p"})}
	f.Logger = slog.New(slog.NewTextHandler(f.Log, nil))
	for _, o := range origins {
		if err := f.Balancer.Register(context.Background(), lb.Registration{Origin: o}); err != nil {
			tb.Fatal(err)
		}
	}
	config.Log = f.Logger
	f.Router = proxy.NewRouter(f.Balancer, config)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = f.Router.Run(ctx) })
	tb.Cleanup(func() {
		cancel()
		running.Wait()
		_ = f.Balancer.Close()
		if tb.Failed() {
			tb.Logf("log:\n%s", f.Log)
		}
	})
	return f
}

// StaticOrigin is an origin as from a configuration; http may be empty.
func StaticOrigin(id lb.OriginID, rtmp, http string) lb.Origin {
	o := lb.Origin{
		ID: id, Incarnation: lb.Incarnation{Server: string(id)}, Static: true, Weight: lb.DefaultWeight,
		Endpoints: lb.Endpoints{RTMP: []string{rtmp}},
	}
	if http != "" {
		o.Endpoints.HTTP = []string{http}
	}
	return o
}

// Serve serves a protocol on a free port until the test ends, and returns its
// address. Then all sessions are closed.
func (f *Fixture) Serve(tb testing.TB, config proxy.ListenConfig, serve func(context.Context, net.Listener) error) string {
	tb.Helper()
	ln, err := proxy.Listen(context.Background(), "127.0.0.1:0", config)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := serve(ctx, ln); err != nil {
			tb.Errorf("Serve: %v", err)
		}
	})
	tb.Cleanup(func() {
		f.Router.CloseAll(proxy.ErrShutdown)
		cancel()
		_ = ln.Close()
		running.Wait()
	})
	return ln.Addr().String()
}

// Sessions returns how many sessions are open.
func (f *Fixture) Sessions() int {
	total, _ := f.Router.Counts()
	return total
}
