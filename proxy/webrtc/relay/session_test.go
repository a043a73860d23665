package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/webrtc/ufrag"
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

// A flow that was signalled elsewhere, or before this peer was restarted, gets a
// session: by what the peers know, or by the stream's hash among the placed.
func TestFlowOfAnotherPeerGetsASession(t *testing.T) {
	for name, known := range map[string]bool{"a peer knows it": true, "nobody knows it": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "127.0.0.1:0", Config{})
			ticket := b.ticket(true)
			if known {
				told := ticket
				told.Kind = "whip"
				answer, _ := json.Marshal(told)
				b.answers(func([]byte) []byte { return answer })
			}
			b.lb.place(lb.Stream{VHost: "v", App: "live", Name: "other"})
			b.join(t, b.client(t), ticket)
			eventually(t, "a session is opened", func() bool { return len(b.lb.opened()) == 1 })
			s := b.lb.opened()[0]
			if r := s.request; r.Stream != stream || !r.Publish || r.Kind != "whip" || r.Protocol != lb.RTC || !r.Client.IsValid() {
				t.Errorf("the session is for %+v; want the stream's publisher", r)
			}
			b.pass(31 * time.Second)
			b.look()
			requireEnd(t, s, errSilent)
		})
	}
}

// A refusal of the router ends the flow.
func TestFlowOfAnotherPeerCountsAgainstLimits(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	b.lb.refusal = fmt.Errorf("open: %w", &proxy.LimitError{Limit: "sessions per address"})
	b.client(t).send(check(t, b.ticket(true)))
	requireNothingKept(t, b)
}

// A stream that is not placed is not placed for the sake of a flow: it might go
// to another origin.
func TestFlowPlacesNothing(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.ticket(true)
	answer, _ := json.Marshal(ticket)
	b.answers(func([]byte) []byte { return answer })
	b.lb.mu.Lock()
	clear(b.lb.placed)
	b.lb.mu.Unlock()
	b.join(t, b.client(t), ticket)
	<-b.asked
	b.mu.RLock()
	var f *flow
	for f = range b.open {
	}
	b.mu.RUnlock()
	eventually(t, "the flow has learnt of its stream", func() bool { _, ok := f.request(); return ok })
	if n := len(b.lb.opened()); n != 0 {
		t.Errorf("%d sessions were opened; want none", n)
	}
}

func TestUnknownUfragIsAskedOnce(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	ticket := b.own(true)
	answer, _ := json.Marshal(ticket)
	b.answers(func(q []byte) []byte {
		if strings.Contains(string(q), ticket.Ufrag) {
			return answer
		}
		return nil
	})
	c := b.client(t)
	stranger := ticket
	stranger.Ufrag = "unknown1"
	for range 50 {
		c.send(check(t, stranger))
	}
	eventually(t, "50 checks are dropped", func() bool { return b.dropped(dropUnknown) == 50 })
	if first := <-b.asked; !strings.Contains(first, stranger.Ufrag) {
		t.Errorf("the peers were asked %s; want %s", first, stranger.Ufrag)
	}
	// ICE repeats its checks, and one of them finds the session known.
	eventually(t, "the session of another peer has its flow here", func() bool {
		c.send(check(t, ticket))
		return b.Flows() == 1
	})
	if q := <-b.asked; !strings.Contains(q, `"find":"`+ticket.Ufrag+`"`) {
		t.Errorf("asked %s; want the ufrag", q)
	}
	for len(b.asked) > 0 {
		if again := <-b.asked; strings.Contains(again, stranger.Ufrag) {
			t.Errorf("the peers were asked twice about one ufrag: %s", again)
		}
	}
}

// One address cannot have us ask all the time, and all together not more than a
// bucket allows.
func TestStrangersQuestionsAreLimited(t *testing.T) {
	a := newAsker()
	now := time.Now()
	asked := func(addrs, each int) (n int) {
		for i := range addrs {
			for j := range each {
				if a.mayAsk(fmt.Appendf(nil, "ufrag%d-%d-%d", i, j, now.UnixNano()), addrOf(i), now) {
					n++
				}
			}
		}
		return n
	}
	if n := asked(1, 1000); n != questionsPerAddr {
		t.Errorf("one address: %d questions in a second; want %d", n, questionsPerAddr)
	}
	if n := asked(1000, 3); n != questionBurst-questionsPerAddr {
		t.Errorf("a thousand addresses: %d questions; want the rest of the burst, %d", n, questionBurst-questionsPerAddr)
	}
	now = now.Add(time.Second)
	if n := asked(1000, 3); n != questionRate {
		t.Errorf("a second later: %d questions; want %d", n, questionRate)
	}
	for range 1000 {
		now = now.Add(time.Second)
		asked(1000, 1)
	}
	if n := len(a.unknown); n > maxUnknown || n > questionRate*int(unknownTime/time.Second)+questionBurst {
		t.Errorf("%d ufrags are remembered", n)
	}
}

func TestPeerAnswersForWhatItKnows(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	find := func(name string) (t Ticket, ok bool) {
		answer := b.Answer([]byte(`{"find":"` + name + `"}`))
		return t, json.Unmarshal(answer, &t) == nil
	}
	waits, runs := b.own(true), b.ticket(false)
	s := b.expect(t, waits)
	b.join(t, b.client(t), runs)
	for _, want := range []Ticket{waits, runs} {
		if got, ok := find(want.Ufrag); !ok || got.Password != want.Password || got.ID != want.ID {
			t.Errorf("find %s = %+v, %v; want its ticket", want.Ufrag, got, ok)
		}
	}
	if _, ok := find("nothing0"); ok {
		t.Error("an unknown ufrag is answered")
	}
	for _, garbage := range []string{"", "{", "[]", "null", `{"find":7}`, strings.Repeat("[", 100_000)} {
		if answer := b.Answer([]byte(garbage)); answer != nil {
			t.Errorf("Answer to %.20q = %q; want nothing", garbage, answer)
		}
	}
	// The other peer has the media now, and holds the stream.
	b.sweep(time.Now().Add(handOver + time.Second))
	requireEnd(t, s, errNoMedia)
	b.Answer([]byte(`{"ended":"` + runs.ID + `"}`))
	requireNothingKept(t, b)
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

// All flows that do not know their stream are named by one look at the placed.
func TestNamingLooksOnceForAll(t *testing.T) {
	b := newBench(t, "127.0.0.1:0", Config{})
	for n := range 100 {
		b.lb.place(lb.Stream{VHost: "v", App: "live", Name: strconv.Itoa(n)})
	}
	type found struct {
		stream lb.Stream
		ok     bool
	}
	results := make(chan found, 100)
	for n := range 100 {
		go func() {
			s := lb.Stream{VHost: "v", App: "live", Name: strconv.Itoa(n)}
			got, ok := b.naming.find(t.Context(), placed{"o", ufrag.HashStream(s)})
			results <- found{got, ok && got == s}
		}()
	}
	for range 100 {
		if r := <-results; !r.ok {
			t.Errorf("found %v", r.stream)
		}
	}
	if s, ok := b.naming.find(t.Context(), placed{"o", ufrag.StreamHash{1}}); ok {
		t.Errorf("found %v for a hash of nothing", s)
	}
	if s, ok := b.naming.find(t.Context(), placed{"p", ufrag.HashStream(stream)}); ok {
		t.Errorf("found %v on another origin", s)
	}
}
