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
)

func participant(t *testing.T, view View) Config {
	t.Helper()
	return Config{
		Self:  Peer{ID: "a", Name: "na", Expect: 3},
		File:  filepath.Join(t.TempDir(), "promise"),
		View:  func() View { return view },
		Send:  func(context.Context, string, []byte) error { return nil },
		Found: func(context.Context, Proposal) error { return nil },
		Log:   slog.New(slog.DiscardHandler),
	}
}

func TestWaitingPeerKnowsWhy(t *testing.T) {
	for _, c := range []struct {
		view    View
		want    string
		mistake bool
	}{
		{seeing("b", 3), "met 2 of 3", false},
		{seeing("b", 5), "na expects 3 peers and nb 5", true},
		{View{Member: true}, "", false},
	} {
		synctest.Test(t, func(t *testing.T) {
			p := NewParticipant(participant(t, c.view))
			ctx, cancel := context.WithCancel(t.Context())
			var serving sync.WaitGroup
			serving.Go(func() { _ = p.Serve(ctx) })
			synctest.Wait()
			why, mistake := p.Why()
			if !strings.HasPrefix(why, c.want) || c.want == "" && why != "" || mistake != c.mistake {
				t.Errorf("Why = %q, %t; want %q, %t", why, mistake, c.want, c.mistake)
			}
			cancel()
			serving.Wait()
		})
	}
}

func TestFounderKnowsItsClusterAfterARestart(t *testing.T) {
	cfg := participant(t, View{})
	cfg.Self.Expect = 1
	var founded string
	cfg.Found = func(_ context.Context, p Proposal) error { founded = p.Cluster(); return nil }
	for range 2 {
		synctest.Test(t, func(t *testing.T) {
			p := NewParticipant(cfg)
			if p.Proposed() != "" {
				t.Errorf("Proposed before Serve = %s; want nothing", p.Proposed())
			}
			ctx, cancel := context.WithCancel(t.Context())
			var serving sync.WaitGroup
			serving.Go(func() { _ = p.Serve(ctx) })
			synctest.Wait()
			if founded == "" || p.Proposed() != founded {
				t.Errorf("Proposed = %q; want the cluster that was founded, %q", p.Proposed(), founded)
			}
			cancel()
			serving.Wait()
		})
		cfg.View = func() View { return View{Member: true} } // from the second start on
		cfg.Found = func(context.Context, Proposal) error { t.Error("founded again"); return nil }
	}
}

func TestPromiseIsOnDiskBeforeTheAnswerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := participant(t, seeing("AB", 3))
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
	cfg := participant(t, View{})
	cfg.Self.Expect = 1
	cfg.File = filepath.Join(t.TempDir(), "absent", "promise")
	cfg.Found = func(context.Context, Proposal) error { t.Error("founded"); return nil }
	if err := NewParticipant(cfg).Serve(t.Context()); err == nil || !strings.Contains(err.Error(), "keep promise") {
		t.Errorf("Serve = %v; want an error about the promise", err)
	}
}

func TestFoundingThatFailsEndsThePeer(t *testing.T) {
	cfg := participant(t, View{})
	cfg.Self.Expect = 1
	full := errors.New("disk is full")
	cfg.Found = func(context.Context, Proposal) error { return full }
	if err := NewParticipant(cfg).Serve(t.Context()); !errors.Is(err, full) {
		t.Errorf("Serve = %v; want %v", err, full)
	}
}

func TestDamagedPromiseIsNotOverlooked(t *testing.T) {
	for _, damaged := range []string{"", "{", `{"promise":{"founder":"a"}}`} {
		cfg := participant(t, View{})
		if err := os.WriteFile(cfg.File, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		err := NewParticipant(cfg).Serve(t.Context())
		if err == nil || !strings.Contains(err.Error(), cfg.File) {
			t.Errorf("Serve with %q = %v; want an error that names the file", damaged, err)
		}
	}
}
