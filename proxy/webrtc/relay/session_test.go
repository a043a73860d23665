package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// expect signals a session at the bench's peer.
func (b *bench) expect(tb testing.TB, t Ticket) *fakeSession {
	tb.Helper()
	s, err := b.lb.open(tb.Context(), proxy.Request{Stream: t.Stream, Publish: t.Publish})
	if err != nil {
		tb.Fatal(err)
	}
	if err = b.Expect(t, s); err != nil {
		tb.Fatal(err)
	}
	return s
}

// own is a session whose origin chose its credentials.
func (b *bench) own(publish bool) Ticket {
	t := b.ticket(publish)
	t.ID, t.Ufrag, t.Password = "4pb5zu90", "4pb5zu90", "0123456789abcdef0123456789abcdef"
	return t
}

func requireEnd(tb testing.TB, s *fakeSession, want error) {
	tb.Helper()
	eventually(tb, "the session ends", func() bool { ended, _ := s.end(); return ended })
	if _, err := s.end(); !errors.Is(err, want) {
		tb.Errorf("the session ended with %v; want %v", err, want)
	}
}

func requireNothingKept(tb testing.TB, b *bench) {
	tb.Helper()
	eventually(tb, "no flow, path or ufrag is left", func() bool {
		b.mu.RLock()
		defer b.mu.RUnlock()
		return len(b.open)+len(b.flows)+len(b.paths)+len(b.expected) == 0
	})
}

// The session of the signalling is the flow's, and there is no other.
func TestMediaTakesTheSessionOver(t *testing.T) {
	for name, publish := range map[string]bool{"publish": true, "play": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "127.0.0.1:0", Config{})
			ticket := b.own(publish)
			s := b.expect(t, ticket)
			c := b.client(t)
			at := b.join(t, c, ticket, useCandidate{})
			for n := range 3 {
				c.send(media(n))
				receive(t, b.origin)
				b.originSends(t, at, media(n))
				receive(t, c.conn)
			}
			b.look()
			s.mu.Lock()
			in, out := s.in, s.out
			s.mu.Unlock()
			if publish && (in != 300 || out != 0) || !publish && (in != 0 || out != 300) {
				t.Errorf("%d bytes in and %d out were counted; want the 300 of media", in, out)
			}
			if n := len(b.lb.opened()); n != 1 {
				t.Errorf("%d sessions were opened; want 1", n)
			}
			b.pass(31 * time.Second)
			b.look()
			requireEnd(t, s, errSilent)
			requireNothingKept(t, b)
		})
	}
}

func TestSessionWithoutMediaEnds(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{AwaitTime: 10 * time.Second})
	s := b.expect(t, b.own(true))
	b.sweep(time.Now().Add(9 * time.Second))
	if ended, _ := s.end(); ended {
		t.Fatal("the session ended before its time")
	}
	b.sweep(time.Now().Add(11 * time.Second))
	requireEnd(t, s, errNoMedia)
	requireNothingKept(t, b)
}

func TestSessionsOfOneUfragAreOne(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.own(true)
	former, later := b.expect(t, ticket), b.expect(t, ticket)
	requireEnd(t, former, errReplaced)
	if ended, _ := later.end(); ended {
		t.Error("the later session ended")
	}
	// Also when the former has its media.
	b.join(t, b.client(t), ticket)
	last := b.expect(t, ticket)
	requireEnd(t, later, errReplaced)
	b.join(t, b.client(t), ticket)
	if ended, _ := last.end(); ended || b.Flows() != 1 {
		t.Errorf("ended = %v with %d flows; want the last session to be the only one", ended, b.Flows())
	}
	b.endHere(ticket.ID)
	requireEnd(t, last, nil)
	requireNothingKept(t, b)
}

func TestRestartWithTheUfragOfAnotherSessionReplacesIt(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	waiting := b.own(true)
	s := b.expect(t, waiting)
	restarted := waiting
	restarted.ID = "elsewhere"
	b.Restarted(restarted)
	requireEnd(t, s, errReplaced)
	b.endHere("elsewhere")
	requireNothingKept(t, b)
}

func TestSessionsThatWaitAreBounded(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	for n := range maxExpected {
		b.Restarted(Ticket{ID: "id", Ufrag: fmt.Sprintf("ufrag%d", n)})
	}
	s, err := b.lb.open(t.Context(), proxy.Request{Stream: stream})
	if err != nil {
		t.Fatal(err)
	}
	ticket := b.own(true)
	if err = b.Expect(ticket, s); !errors.Is(err, lb.ErrLimit) {
		t.Errorf("Expect = %v; want %v", err, lb.ErrLimit)
	}
	requireEnd(t, s, lb.ErrLimit)
	if told := <-b.told; told.ID != ticket.ID {
		t.Errorf("the origin is told of %q; want %q", told.ID, ticket.ID)
	}
	b.endHere("id")
	requireNothingKept(t, b)
}

// Whoever lives keeps its session, be it by checks alone.
func TestChecksKeepASession(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.own(false)
	s := b.expect(t, ticket)
	c := b.client(t)
	for range 10 {
		b.join(t, c, ticket)
		b.pass(20 * time.Second)
		b.look()
	}
	if ended, err := s.end(); ended {
		t.Errorf("the session ended: %v", err)
	}
}

func TestAlertIsGoodbye(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.own(false)
	s := b.expect(t, ticket)
	c := b.client(t)
	alert := append([]byte{dtlsAlert, 0xfe, 0xfd}, random(40)...)
	b.join(t, c, ticket)
	c.send(alert)
	receive(t, b.origin)
	b.pass(goodbyeTime - time.Second)
	b.join(t, c, ticket) // it was not meant
	b.pass(2 * time.Second)
	b.look()
	if ended, _ := s.end(); ended {
		t.Fatal("a client that still checks is taken to be gone")
	}
	c.send(alert)
	receive(t, b.origin)
	b.pass(goodbyeTime + time.Second)
	b.look()
	requireEnd(t, s, nil)
}

// An operator's kick ends the media at once, tells origin and peers, and the
// client's next checks start nothing.
func TestKickedSessionStaysEnded(t *testing.T) {
	for name, media := range map[string]bool{"with media": true, "before media": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "127.0.0.1:0", Config{})
			ticket := b.ticket(true)
			s := b.expect(t, ticket)
			c := b.client(t)
			if media {
				b.join(t, c, ticket)
			}
			s.cancel(proxy.ErrKicked)
			requireEnd(t, s, nil)
			select {
			case told := <-b.told:
				if told.Resource != ticket.Resource {
					t.Errorf("the origin is told to end %q; want %q", told.Resource, ticket.Resource)
				}
			case <-time.After(patience):
				t.Error("the origin is not told")
			}
			eventually(t, "the peers are told", func() bool {
				select {
				case q := <-b.asked:
					return strings.Contains(q, `"ended":"`+ticket.ID+`"`)
				default:
					return false
				}
			})
			requireNothingKept(t, b)
			c.send(check(t, ticket))
			eventually(t, "the next check is dropped", func() bool { return b.dropped(dropEnded) == 1 })
		})
	}
}

// A peer that stops does not end sessions at their origins: it, or another in its
// place, may be back before the clients give up.
func TestShutdownTellsNoOrigin(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(true)
	s := b.expect(t, ticket)
	b.join(t, b.client(t), ticket)
	s.cancel(proxy.ErrShutdown)
	requireEnd(t, s, nil)
	requireNothingKept(t, b)
	b.work.Wait()
	if len(b.told)+len(b.asked) != 0 {
		t.Error("origin or peers are told of a shutdown")
	}
}

// While the peer drains, who was signalled here still comes, and nobody else.
func TestDrainLetsOwnSessionsBegin(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	here, elsewhere := b.ticket(true), b.ticket(false)
	b.expect(t, here)
	b.Drain()
	b.client(t).send(check(t, elsewhere))
	eventually(t, "a session of another peer is dropped", func() bool { return b.dropped(dropEnded) == 1 })
	b.join(t, b.client(t), here)
}

func TestFlowsAreBounded(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{MaxFlows: 3})
	for range 3 {
		b.join(t, b.client(t), b.ticket(true))
	}
	b.client(t).send(check(t, b.ticket(true)))
	eventually(t, "one more is dropped", func() bool { return b.dropped(dropFull) == 1 })
	if n := b.Flows(); n != 3 {
		t.Errorf("Flows = %d; want 3", n)
	}
}

// After an ICE restart the client checks by other credentials, and the flow stays
// the same, wherever the restart was signalled.
func TestRestartKeepsTheFlow(t *testing.T) {
	for _, where := range []string{"here", "at another peer", "before media"} {
		t.Run(where, func(t *testing.T) {
			b := newBench(t, "127.0.0.1:0", Config{})
			ticket := b.own(true)
			s := b.expect(t, ticket)
			again := ticket
			again.Ufrag, again.Password = "again123", "fedcba9876543210fedcba9876543210"
			c := b.client(t)
			switch where {
			case "before media":
				b.Restarted(again)
				b.join(t, c, again)
			case "here":
				at := b.join(t, c, ticket)
				b.Restarted(again)
				if now := b.join(t, c, again); now != at {
					t.Errorf("the origin sees %v after the restart; want %v as before", now, at)
				}
			default:
				at := b.join(t, c, ticket)
				answer, _ := json.Marshal(again)
				b.answers(func([]byte) []byte { return answer })
				request := check(t, again)
				c.send(request)
				<-b.asked
				eventually(t, "the restart is known", func() bool {
					b.mu.RLock()
					defer b.mu.RUnlock()
					return b.flows[again.Ufrag] != nil
				})
				if now := b.join(t, c, again); now != at {
					t.Errorf("the origin sees %v after the restart; want %v as before", now, at)
				}
			}
			if b.Flows() != 1 || len(b.lb.opened()) != 1 {
				t.Errorf("%d flows, %d sessions; want one of each", b.Flows(), len(b.lb.opened()))
			}
			for n := range 2 * maxUfrags { // and again
				again.Ufrag = fmt.Sprintf("again%d", n)
				b.Restarted(again)
				b.join(t, c, again)
			}
			b.mu.RLock()
			if len(b.flows) != maxUfrags {
				t.Errorf("%d ufrags lead to the flow; want %d", len(b.flows), maxUfrags)
			}
			b.mu.RUnlock()
			b.endHere(ticket.ID)
			requireEnd(t, s, nil)
			requireNothingKept(t, b)
		})
	}
}

// Peers tell each other of origins, but one that is not registered, or has been
// restarted, gets nothing.
func TestOnlyRegisteredOriginsGetMedia(t *testing.T) {
	for name, change := range map[string]func(t *Ticket){
		"unknown":   func(t *Ticket) { t.Origin = "other" },
		"restarted": func(t *Ticket) { t.Incarnation = proxy.Fingerprint{1} },
	} {
		b := newBench(t, "127.0.0.1:0", Config{})
		ticket := b.own(true)
		change(&ticket)
		b.expect(t, ticket)
		b.client(t).send(check(t, ticket))
		eventually(t, name+": the check is dropped", func() bool { return b.dropped(dropOrigin) == 1 })
		if n := b.Flows(); n != 0 {
			t.Errorf("%s: %d flows; want none", name, n)
		}
	}
}

// An origin with a host name is looked up beside the datagrams.
func TestOriginWithAName(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	_, port, _ := net.SplitHostPort(b.origin.LocalAddr().String())
	b.lb.serveAt("udp://localhost:" + port)
	ticket := b.ticket(true)
	c := b.client(t)
	eventually(t, "the flow is there", func() bool {
		c.send(check(t, ticket))
		return b.Flows() == 1
	})
	request := check(t, ticket)
	c.send(request)
	eventually(t, "a check comes to the origin", func() bool {
		got, _ := receive(t, b.origin)
		return string(got) == string(request)
	})
}
