package rpc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"srsx/cluster/port"
)

// stub is a connection whose writes the test decides and whose reads wait for
// its end.
type stub struct {
	net.Conn
	write  func([]byte) (int, error)
	closed chan struct{}
	once   sync.Once
}

func newStub(write func([]byte) (int, error)) *stub {
	return &stub{write: write, closed: make(chan struct{})}
}

func (s *stub) Read([]byte) (int, error) {
	<-s.closed
	return 0, io.EOF
}

func (s *stub) Write(b []byte) (int, error)      { return s.write(b) }
func (s *stub) SetReadDeadline(time.Time) error  { return nil }
func (s *stub) SetWriteDeadline(time.Time) error { return nil }
func (s *stub) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// runLink runs a link over a connection until the test ends.
func runLink(t *testing.T, conn net.Conn, handle Handler) *link {
	t.Helper()
	l := newLink(conn, port.Peer{Name: "far"}, time.Second, new(atomic.Int64))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = l.run(context.Background(), func(byte) Handler { return handle })
	}()
	t.Cleanup(func() {
		l.end(errClosed)
		<-ended
	})
	return l
}

// requests returns the payloads of the whole request frames in a stream.
func requests(stream []byte) []string {
	var all []string
	for r := bytes.NewReader(stream); ; {
		f, err := readFrame(r)
		if err != nil {
			return all
		}
		if q, err := parseRequest(f.body); err == nil && f.typ == typeRequest {
			all = append(all, string(q.payload))
		}
	}
}

func TestWhatWaitsGoesOutInOneWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var writes [][]string
		release := make(chan struct{})
		l := runLink(t, newStub(func(b []byte) (int, error) {
			writes = append(writes, requests(b))
			<-release
			return len(b), nil
		}), nil)
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		ask := func(payload string) {
			callers.Go(func() { _, _ = l.call(ctx, request{payload: []byte(payload)}) })
			synctest.Wait()
		}
		ask("first")
		for range 100 {
			ask("waits")
		}
		close(release)
		synctest.Wait()
		if len(writes) != 2 || len(writes[0]) != 1 || len(writes[1]) != 100 {
			t.Errorf("wrote %v; want the first alone and the hundred together", writes)
		}
		cancel()
		callers.Wait()
	})
}

func TestABatchIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		release := make(chan struct{})
		l := runLink(t, newStub(func(b []byte) (int, error) {
			sizes = append(sizes, len(b))
			<-release
			return len(b), nil
		}), nil)
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		for range 21 {
			callers.Go(func() { _, _ = l.call(ctx, request{payload: make([]byte, 100<<10)}) })
			synctest.Wait()
		}
		close(release)
		synctest.Wait()
		if len(sizes) != 11 {
			t.Errorf("wrote %v; want the first and then two at a time", sizes)
		}
		cancel()
		callers.Wait()
	})
}

// A write that fails within the second of three requests: the first may have
// arrived, the others cannot have.
func TestBrokenWriteTellsWhatCannotHaveArrived(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blocked := true
		release := make(chan struct{})
		l := runLink(t, newStub(func(b []byte) (int, error) {
			if blocked {
				blocked = false
				<-release
				return len(b), nil
			}
			return len(b) / 2, errors.New("broken pipe")
		}), nil)
		outcomes := make(map[string]error)
		var mu sync.Mutex
		var callers sync.WaitGroup
		for _, name := range []string{"before", "one", "two", "three"} {
			callers.Go(func() {
				_, err := l.call(t.Context(), request{payload: []byte(name)})
				mu.Lock()
				defer mu.Unlock()
				outcomes[name] = err
			})
			synctest.Wait()
		}
		close(release)
		callers.Wait()
		for name, want := range map[string]error{
			"before": ErrUnknownOutcome, "one": ErrUnknownOutcome, "two": ErrNotExecuted, "three": ErrNotExecuted,
		} {
			if !errors.Is(outcomes[name], want) {
				t.Errorf("call %s = %v; want %v", name, outcomes[name], want)
			}
		}
	})
}

func TestAbandonedRequestIsNeverSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []string
		release := make(chan struct{})
		l := runLink(t, newStub(func(b []byte) (int, error) {
			sent = append(sent, requests(b)...)
			<-release
			return len(b), nil
		}), nil)
		ctx, cancel := context.WithCancel(t.Context())
		rest, end := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		var err error
		callers.Go(func() { _, _ = l.call(rest, request{payload: []byte("first")}) })
		synctest.Wait()
		callers.Go(func() { _, err = l.call(ctx, request{payload: []byte("abandoned")}) })
		synctest.Wait()
		callers.Go(func() { _, _ = l.call(rest, request{payload: []byte("last")}) })
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(release)
		synctest.Wait()
		if got := strings.Join(sent, " "); got != "first last" {
			t.Errorf("sent %q; want the first and the last", got)
		}
		end()
		callers.Wait()
		if !errors.Is(err, ErrNotExecuted) || !errors.Is(err, context.Canceled) {
			t.Errorf("abandoned call = %v; want ErrNotExecuted and Canceled", err)
		}
	})
}

func TestQuietLinkLivesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		echo := func(_ context.Context, _ port.Peer, payload []byte) ([]byte, error) { return payload, nil }
		a, b := runLink(t, near, nil), runLink(t, far, echo)
		time.Sleep(24 * time.Hour) // of the bubble
		if !a.alive() || !b.alive() {
			t.Fatalf("link ended by %v and %v; want it alive", a.cause(), b.cause())
		}
		if got, err := a.call(t.Context(), request{payload: []byte("x")}); err != nil || string(got) != "x" {
			t.Errorf("call = %q, %v; want x", got, err)
		}
	})
}

func TestDeadPeerIsFoundWithinFourBeats(t *testing.T) {
	for name, deaf := range map[string]bool{"silent": false, "silent and deaf": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				l := runLink(t, near, nil)
				if !deaf {
					go func() { _, _ = io.Copy(io.Discard, far) }()
				}
				began := time.Now()
				_, err := l.call(t.Context(), request{payload: []byte("x")})
				if took := time.Since(began); took != 4*time.Second {
					t.Errorf("found after %v; want 4s", took)
				}
				if !errors.Is(err, errLinkEnded) || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("call = %v; want the link ended by its deadline", err)
				}
				_ = far.Close()
			})
		})
	}
}

// A peer that asks and never reads the answers is cut when a write does not
// get through, and holds no more until then than it may have open.
func TestPeerThatDoesNotReadIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		var running atomic.Int64
		l := runLink(t, near, func(context.Context, port.Peer, []byte) ([]byte, error) {
			running.Add(1)
			return make([]byte, 1000), nil
		})
		for id := uint32(1); l.alive(); id++ {
			frame := appendFrame(nil, id, typeRequest, request{}.head(), nil)
			if _, err := far.Write(frame); err != nil {
				break
			}
			synctest.Wait()
			if id%1000 == 0 {
				time.Sleep(time.Second) // of the bubble
			}
		}
		if got := running.Load(); got > maxOpen/minCost {
			t.Errorf("%d requests were taken; want at most %d", got, maxOpen/minCost)
		}
		if l.load.ofPeer.Load() < 0 {
			t.Errorf("load = %d; want none below zero", l.load.ofPeer.Load())
		}
	})
}

// talk sends frames to a link and returns the answers to them.
func talk(t *testing.T, handle Handler, frames ...[]byte) (answers []frame, l *link) {
	t.Helper()
	near, far := net.Pipe()
	l = runLink(t, near, handle)
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			f, err := readFrame(far)
			if err != nil {
				return
			}
			if f.typ != typeBeat {
				answers = append(answers, f)
			}
		}
	}()
	for _, f := range frames {
		if _, err := far.Write(f); err != nil {
			break
		}
	}
	synctest.Wait()
	_ = far.Close()
	<-read
	return answers, l
}

func TestTooManyOpenRequestsAreRefusedUnexecuted(t *testing.T) {
	for name, c := range map[string]struct{ size, fit int }{
		"small": {0, maxOpen / minCost}, "large": {16 << 20, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var running atomic.Int64
				block := func(ctx context.Context, _ port.Peer, _ []byte) ([]byte, error) {
					running.Add(1)
					<-ctx.Done()
					return nil, ctx.Err()
				}
				var frames [][]byte
				payload := make([]byte, c.size)
				for id := range uint32(c.fit + 3) {
					frames = append(frames, appendFrame(nil, id, typeRequest, request{}.head(), payload))
				}
				answers, l := talk(t, block, frames...)
				if got := running.Load(); got != int64(c.fit) {
					t.Errorf("%d requests run; want %d", got, c.fit)
				}
				if len(answers) != 3 {
					t.Fatalf("%d answers; want the three refusals", len(answers))
				}
				for _, f := range answers {
					if e, err := parseFailure(f.body); err != nil || e.Code != CodeBusy || !errors.Is(e, ErrNotExecuted) {
						t.Errorf("answer = %v, %v; want busy", e, err)
					}
				}
				l.end(errClosed)
				l.work.Wait()
				synctest.Wait()
				if got := l.load.ofPeer.Load(); got != 0 {
					t.Errorf("load after the end = %d; want 0", got)
				}
			})
		})
	}
}

func TestGarbageEndsTheLink(t *testing.T) {
	good := appendFrame(nil, 1, typeRequest, request{}.head(), []byte("x"))
	for name, garbage := range map[string][]byte{
		"text":           []byte("GET / HTTP/1.1\r\n\r\n"),
		"no length":      make([]byte, 9),
		"huge length":    append(binary.BigEndian.AppendUint32(nil, 1<<31), 0, 0, 0, 0, typeReply),
		"unknown type":   appendFrame(nil, 1, 9, nil, nil),
		"short request":  appendFrame(nil, 1, typeRequest, nil, []byte("abc")),
		"short failure":  appendFrame(nil, 1, typeFailure, nil, []byte{0}),
		"id in use":      appendFrame(nil, 1, typeRequest, request{}.head(), nil),
		"large failure":  appendFrame(nil, 1, typeFailure, nil, make([]byte, 9000)),
		"just too large": appendFrame(nil, 1, typeReply, nil, make([]byte, maxFrame)),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				block := func(ctx context.Context, _ port.Peer, _ []byte) ([]byte, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				_, l := talk(t, block, good, garbage)
				if err := l.cause(); !errors.Is(err, errProtocol) {
					t.Errorf("link ended by %v; want errProtocol", err)
				}
			})
		})
	}
}

func TestAnswersToNobodyAreIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		echo := func(_ context.Context, _ port.Peer, payload []byte) ([]byte, error) { return payload, nil }
		answers, _ := talk(t, echo,
			appendFrame(nil, 77, typeReply, nil, []byte("x")),
			appendFrame(nil, 78, typeFailure, nil, []byte{0, 1}),
			appendFrame(nil, 79, typeCancel, nil, nil),
			appendFrame(nil, 1, typeRequest, request{}.head(), []byte("still here")))
		if len(answers) != 1 || string(answers[0].body) != "still here" {
			t.Errorf("answers = %v; want the one to the request", answers)
		}
	})
}

// The pool still has a link that breaks as soon as something is written: the
// call goes over another one, and only once.
func TestBrokenIdleConnectionCostsOneFreshDial(t *testing.T) {
	open := func(name string) (*port.Port, *Exchange) {
		p, err := port.Listen(t.Context(), "127.0.0.1:0", port.Config{NodeID: uuid.NewString(), NodeName: name, ClusterName: "test"})
		if err != nil {
			t.Fatal(err)
		}
		x := New(p, Config{})
		served := make(chan struct{})
		go func() {
			defer close(served)
			_ = p.Serve(context.Background())
		}()
		t.Cleanup(func() {
			_ = x.Close()
			_ = p.Close()
			<-served
		})
		return p, x
	}
	_, a := open("a")
	to, b := open("b")
	var runs atomic.Int64
	b.Handle(1, func(context.Context, port.Peer, []byte) ([]byte, error) {
		runs.Add(1)
		return []byte("done"), nil
	})
	target := port.Target{ID: to.NodeID(), Addr: to.Addr().String()}
	broken := runLink(t, newStub(func([]byte) (int, error) { return 0, errors.New("broken pipe") }), nil)
	a.mu.Lock()
	a.peers[target.ID] = &remote{links: []*link{broken}}
	a.mu.Unlock()

	reply, err := a.Call(t.Context(), target, 1, []byte("x"))
	if err != nil || string(reply) != "done" || runs.Load() != 1 {
		t.Errorf("Call = %q, %v after %d runs; want done after one", reply, err, runs.Load())
	}
	if broken.alive() {
		t.Error("the broken link was not used at all")
	}
}
