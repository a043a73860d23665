// Package origintest is an origin for tests that registers and answers as SRS
// does, and that can be told to refuse, to be silent, to answer half and to
// die: what a real origin cannot be made to show on demand.
package origintest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib/pkg/amf0"
)

// Config describes an [Origin]. The zero value is a healthy origin that does
// not register.
type Config struct {
	Server   string        // server id, kept over restarts; empty: unique to this origin
	DeviceID string        // as configured in SRS; empty: none
	IP       string        // as registered; empty: that of the Host
	Host     Host          // where it runs; nil: 127.0.0.1
	Register string        // URL of the heartbeat; empty: no heartbeat
	Interval time.Duration // between heartbeats; 0: 9s, as SRS
	FullAddr bool          // register rtmp, http and api as ip:port, not as a port
	Summary  map[string]any
	Script   Script
}

// Host is a machine with one address.
type Host interface {
	IP() string
	Listen(ctx context.Context, network, addr string) (net.Listener, error)
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// loopback is this machine as a [Host].
type loopback struct {
	net.ListenConfig
	net.Dialer
}

// IP returns the address of this machine.
func (*loopback) IP() string { return "127.0.0.1" }

// Stage is a point in the life of an RTMP connection.
type Stage int

// The stages at which a [Script] may strike. Nowhere is the zero value.
const (
	Nowhere      Stage = iota
	AtAccept           // before any byte
	AtHandshake        // S0 and half of S1 are sent
	AtConnect          // connect was read
	AtStream           // createStream was read
	AtStart            // publish or play was read
	AfterSuccess       // the status was sent
)

// Status is a refusal in SRS's form.
type Status struct {
	Code        string
	Description string
	Redirect    string // connect only: the tcUrl of a 302
}

// Script says where an origin differs from a healthy one.
type Script struct {
	SilentAt  Stage // reads on, answers nothing more
	DieAt     Stage // resets the connection
	GarbageAt Stage // answers bytes that are no RTMP

	RefuseConnect *Status
	RefusePublish *Status
	RefusePlay    *Status

	// HTTP takes over a request; false lets the origin answer as usual.
	HTTP func(w http.ResponseWriter, r *http.Request) bool
}

// Seen is one thing that a client did at the origin.
type Seen struct {
	Kind   string // connect, publish, play, http
	Remote string

	// RTMP.
	Connect amf0.Object    // the properties of connect
	Client  netip.AddrPort // from an F3 header, port 0; invalid without one
	TCURL   string
	App     string
	Name    string // stream name as received, with its query

	// HTTP.
	Request *http.Request // without a usable body
}

// Origin is one media server. Its methods are safe for concurrent use.
type Origin struct {
	config Config
	hub    hub
	client http.Client

	mu      sync.Mutex
	script  Script    // guarded by mu
	seen    []Seen    // guarded by mu
	run     *run      // guarded by mu; nil: stopped
	ports   [3]string // guarded by mu; rtmp, http, api: kept over restarts
	beats   int       // guarded by mu
	lastErr error     // guarded by mu; of the heartbeat

	incarnation atomic.Int64
}

// run is one incarnation from start to stop.
type run struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	closes []func()

	mu    sync.Mutex
	conns map[net.Conn]struct{} // guarded by mu
}

// originCount makes server ids unique within a test process.
var originCount atomic.Int64 //nolint:gochecknoglobals // only for unique names

// Start runs an origin on free loopback ports until the test ends.
func Start(tb testing.TB, config Config) *Origin {
	tb.Helper()
	if config.Server == "" {
		config.Server = fmt.Sprintf("vid-%07d", originCount.Add(1))
	}
	if config.Host == nil {
		config.Host = &loopback{}
	}
	if config.IP == "" {
		config.IP = config.Host.IP()
	}
	if config.Interval == 0 {
		config.Interval = 9 * time.Second
	}
	o := &Origin{config: config, script: config.Script, ports: [3]string{"0", "0", "0"}}
	o.client.Transport = &http.Transport{DisableKeepAlives: true, DialContext: config.Host.DialContext} // SRS dials each time
	if err := o.start(); err != nil {
		tb.Fatalf("start origin: %v", err)
	}
	tb.Cleanup(o.Kill)
	return o
}

func (o *Origin) start() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.run != nil {
		return errors.New("origin runs already")
	}
	o.incarnation.Add(1)
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{cancel: cancel, conns: make(map[net.Conn]struct{})}
	serve := []func(*run, net.Listener){o.serveRTMP, o.serveHTTP, o.serveAPI}
	listeners := make([]net.Listener, 0, len(serve))
	for i := range serve {
		ln, err := o.config.Host.Listen(ctx, "tcp", net.JoinHostPort(o.config.Host.IP(), o.ports[i]))
		if err != nil {
			cancel()
			for _, ln := range listeners {
				_ = ln.Close()
			}
			return err
		}
		listeners = append(listeners, ln)
		o.ports[i] = strconv.Itoa(ln.Addr().(*net.TCPAddr).Port) //nolint:errcheck // a TCP listener
		r.closes = append(r.closes, func() { _ = ln.Close() })
	}
	for i, s := range serve {
		r.done.Go(func() { s(r, listeners[i]) })
	}
	if o.config.Register != "" {
		r.done.Go(func() { o.heartbeat(ctx) })
	}
	o.run = r
	return nil
}

// Kill ends the origin as kill -9 does: no word to anybody, connections reset.
func (o *Origin) Kill() {
	o.mu.Lock()
	r := o.run
	o.run = nil
	o.mu.Unlock()
	if r == nil {
		return
	}
	r.cancel()
	for _, c := range r.closes {
		c()
	}
	r.mu.Lock()
	for c := range r.conns {
		reset(c)
	}
	r.mu.Unlock()
	r.done.Wait()
	o.hub.clear()
}

// Restart kills the origin and starts it on the same ports as a new
// incarnation: same server id, new service and pid.
func (o *Origin) Restart(tb testing.TB) {
	tb.Helper()
	o.Kill()
	if err := o.start(); err != nil {
		tb.Fatalf("restart origin: %v", err)
	}
}

// reset closes c so that the other side sees a reset, not an orderly end.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// track keeps c for Kill until the returned function is called.
func (r *run) track(c net.Conn) (forget func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[c] = struct{}{}
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, c)
	}
}

// Behave replaces the script for what comes from now on.
func (o *Origin) Behave(s Script) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.script = s
}

func (o *Origin) behaviour() Script {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.script
}

func (o *Origin) saw(s Seen) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, s)
}

// Seen returns what clients of one kind did so far, oldest first.
func (o *Origin) Seen(kind string) []Seen {
	o.mu.Lock()
	defer o.mu.Unlock()
	var of []Seen
	for _, s := range o.seen {
		if s.Kind == kind {
			of = append(of, s)
		}
	}
	return of
}

// Server returns the server id.
func (o *Origin) Server() string { return o.config.Server }

// Service returns the service id of this incarnation, PID its process id.
func (o *Origin) Service() string { return fmt.Sprintf("s%07d", o.incarnation.Load()) }

// PID returns the process id of this incarnation, as registered.
func (o *Origin) PID() string { return strconv.FormatInt(20000+o.incarnation.Load(), 10) }

// RTMP returns host:port of the RTMP listener.
func (o *Origin) RTMP() string { return o.addr(0) }

// HTTP returns host:port of the media HTTP listener.
func (o *Origin) HTTP() string { return o.addr(1) }

// API returns host:port of the HTTP API listener.
func (o *Origin) API() string { return o.addr(2) }

func (o *Origin) addr(i int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return net.JoinHostPort(o.config.Host.IP(), o.ports[i])
}

// Publishing reports whether app/name has a publisher here.
func (o *Origin) Publishing(key string) bool { return o.hub.publishing(key) }

// Streams returns the number of streams that are published here.
func (o *Origin) Streams() int { return o.hub.count() }
