package relay

import (
	"context"
	"encoding/json"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"srsx/proxy"
)

// What strangers can make us do: each question goes to every peer.
const (
	questionRate  = 100 // a second
	questionBurst = 200
	// questionsPerAddr is for one address in a second. ICE repeats a check several
	// times within that, for a ufrag that has been asked about by then.
	questionsPerAddr = 10
	maxUnknown       = 4096 // ufrags that nobody knows, remembered
	unknownTime      = 5 * time.Second
	questionTime     = 500 * time.Millisecond
	minUfrag         = 4 // RFC 8839 section 5.4
	maxUfrag         = 256
)

// question is what peers ask each other, and tell. One of its fields is set.
type question struct {
	Find  string `json:"find,omitempty"`  // a ufrag: who knows its session?
	Ended string `json:"ended,omitempty"` // the id of a session that is over
}

// asker decides what is asked.
type asker struct {
	limiter *rate.Limiter

	mu      sync.Mutex
	unknown map[string]time.Time // guarded by mu; being asked, or known to nobody until then
	byAddr  map[netip.Prefix]int // guarded by mu; questions in this second
	since   time.Time            // guarded by mu; when byAddr was emptied
}

func newAsker() asker {
	return asker{
		limiter: rate.NewLimiter(questionRate, questionBurst),
		unknown: make(map[string]time.Time),
		byAddr:  make(map[netip.Prefix]int),
	}
}

// mayAsk decides whether a stranger has us ask about a ufrag, and notes it then.
func (a *asker) mayAsk(name []byte, from netip.Addr, now time.Time) bool {
	if len(name) < minUfrag || len(name) > maxUfrag {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if until, asked := a.unknown[string(name)]; asked && now.Before(until) {
		return false
	}
	if now.Sub(a.since) >= time.Second {
		a.since = now
		clear(a.byAddr)
		for other, until := range a.unknown {
			if !now.Before(until) {
				delete(a.unknown, other)
			}
		}
	}
	network := proxy.ClientOf(from)
	if len(a.unknown) >= maxUnknown || a.byAddr[network] >= questionsPerAddr || !a.limiter.AllowN(now, 1) {
		return false
	}
	a.byAddr[network]++
	a.unknown[string(name)] = now.Add(unknownTime)
	return true
}

// known lets a ufrag be asked about again.
func (a *asker) known(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.unknown, name)
}

// askAbout asks the peers about a ufrag that a stranger uses, in the background.
// Its session is expected when one of them knows it.
func (r *Relay) askAbout(name []byte, from netip.Addr, now time.Time) {
	if r.config.Ask == nil || !r.asking.mayAsk(name, from, now) {
		return
	}
	text := string(name)
	r.aside(func() {
		t, ok := r.askPeers(r.life, text)
		if !ok {
			return
		}
		r.mu.Lock()
		if f := r.flows[t.ID]; f != nil {
			r.addUfragLocked(f, t.Ufrag, t.Password)
		} else if r.expected[text] == nil {
			r.expectLocked(&expected{ticket: t, until: time.Now().Add(r.config.AwaitTime)})
		}
		r.mu.Unlock()
		r.asking.known(text)
	})
}

// askPeers asks the peers about a ufrag.
func (r *Relay) askPeers(ctx context.Context, name string) (Ticket, bool) {
	var t Ticket
	answer := r.tell(ctx, question{Find: name})
	return t, json.Unmarshal(answer, &t) == nil && t.Ufrag == name && t.ID != ""
}

func (r *Relay) tell(ctx context.Context, q question) []byte {
	if r.config.Ask == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, questionTime)
	defer cancel()
	b, err := json.Marshal(q)
	if err != nil {
		return nil // two texts always marshal
	}
	return r.config.Ask(ctx, b)
}

// Answer answers a question of another peer; nothing for what this one does not
// know or understand.
func (r *Relay) Answer(asked []byte) []byte {
	var q question
	if json.Unmarshal(asked, &q) != nil {
		return nil
	}
	if q.Ended != "" {
		r.endHere(q.Ended)
		return nil
	}
	r.mu.Lock()
	t, ok := r.knownLocked(q.Find)
	if e := r.expected[q.Find]; ok && e != nil && e.session != nil {
		// The media is there. That peer has what it takes to hold the stream.
		if soon := time.Now().Add(handOver); soon.Before(e.until) {
			e.until = soon
		}
	}
	r.mu.Unlock()
	if !ok {
		return nil
	}
	b, err := json.Marshal(t)
	if err != nil {
		return nil // texts and an address always marshal
	}
	return b
}

// handOver is how long a session is held here after another peer asked for it.
const handOver = 3 * time.Second

// End ends a session here and at the other peers, and starts no flow of it any
// more. It does not wait for them.
func (r *Relay) End(id string) {
	r.endHere(id)
	r.aside(func() { r.tell(r.life, question{Ended: id}) })
}

const (
	endedTime = 10 * time.Minute // a session that was ended starts no flow
	maxEnded  = 50_000
)

func (r *Relay) endHere(id string) {
	r.mu.Lock()
	if len(r.ended) < maxEnded {
		r.ended[id] = time.Now().Add(endedTime)
	}
	f := r.flows[id]
	r.mu.Unlock()
	if f != nil {
		f.end(nil)
	}
	r.forgetExpected(func(e *expected) (bool, error) { return e.ticket.ID == id, nil })
}
