package founding

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type recorder struct {
	mu    sync.Mutex
	lines []string
}

func (r *recorder) Enabled(context.Context, slog.Level) bool { return true }
func (r *recorder) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *recorder) WithGroup(string) slog.Handler            { return r }

func (r *recorder) Handle(_ context.Context, rec slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := rec.Level.String() + " " + rec.Message
	rec.Attrs(func(a slog.Attr) bool { line += " " + a.Value.String(); return true })
	r.lines = append(r.lines, line)
	return nil
}

func (r *recorder) count(part string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.lines {
		if strings.Contains(l, part) {
			n++
		}
	}
	return n
}

func participant(t *testing.T, view View, log *recorder) Config {
	t.Helper()
	return Config{
		Self:  Peer{ID: "a", Name: "na", Expect: 3},
		File:  filepath.Join(t.TempDir(), "promise"),
		View:  func() View { return view },
		Send:  func(context.Context, string, []byte) error { return nil },
		Found: func(context.Context, Proposal) error { return nil },
		Log:   slog.New(log),
	}
}

func TestWaitingPeerSaysWhyEveryTenSeconds(t *testing.T) {
	for want, view := range map[string]View{
		"INFO not in a cluster yet met 2 of 3":                   seeing("b", 3),
		"ERROR not in a cluster yet na expects 3 peers and nb 5": seeing("b", 5),
	} {
		synctest.Test(t, func(t *testing.T) {
			log := &recorder{}
			p := NewParticipant(participant(t, view, log))
			ctx, cancel := context.WithTimeout(t.Context(), 61*time.Second)
			defer cancel()
			if err := p.Serve(ctx); err != nil {
				t.Fatal(err)
			}
			if got := log.count(want); got != 7 {
				t.Errorf("said %q %d times in 61 s; want 7", want, got)
			}
		})
	}
}

func TestPromiseIsOnDiskBeforeTheAnswerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := participant(t, seeing("AB", 3), &recorder{})
		proposal := Proposal{Founder: "A", Seq: 4, Peers: []string{"A", "B", "a"}}
		answered := make(chan State, 1)
		cfg.Send = func(_ context.Context, _ string, b []byte) error {
			if m, err := decodeMessage(b); err == nil && m.Kind == Held {
				kept, err := readState(cfg.File)
				if err != nil {
					t.Error(err)
				}
				answered <- kept
			}
			return nil
		}
		p := NewParticipant(cfg)
		ctx, cancel := context.WithCancel(t.Context())
		var serving sync.WaitGroup
		serving.Go(func() { _ = p.Serve(ctx) })
		synctest.Wait() // a proposal of its own would come first otherwise
		p.Deliver("A", Message{Kind: Ask, Proposal: proposal}.encode())
		if kept := <-answered; !proposal.is(kept.Promise) {
			t.Errorf("on disk when Held was sent: %+v; want the promise", kept)
		}
		cancel()
		serving.Wait()
	})
}

func TestPromiseThatCannotBeKeptIsNotGiven(t *testing.T) {
	cfg := participant(t, View{}, &recorder{})
	cfg.Self.Expect = 1
	cfg.File = filepath.Join(t.TempDir(), "absent", "promise")
	cfg.Found = func(context.Context, Proposal) error { t.Error("founded"); return nil }
	if err := NewParticipant(cfg).Serve(t.Context()); err == nil || !strings.Contains(err.Error(), "keep promise") {
		t.Errorf("Serve = %v; want an error about the promise", err)
	}
}

func TestFoundingThatFailsEndsThePeer(t *testing.T) {
	cfg := participant(t, View{}, &recorder{})
	cfg.Self.Expect = 1
	full := errors.New("disk is full")
	cfg.Found = func(context.Context, Proposal) error { return full }
	if err := NewParticipant(cfg).Serve(t.Context()); !errors.Is(err, full) {
		t.Errorf("Serve = %v; want %v", err, full)
	}
}

func TestDamagedPromiseIsNotOverlooked(t *testing.T) {
	for _, damaged := range []string{"", "{", `{"promise":{"founder":"a"}}`} {
		cfg := participant(t, View{}, &recorder{})
		if err := os.WriteFile(cfg.File, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		err := NewParticipant(cfg).Serve(t.Context())
		if err == nil || !strings.Contains(err.Error(), cfg.File) {
			t.Errorf("Serve with %q = %v; want an error that names the file", damaged, err)
		}
	}
}
