package rpc_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"srsx/cluster/keyring"
	"srsx/cluster/port"
	"srsx/cluster/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second // for what happens at once on an idle machine

// Kinds of the tests.
const (
	kindEcho = iota
	kindFail
	kindBlock
	kindAddr
	kindUnknown
)

type journal struct {
	mu    sync.Mutex
	lines strings.Builder
}

func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.lines.Write(b)
}

func (j *journal) has(text string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return strings.Contains(j.lines.String(), text)
}

type peer struct {
	*rpc.Exchange
	port *port.Port
	keys *keyring.Ring
	log  *journal
}

func (p *peer) target() port.Target {
	return port.Target{ID: p.port.NodeID(), Addr: p.port.Addr().String()}
}

// start serves an exchange at addr until the test ends.
func start(tb testing.TB, id, addr string, keys *keyring.Ring) *peer {
	tb.Helper()
	log := &journal{}
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	p, err := port.Listen(tb.Context(), addr, port.Config{
		NodeID: id, NodeName: id[:8], ClusterName: "test", Keys: keys, HandshakeTimeout: patience, Log: logger,
	})
	if err != nil {
		tb.Fatal(err)
	}
	x := rpc.New(p, rpc.Config{Log: logger})
	x.Handle(kindEcho, func(_ context.Context, _ port.Peer, payload []byte) ([]byte, error) { return payload, nil })
	x.Handle(kindAddr, func(_ context.Context, from port.Peer, _ []byte) ([]byte, error) { return []byte(from.Addr), nil })
	served := make(chan error, 1)
	go func() { served <- p.Serve(context.Background()) }()
	tb.Cleanup(func() {
		_ = x.Close()
		_ = p.Close()
		if err := <-served; err != nil {
			tb.Errorf("Serve = %v; want nil", err)
		}
	})
	return &peer{Exchange: x, port: p, keys: keys, log: log}
}

func pair(tb testing.TB) (a, b *peer) {
	tb.Helper()
	keys, err := keyring.Open(filepath.Join(tb.TempDir(), "keyring"), keyring.Generate())
	if err != nil {
		tb.Fatal(err)
	}
	return start(tb, uuid.NewString(), "127.0.0.1:0", keys), start(tb, uuid.NewString(), "127.0.0.1:0", keys)
}

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

func call(t *testing.T, from *peer, to port.Target, kind byte, payload string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	reply, err := from.Call(ctx, to, kind, []byte(payload))
	if err != nil {
		t.Fatalf("Call = %v", err)
	}
	return string(reply)
}

func TestAThousandCallsShareOneConnection(t *testing.T) {
	a, b := pair(t)
	var addresses sync.Map
	b.Handle(kindAddr, func(_ context.Context, from port.Peer, payload []byte) ([]byte, error) {
		addresses.Store(from.Addr, true)
		return payload, nil
	})
	var callers sync.WaitGroup
	for i := range 1000 {
		callers.Go(func() {
			for j := range 10 {
				want := binary.BigEndian.AppendUint64(nil, uint64(i*10+j))
				got, err := a.Call(t.Context(), b.target(), kindAddr, want)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("Call(%x) = %x, %v", want, got, err)
					return
				}
			}
		})
	}
	callers.Wait()
	n := 0
	addresses.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("calls came over %d connections; want 1", n)
	}
}

func TestAnswersOvertakeEachOther(t *testing.T) {
	a, b := pair(t)
	release := make(chan struct{})
	b.Handle(kindBlock, func(ctx context.Context, _ port.Peer, _ []byte) ([]byte, error) {
		select {
		case <-release:
			return []byte("late"), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	late := make(chan string)
	go func() {
		reply, err := a.Call(t.Context(), b.target(), kindBlock, nil)
		late <- fmt.Sprint(string(reply), err)
	}()
	for range 100 {
		if got := call(t, a, b.target(), kindEcho, "soon"); got != "soon" {
			t.Errorf("Call = %q; want soon", got)
		}
	}
	close(release)
	if got := <-late; got != "late<nil>" {
		t.Errorf("blocked Call = %s; want late", got)
	}
}

func TestErrorsTravelAsCodeAndText(t *testing.T) {
	a, b := pair(t)
	for name, c := range map[string]struct {
		handler error
		code    rpc.Code
		text    string
	}{
		"of the application": {&rpc.CallError{Code: 17, Text: "not the leader"}, 17, "not the leader"},
		"wrapped":            {fmt.Errorf("x: %w", &rpc.CallError{Code: 18, Text: "no quorum"}), 18, "no quorum"},
		"plain":              {errors.New("disk is full"), rpc.CodeFailed, "disk is full"},
		"long":               {errors.New(strings.Repeat("x", 9000)), rpc.CodeFailed, strings.Repeat("x", 4096)},
	} {
		t.Run(name, func(t *testing.T) {
			b.Handle(kindFail, func(context.Context, port.Peer, []byte) ([]byte, error) { return nil, c.handler })
			_, err := a.Call(t.Context(), b.target(), kindFail, nil)
			var got *rpc.CallError
			if !errors.As(err, &got) || got.Code != c.code || got.Text != c.text {
				t.Errorf("Call = %v; want code %d and %.20q", err, c.code, c.text)
			}
			if errors.Is(err, rpc.ErrNotExecuted) || errors.Is(err, rpc.ErrUnknownOutcome) {
				t.Errorf("%v leaves open whether the handler has run; it has", err)
			}
		})
	}
}

func TestUnknownKindIsNotExecuted(t *testing.T) {
	a, b := pair(t)
	if _, err := a.Call(t.Context(), b.target(), kindUnknown, nil); !errors.Is(err, rpc.ErrNotExecuted) {
		t.Errorf("Call of an unknown kind = %v; want ErrNotExecuted", err)
	}
	if got := call(t, a, b.target(), kindEcho, "x"); got != "x" {
		t.Errorf("Call after it = %q; want x", got)
	}
}

func TestPayloadsAreBounded(t *testing.T) {
	a, b := pair(t)
	largest := bytes.Repeat([]byte{7}, rpc.MaxPayload)
	if got, err := a.Call(t.Context(), b.target(), kindEcho, largest); err != nil || !bytes.Equal(got, largest) {
		t.Errorf("Call with 16 MB = %d bytes, %v; want them back", len(got), err)
	}
	if _, err := a.Call(t.Context(), b.target(), kindEcho, append(largest, 7)); !errors.Is(err, rpc.ErrNotExecuted) {
		t.Errorf("Call with more = %v; want ErrNotExecuted", err)
	}
	b.Handle(kindFail, func(context.Context, port.Peer, []byte) ([]byte, error) { return append(largest, 7), nil })
	var refused *rpc.CallError
	if _, err := a.Call(t.Context(), b.target(), kindFail, nil); !errors.As(err, &refused) {
		t.Errorf("too large reply = %v; want a CallError", err)
	}
	if got := call(t, a, b.target(), kindEcho, "x"); got != "x" {
		t.Errorf("Call after it = %q; want x", got)
	}
}

func TestCancelledCallEndsItsHandler(t *testing.T) {
	a, b := pair(t)
	began, ended := make(chan struct{}), make(chan error, 1)
	b.Handle(kindBlock, func(ctx context.Context, _ port.Peer, _ []byte) ([]byte, error) {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-began
		cancel()
	}()
	_, err := a.Call(ctx, b.target(), kindBlock, nil)
	if !errors.Is(err, rpc.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled Call = %v; want ErrUnknownOutcome and Canceled", err)
	}
	select {
	case got := <-ended:
		if !errors.Is(got, context.Canceled) {
			t.Errorf("handler's context ended by %v; want Canceled", got)
		}
	case <-time.After(patience):
		t.Error("handler goes on after its caller")
	}
}

func TestDeadlineTravels(t *testing.T) {
	a, b := pair(t)
	b.Handle(kindBlock, func(ctx context.Context, _ port.Peer, _ []byte) ([]byte, error) {
		deadline, ok := ctx.Deadline()
		return fmt.Appendf(nil, "%v %v", ok, time.Until(deadline) <= time.Minute+time.Second), nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if got, err := a.Call(ctx, b.target(), kindBlock, nil); err != nil || string(got) != "true true" {
		t.Errorf("handler's deadline: %s, %v; want one within the minute", got, err)
	}
	if got, err := a.Call(t.Context(), b.target(), kindBlock, nil); err != nil || string(got[:5]) != "false" {
		t.Errorf("handler's deadline: %s, %v; want none", got, err)
	}
}

func TestCallWithAnEndedContextIsNotExecuted(t *testing.T) {
	a, b := pair(t)
	call(t, a, b.target(), kindEcho, "x")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := a.Call(ctx, b.target(), kindEcho, nil)
	if !errors.Is(err, rpc.ErrNotExecuted) || !errors.Is(err, context.Canceled) {
		t.Errorf("Call = %v; want ErrNotExecuted and Canceled", err)
	}
}

func TestConnectionServesBothSides(t *testing.T) {
	a, b := pair(t)
	addr := call(t, a, b.target(), kindAddr, "")
	// b has no address of a: it can only use the connection that a has made.
	if got := call(t, b, port.Target{ID: a.port.NodeID()}, kindAddr, ""); got != b.port.Addr().String() {
		t.Errorf("call back came from %s; want %s, over the connection from %s", got, b.port.Addr(), addr)
	}
}

func TestCallByAddressAloneUsesOneConnection(t *testing.T) {
	a, b := pair(t)
	to := port.Target{Addr: b.port.Addr().String()}
	first := call(t, a, to, kindAddr, "")
	if second := call(t, a, to, kindAddr, ""); second != first {
		t.Errorf("second call came from %s; want %s", second, first)
	}
	if byID := call(t, a, port.Target{ID: b.port.NodeID()}, kindAddr, ""); byID != first {
		t.Errorf("call by id came from %s; want %s", byID, first)
	}
}

func TestNobodyThereIsNotExecuted(t *testing.T) {
	a, b := pair(t)
	to := b.target()
	_ = b.port.Close()
	if _, err := a.Call(t.Context(), to, kindEcho, nil); !errors.Is(err, rpc.ErrNotExecuted) {
		t.Errorf("Call = %v; want ErrNotExecuted", err)
	}
	wrong := port.Target{ID: uuid.NewString(), Addr: a.port.Addr().String()}
	if _, err := b.Call(t.Context(), wrong, kindEcho, nil); !errors.Is(err, rpc.ErrNotExecuted) {
		t.Errorf("Call of another node = %v; want ErrNotExecuted", err)
	}
}

func TestRestartedPeerIsDialedAfresh(t *testing.T) {
	a, b := pair(t)
	call(t, a, b.target(), kindEcho, "x")
	id, addr := b.port.NodeID(), b.port.Addr().String()
	_ = b.Close()
	_ = b.port.Close()
	eventually(t, "the end is noticed", func() bool { return a.log.has("rpc connection ended") })
	again := start(t, id, addr, b.keys)
	if got := call(t, a, again.target(), kindEcho, "y"); got != "y" {
		t.Errorf("Call = %q; want y", got)
	}
}

func TestLostAnswerIsAnUnknownOutcomeAndNeverASecondExecution(t *testing.T) {
	a, b := pair(t)
	var runs atomic.Int64
	b.Handle(kindBlock, func(ctx context.Context, _ port.Peer, _ []byte) ([]byte, error) {
		runs.Add(1)
		go func() { _ = b.port.Close() }()
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if _, err := a.Call(t.Context(), b.target(), kindBlock, nil); !errors.Is(err, rpc.ErrUnknownOutcome) || errors.Is(err, rpc.ErrNotExecuted) {
		t.Errorf("Call = %v; want ErrUnknownOutcome alone", err)
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("handler ran %d times; want once", n)
	}
}

func TestCloseEndsCallsAndHandlers(t *testing.T) {
	a, b := pair(t)
	began := make(chan struct{})
	var ended atomic.Bool
	b.Handle(kindBlock, func(ctx context.Context, _ port.Peer, _ []byte) ([]byte, error) {
		close(began)
		<-ctx.Done()
		ended.Store(true)
		return nil, ctx.Err()
	})
	result := make(chan error, 1)
	go func() {
		_, err := a.Call(t.Context(), b.target(), kindBlock, nil)
		result <- err
	}()
	<-began
	_ = b.Close()
	if !ended.Load() {
		t.Error("Close returns before its handlers")
	}
	if err := <-result; !errors.Is(err, rpc.ErrUnknownOutcome) {
		t.Errorf("Call = %v; want ErrUnknownOutcome", err)
	}
	if _, err := b.Call(t.Context(), a.target(), kindEcho, nil); !errors.Is(err, rpc.ErrNotExecuted) {
		t.Errorf("Call of a closed exchange = %v; want ErrNotExecuted", err)
	}
}
