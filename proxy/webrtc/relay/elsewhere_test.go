package relay

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/webrtc/ufrag"
)

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
