package founding

import (
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Times of the machine. None of them carries safety: they only decide how often
// something is said again.
const (
	askEvery   = time.Second      // the founder asks those again who have not answered
	checkEvery = 10 * time.Second // who hears nothing of its founder asks the others
	retryAfter = time.Second      // before the next proposal, and up to three times of it
)

// maxRefused bounds the founders that are remembered. Beyond it a peer does not
// answer at all, which is always safe.
const maxRefused = 1024

// State is what a peer must never forget. It is on disk before anything that
// depends on it is said.
type State struct {
	Seq     uint64            `json:"seq"`               // of the last proposal of its own
	Promise *Proposal         `json:"promise,omitempty"` // the one that it holds
	Refused map[string]uint64 `json:"refused,omitempty"` // by founder: up to here it holds none
}

func (s State) clone() *State {
	s.Refused = maps.Clone(s.Refused)
	if s.Promise != nil {
		p := *s.Promise
		p.Peers = slices.Clone(p.Peers)
		s.Promise = &p
	}
	return &s
}

// Peer is another peer as gossip shows it.
type Peer struct {
	ID       string
	Name     string
	Present  bool   // alive now
	Gone     bool   // left, or declared gone by an operator
	Cluster  string // UUID; empty for a newcomer
	Expect   int    // its -bootstrap-expect
	NonVoter bool
}

// candidate reports whether the peer may found a cluster with others.
func (p Peer) candidate() bool {
	return p.Present && p.Cluster == "" && p.Expect > 0 && !p.NonVoter
}

// View is what a peer knows at one moment.
type View struct {
	Member bool   // this peer has a log: whatever comes, it founds nothing
	Peers  []Peer // all others
}

// Envelope is a message to one peer.
type Envelope struct {
	To string
	Message
}

// Effects is what the caller has to do, in this order: keep Save durably, found
// the cluster of Found durably, send what is in Send. When Save or Found fails the
// machine must not be used again.
type Effects struct {
	Save  *State
	Found *Proposal
	Send  []Envelope
}

// Machine is the part of one peer in founding a cluster. It has no clock, does no
// I/O and is not safe for concurrent use.
//
// Safety rests on two rules. A peer holds one proposal at a time, and lets go of
// it only when one of the peers it names, the founder included, says that it does
// not hold it and never will: then the proposal can never be held by all. And the
// founder founds only what all hold. So of any two proposals that share a peer, at
// most one is ever founded. (The third way out of a promise is the word of an
// operator that the founder is gone for good.)
type Machine struct {
	self   Peer
	state  State
	view   View
	out    Effects
	found  bool // Found was handed out: there is no way back
	heard  time.Time
	spoken time.Time       // the last Ask or Check
	retry  time.Time       // no proposal before
	held   map[string]bool // who holds the own proposal
	refuse string          // why the last own proposal came to nothing
}

// NewMachine continues from what was kept, the zero State on the first start.
// self needs ID, Name, Expect and NonVoter.
func NewMachine(self Peer, kept State) *Machine {
	self.Present = true
	m := &Machine{self: self, state: *kept.clone(), held: map[string]bool{self.ID: true}}
	if m.state.Refused == nil {
		m.state.Refused = make(map[string]uint64)
	}
	return m
}

// Observe takes in what gossip shows now. It is called on every change and every
// second at least.
func (m *Machine) Observe(now time.Time, view View) Effects {
	m.view = view
	switch p := m.state.Promise; {
	case m.found:
	case p == nil:
		m.propose(now)
	case p.Founder == m.self.ID:
		m.pursue(now, *p)
	default:
		m.await(now, *p)
	}
	return m.flush()
}

// propose begins when this peer is the lowest of enough.
func (m *Machine) propose(now time.Time) {
	d := m.decide()
	if !d.propose || now.Before(m.retry) {
		return
	}
	m.state.Seq++
	p := Proposal{Founder: m.self.ID, Seq: m.state.Seq, Peers: d.peers}
	m.state.Promise = &p
	m.held = map[string]bool{m.self.ID: true}
	m.save()
	m.pursue(now, p)
}

// pursue asks for an own proposal until all hold it, or nothing can come of it.
func (m *Machine) pursue(now time.Time, p Proposal) {
	if m.view.Member {
		return // this may be what it founded: it is held for good
	}
	if reason := m.hopeless(p); reason != "" {
		m.drop(now, p, reason, "")
		return
	}
	if m.complete(p) || now.Sub(m.spoken) < askEvery {
		return
	}
	m.spoken = now
	for _, id := range p.Peers {
		if !m.held[id] {
			m.send(id, Message{Kind: Ask, Proposal: p})
		}
	}
}

// complete founds what all hold.
func (m *Machine) complete(p Proposal) bool {
	if m.view.Member || m.hopeless(p) != "" {
		return false
	}
	for _, id := range p.Peers {
		if !m.held[id] {
			return false
		}
	}
	m.found = true
	m.out.Found = &p
	return true
}

// hopeless says why an own proposal should be given up; empty when it should not.
func (m *Machine) hopeless(p Proposal) string {
	d := m.decide()
	switch {
	case d.cluster != "":
		return "the founder has met cluster " + d.cluster
	case d.mistake != "":
		return d.mistake
	case m.self.NonVoter || len(p.Peers) != m.self.Expect:
		return "the founder was started with other settings"
	}
	for _, id := range p.Peers {
		if id != m.self.ID && !m.peer(id).Present {
			return m.name(id) + " is away"
		}
	}
	return ""
}

// await holds on to another's proposal. When its founder is silent the others are
// asked: one that does not hold it frees all.
func (m *Machine) await(now time.Time, p Proposal) {
	if m.view.Member {
		return
	}
	if m.peer(p.Founder).Gone && m.decide().cluster == "" {
		m.release(now, p)
		return
	}
	if m.heard.IsZero() {
		m.heard = now // after a restart
	}
	if now.Sub(m.heard) < checkEvery || now.Sub(m.spoken) < checkEvery {
		return
	}
	m.spoken = now
	for _, id := range p.Peers {
		if id != m.self.ID {
			m.send(id, Message{Kind: Check, Proposal: p})
		}
	}
}

// Receive takes in a message. What does not concern this peer is ignored.
func (m *Machine) Receive(now time.Time, from string, msg Message) Effects {
	p := msg.Proposal
	if p.check() != nil || !p.names(m.self.ID) || !p.names(from) || from == m.self.ID {
		return Effects{}
	}
	holds := p.is(m.state.Promise)
	switch msg.Kind {
	case Ask:
		if from == p.Founder {
			m.answerAsk(now, p)
		}
	case Check:
		if holds {
			m.send(from, Message{Kind: Held, Proposal: p})
			m.noteHolder(now, from, p)
		} else {
			m.never(p, "it holds no such proposal")
		}
	case Held:
		if holds {
			m.noteHolder(now, from, p)
		}
	case Never:
		if holds && !m.found && !m.view.Member {
			m.giveUp(now, from, p, msg.Reason)
		}
	}
	return m.flush()
}

func (m *Machine) answerAsk(now time.Time, p Proposal) {
	if !p.is(m.state.Promise) {
		if reason := m.objection(p); reason != "" {
			m.never(p, reason)
			return
		}
		m.state.Promise = &p
		m.save()
	}
	m.heard = now
	m.send(p.Founder, Message{Kind: Held, Proposal: p})
}

// objection says why this peer does not promise p; empty when it does.
func (m *Machine) objection(p Proposal) string {
	d := m.decide()
	switch {
	case m.view.Member:
		return m.self.Name + " has a log already"
	case d.cluster != "":
		return m.self.Name + " has met cluster " + d.cluster
	case m.self.NonVoter || m.self.Expect != len(p.Peers):
		return m.self.Name + " expects " + strconv.Itoa(m.self.Expect) + " peers"
	case d.mistake != "":
		return d.mistake
	case m.state.Promise != nil:
		return m.self.Name + " has promised to found with " + m.name(m.state.Promise.Founder)
	case m.state.Refused[p.Founder] >= p.Seq:
		return m.self.Name + " has given that proposal up"
	}
	return ""
}

// noteHolder counts who holds an own proposal, and hears of the founder of
// another's.
func (m *Machine) noteHolder(now time.Time, from string, p Proposal) {
	switch {
	case p.Founder == m.self.ID && !m.found:
		m.held[from] = true
		m.complete(p)
	case from == p.Founder:
		m.heard = now
	}
}

// giveUp lets go of a proposal that one of its peers will never hold.
func (m *Machine) giveUp(now time.Time, from string, p Proposal, reason string) {
	if p.Founder == m.self.ID {
		m.drop(now, p, reason, from)
		return
	}
	m.release(now, p)
}

// drop gives up an own proposal and frees those who hold it.
func (m *Machine) drop(now time.Time, p Proposal, reason, except string) {
	m.state.Promise = nil
	m.refuse = reason
	m.retry = now.Add(retryAfter + m.jitter())
	m.save()
	for _, id := range p.Peers {
		if id != m.self.ID && id != except {
			m.send(id, Message{Kind: Never, Proposal: p, Reason: reason})
		}
	}
}

// release lets go of another's proposal.
func (m *Machine) release(now time.Time, p Proposal) {
	m.state.Promise = nil
	m.state.Refused[p.Founder] = max(m.state.Refused[p.Founder], p.Seq)
	m.retry = now.Add(retryAfter + m.jitter())
	m.save()
}

// never answers that this peer does not hold p, after making sure that it never
// will. Its own proposals carry their number in Seq, and a peer with a log
// promises nothing any more: there is nothing to keep for these.
func (m *Machine) never(p Proposal, reason string) {
	own := p.Founder == m.self.ID
	if own && p.Seq > m.state.Seq {
		return // of somebody who runs with this identity
	}
	if !own && !m.view.Member && m.state.Refused[p.Founder] < p.Seq {
		if _, known := m.state.Refused[p.Founder]; !known && len(m.state.Refused) >= maxRefused {
			return
		}
		m.state.Refused[p.Founder] = p.Seq
		m.save()
	}
	for _, id := range p.Peers {
		if id != m.self.ID {
			m.send(id, Message{Kind: Never, Proposal: p, Reason: reason})
		}
	}
}

func (m *Machine) save() { m.out.Save = m.state.clone() }

func (m *Machine) send(to string, msg Message) {
	m.out.Send = append(m.out.Send, Envelope{To: to, Message: msg})
}

func (m *Machine) flush() Effects {
	out := m.out
	m.out = Effects{}
	return out
}

// jitter spreads the next attempts of different peers without a source of chance.
func (m *Machine) jitter() time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(m.self.ID + strconv.FormatUint(m.state.Seq, 10)))
	return time.Duration(h.Sum32()%1000) * 2 * retryAfter / 1000
}

func (m *Machine) peer(id string) Peer {
	for _, p := range m.view.Peers {
		if p.ID == id {
			return p
		}
	}
	return Peer{ID: id, Name: id}
}

func (m *Machine) name(id string) string {
	if id == m.self.ID {
		return m.self.Name
	}
	return m.peer(id).Name
}
