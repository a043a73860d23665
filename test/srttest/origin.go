// Package srttest is what the tests of SRT need besides libsrt's own programs:
// an origin made of gosrt, a second implementation of the protocol, callers,
// and a network that loses packets.
package srttest

import (
	"context"
	"net"
	"sync"
	"testing"

	gosrt "github.com/datarhei/gosrt"
)

// OriginConfig describes an [Origin].
type OriginConfig struct {
	Addr       string // host:port; empty: a free port of loopback
	Passphrase string // that callers need; empty: none is asked for
	// Reject returns the wire's handshake type with which to refuse a stream
	// id, 0 to accept it. nil accepts all.
	Reject func(streamID string) uint32
}

// Seen is a caller at an [Origin].
type Seen struct {
	StreamID  string
	Encrypted bool
	Remote    string
}

// Origin is an SRT server that gives what is published under a path to those
// who request the path: stream ids are #!::r=PATH,m=publish and the like. It
// also accepts TCP connections and closes them, as liveness is probed over TCP.
type Origin struct {
	config OriginConfig
	srt    gosrt.Listener
	tcp    net.Listener
	done   sync.WaitGroup

	mu      sync.Mutex
	streams map[string]gosrt.PubSub // guarded by mu; those that are published
	seen    []Seen                  // guarded by mu
}

// StartOrigin runs an origin until the test ends.
func StartOrigin(tb testing.TB, config OriginConfig) *Origin {
	tb.Helper()
	if config.Addr == "" {
		config.Addr = "127.0.0.1:0"
	}
	o := &Origin{config: config, streams: make(map[string]gosrt.PubSub)}
	var err error
	if o.srt, err = gosrt.Listen("srt", config.Addr, gosrt.DefaultConfig()); err != nil {
		tb.Fatalf("start origin: %v", err)
	}
	host, _, err := net.SplitHostPort(config.Addr)
	if err != nil {
		tb.Fatalf("start origin: %v", err)
	}
	if o.tcp, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", net.JoinHostPort(host, "0")); err != nil {
		tb.Fatalf("start origin: %v", err)
	}
	o.done.Go(o.serve)
	o.done.Go(o.acceptTCP)
	tb.Cleanup(o.Close)
	return o
}

// Close ends the origin and tells its callers.
func (o *Origin) Close() {
	o.srt.Close()
	_ = o.tcp.Close()
	o.done.Wait()
}

// Addr returns host:port of the SRT port.
func (o *Origin) Addr() string { return o.srt.Addr().String() }

// TCP returns host:port at which the origin accepts TCP connections.
func (o *Origin) TCP() string { return o.tcp.Addr().String() }

// Seen returns the callers so far, oldest first.
func (o *Origin) Seen() []Seen {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]Seen(nil), o.seen...)
}

// Publishing reports whether a path is published.
func (o *Origin) Publishing(path string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.streams[path] != nil
}

func (o *Origin) acceptTCP() {
	for {
		conn, err := o.tcp.Accept()
		if err != nil {
			return
		}
		_ = conn.Close()
	}
}

func (o *Origin) serve() {
	for {
		request, err := o.srt.Accept2()
		if err != nil {
			return
		}
		o.done.Go(func() { o.caller(request) })
	}
}

func (o *Origin) caller(request gosrt.ConnRequest) {
	id := request.StreamId()
	o.mu.Lock()
	o.seen = append(o.seen, Seen{StreamID: id, Encrypted: request.IsEncrypted(), Remote: request.RemoteAddr().String()})
	o.mu.Unlock()
	if o.config.Reject != nil {
		if kind := o.config.Reject(id); kind != 0 {
			request.Reject(gosrt.RejectionReason(kind))
			return
		}
	}
	if o.config.Passphrase != "" {
		if err := request.SetPassphrase(o.config.Passphrase); err != nil {
			request.Reject(gosrt.REJ_BADSECRET)
			return
		}
	}
	conn, err := request.Accept()
	if err != nil {
		return
	}
	defer conn.Close() //nolint:errcheck // it has ended either way
	path, publish := pathOf(id)
	if publish {
		o.publish(path, conn)
		return
	}
	o.mu.Lock()
	stream := o.streams[path]
	o.mu.Unlock()
	if stream != nil {
		_ = stream.Subscribe(conn)
	}
}

func (o *Origin) publish(path string, conn gosrt.Conn) {
	stream := gosrt.NewPubSub(gosrt.PubSubConfig{})
	o.mu.Lock()
	taken := o.streams[path] != nil
	if !taken {
		o.streams[path] = stream
	}
	o.mu.Unlock()
	if !taken {
		_ = stream.Publish(conn)
		o.mu.Lock()
		delete(o.streams, path)
		o.mu.Unlock()
	}
}
