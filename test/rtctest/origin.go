// Package rtctest has WebRTC origins and clients for tests. An origin signals as
// SRS does and is either as SRS: ICE-lite, credentials that the caller may choose,
// sessions told apart by address; or as most others are: full ICE, credentials
// of its own.
package rtctest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Config describes an [Origin]. The zero value is as SRS and does not register.
type Config struct {
	Server   string // server id; empty: unique to this origin
	Register string // URL of the heartbeat; empty: no heartbeat
	IP       string // where it listens; empty: 127.0.0.1

	// Full makes an origin with full ICE that ignores ice-ufrag and ice-pwd.
	Full bool
	// OwnCredentials makes one as SRS ignore ice-ufrag and ice-pwd, as an older
	// release does.
	OwnCredentials bool
	// WHIP and WHEP are its paths, with {app} and {stream}; empty: SRS's own, and
	// SRS's older API. A resource is a segment below.
	WHIP, WHEP string
	// TCPOnly makes one as SRS register its media port for TCP alone.
	TCPOnly bool
	// Bearer is the token that each request has to bring; empty: none.
	Bearer string
	// Links are sent as Link headers.
	Links []string
}

// Seen is a request that came to the API.
type Seen struct {
	Method string
	URI    string
	Header http.Header
	Body   string
}

// Origin is one media server. Its methods are safe for concurrent use.
type Origin struct {
	config Config
	engine engine
	paths  map[*regexp.Regexp]bool // of WHIP and WHEP; whether it publishes
	hub    hub
	api    net.Listener
	server http.Server
	udp    *net.UDPConn
	tcp    net.Listener
	ends   context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	seen     []Seen              // guarded by mu
	sessions map[string]*session // guarded by mu; by id
	silent   bool                // guarded by mu
}

// engine is what kinds of origins do differently.
type engine interface {
	// answer begins a session for an offer.
	answer(s *session, offer, ufrag, password string) (answer string, err error)
	// restart gives a session new credentials for a fragment of an offer.
	restart(s *session, fragment string) (answer string, err error)
	close(s *session)
}

// session is one client's at an origin.
type session struct {
	id      string // server's and client's ufrag
	token   string
	stream  string
	publish bool
	origin  *Origin
	state   any // the engine's
}

var count atomic.Int64 //nolint:gochecknoglobals // only for unique names

// Start runs an origin on free ports until the test ends.
func Start(tb testing.TB, config Config) *Origin {
	tb.Helper()
	if config.Server == "" {
		config.Server = fmt.Sprintf("vid-rtc%04d", count.Add(1))
	}
	if config.IP == "" {
		config.IP = "127.0.0.1"
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := &Origin{config: config, ends: cancel, sessions: make(map[string]*session), paths: pathsOf(config)}
	o.hub.rooms = make(map[string]*room)
	if err := o.listen(ctx); err != nil {
		tb.Fatalf("start origin: %v", err)
	}
	if config.Full {
		o.engine = newFull(tb, o)
	} else {
		o.engine = newLite(tb, o)
	}
	o.server.Handler = http.HandlerFunc(o.serve)
	o.server.ReadHeaderTimeout = 10 * time.Second
	o.done.Go(func() { _ = o.server.Serve(o.api) })
	if config.Register != "" {
		o.done.Go(func() { o.heartbeat(ctx) })
	}
	tb.Cleanup(o.Kill)
	return o
}

// listen opens the API, and UDP and TCP on one port.
func (o *Origin) listen(ctx context.Context) (err error) {
	var lc net.ListenConfig
	if o.api, err = lc.Listen(ctx, "tcp", net.JoinHostPort(o.config.IP, "0")); err != nil {
		return err
	}
	for range 20 {
		if o.tcp, err = lc.Listen(ctx, "tcp", net.JoinHostPort(o.config.IP, "0")); err != nil {
			return err
		}
		o.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addrPort(o.tcp.Addr())))
		if err == nil {
			return nil
		}
		_ = o.tcp.Close()
	}
	return err
}

// Kill ends the origin without a word to anybody.
func (o *Origin) Kill() {
	o.ends()
	_ = o.server.Close()
	_ = o.udp.Close()
	_ = o.tcp.Close()
	o.mu.Lock()
	sessions := o.sessions
	o.sessions = make(map[string]*session)
	o.mu.Unlock()
	for _, s := range sessions {
		o.hub.leave(s)
		o.engine.close(s)
	}
	o.done.Wait()
}

// Silence has the media port take everything and answer nothing, or end that.
func (o *Origin) Silence(on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.silent = on
}

func (o *Origin) isSilent() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.silent
}

// API is host:port of the HTTP API.
func (o *Origin) API() string { return o.api.Addr().String() }

// Media is host:port of the media, over UDP and TCP.
func (o *Origin) Media() string { return o.udp.LocalAddr().String() }

// Server is the server id.
func (o *Origin) Server() string { return o.config.Server }

// RTC is the media endpoint as it is registered.
func (o *Origin) RTC() string {
	if o.config.TCPOnly {
		return "tcp://" + o.Media()
	}
	return "udp://" + o.Media()
}

// Seen returns the requests so far of one method.
func (o *Origin) Seen(method string) []Seen {
	o.mu.Lock()
	defer o.mu.Unlock()
	var of []Seen
	for _, s := range o.seen {
		if s.Method == method {
			of = append(of, s)
		}
	}
	return of
}

// Sessions returns how many sessions there are.
func (o *Origin) Sessions() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.sessions)
}

// heartbeat registers as SRS does until ctx ends, and more often.
func (o *Origin) heartbeat(ctx context.Context) {
	port := func(addr string) string {
		_, p, _ := net.SplitHostPort(addr)
		return p
	}
	body, err := json.Marshal(map[string]any{
		"ip": o.config.IP, "server": o.config.Server, "service": "s1", "pid": "1",
		"rtmp": []string{port(o.tcp.Addr().String())}, "api": []string{port(o.API())}, "rtc": []string{o.RTC()},
	})
	if err != nil {
		panic(err)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, o.config.Register, bytes.NewReader(body))
		if err != nil {
			panic(err)
		}
		request.Header.Set("Content-Type", "application/json")
		if response, err := client.Do(request); err == nil {
			_, _ = io.Copy(io.Discard, response.Body)
			_ = response.Body.Close()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

func atoi(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}
