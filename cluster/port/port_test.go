package port_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"srsx/cluster/keyring"
	"srsx/cluster/port"
)

const patience = 10 * time.Second // for what happens at once on an idle machine

// journal collects log lines.
type journal struct {
	mu    sync.Mutex
	lines strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// peer is a port that serves until the test ends, and what it has logged.
type peer struct {
	*port.Port
	id  string
	log *journal
}

func (p *peer) target() port.Target { return port.Target{ID: p.id, Addr: p.Addr().String()} }

// start opens a port of the cluster "test" that echoes on RPC connections.
func start(t *testing.T, name string, changes ...func(*port.Config)) *peer {
	t.Helper()
	p := open(t, name, changes...)
	serve(t, p)
	return p
}

func open(t *testing.T, name string, changes ...func(*port.Config)) *peer {
	t.Helper()
	log := &journal{}
	config := port.Config{
		NodeID: uuid.NewString(), NodeName: name, ClusterName: "test",
		HandshakeTimeout: patience, Log: log.logger(),
	}
	for _, change := range changes {
		change(&config)
	}
	p, err := port.Listen(t.Context(), "127.0.0.1:0", config)
	if err != nil {
		t.Fatalf("Listen: %v", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	p.Handle(port.KindRPC, func(_ context.Context, c *port.Conn) {
		defer func() { _ = c.Close() }()
		_, _ = io.Copy(c, c)
	})
	return &peer{Port: p, id: config.NodeID, log: log}
}

func serve(t *testing.T, p *peer) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve = %v; want nil", err)
		}
	})
}

func ring(t *testing.T, keys ...keyring.Key) *keyring.Ring {
	t.Helper()
	r, err := keyring.Open(filepath.Join(t.TempDir(), "keyring"), keys[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys[1:] {
		if err := r.Install(k); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func withKeys(r *keyring.Ring) func(*port.Config) {
	return func(c *port.Config) { c.Keys = r }
}

func withCluster(name, id string) func(*port.Config) {
	return func(c *port.Config) { c.ClusterName, c.ClusterID = name, id }
}

func dial(t *testing.T, from *peer, kind port.Kind, to port.Target) *port.Conn {
	t.Helper()
	c, err := from.Dial(t.Context(), kind, to)
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// requireEcho fails unless text comes back on c.
func requireEcho(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if err := echo(c, text); err != nil {
		t.Fatalf("echo: %v", err)
	}
}

func echo(c net.Conn, text string) error {
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if string(got) != text {
		return errors.New("got other bytes back: " + string(got))
	}
	return nil
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not in %v: %s", patience, what)
		}
		time.Sleep(time.Millisecond) // between two looks
	}
}

// requireEnd fails unless the connection ends on its own.
func requireEnd(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); err == nil || timedOut(err) {
		t.Fatalf("Read = %v; want the connection ended", err)
	}
}

func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// requireRefusal fails unless dialing is refused for a reason that both sides
// name, with the same words.
func requireRefusal(t *testing.T, from, to *peer, kind port.Kind, reason error, words ...string) {
	t.Helper()
	c, err := from.Dial(t.Context(), kind, port.Target{Addr: to.Addr().String()})
	if err == nil {
		_ = c.Close()
		t.Fatalf("Dial = nil; want %v", reason)
	}
	if !errors.Is(err, reason) {
		t.Fatalf("Dial = %v; want %v", err, reason)
	}
	words = append(words, reason.Error())
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("dialer's error lacks %s: %v", w, err)
		}
	}
	eventually(t, "the acceptor logs the same", func() bool {
		for line := range strings.Lines(to.log.String()) {
			if line = strings.ReplaceAll(line, `\"`, `"`); !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
				return true
			}
		}
		return false
	})
}
