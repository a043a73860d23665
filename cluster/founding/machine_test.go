package founding

import (
	"slices"
	"strings"
	"testing"
	"time"
)

var begin = time.Unix(1000, 0)

// seeing returns the view of one that sees these others present.
func seeing(ids string, expect int) View {
	var v View
	for id := range strings.SplitSeq(ids, "") {
		v.Peers = append(v.Peers, Peer{ID: id, Name: "n" + id, Present: true, Expect: expect})
	}
	return v
}

func newMachine(id string, expect int, kept State) *Machine {
	return NewMachine(Peer{ID: id, Name: "n" + id, Expect: expect}, kept)
}

func said(out Effects, kind Kind, to string) bool {
	return slices.ContainsFunc(out.Send, func(e Envelope) bool { return e.Kind == kind && e.To == to })
}

func TestOneThatExpectsItselfFoundsAlone(t *testing.T) {
	m := newMachine("a", 1, State{})
	out := m.Observe(begin, View{})
	if out.Found == nil || !slices.Equal(out.Found.Peers, []string{"a"}) {
		t.Fatalf("Found = %+v; want by itself", out.Found)
	}
	if out.Save == nil || !out.Found.is(out.Save.Promise) {
		t.Errorf("Save = %+v; want the promise to itself kept first", out.Save)
	}
	if again := m.Observe(begin.Add(time.Minute), View{}); again.Found != nil {
		t.Error("founded twice")
	}
}

func TestNobodyFoundsWhereThereIsACluster(t *testing.T) {
	for name, peer := range map[string]Peer{
		"alive": {ID: "b", Name: "nb", Present: true, Cluster: "c1", Expect: 1},
		"away":  {ID: "b", Name: "nb", Cluster: "c1", Expect: 1},
	} {
		m := newMachine("a", 1, State{})
		if out := m.Observe(begin, View{Peers: []Peer{peer}}); out.Found != nil || out.Send != nil {
			t.Errorf("%s member of a cluster: did %+v; want nothing", name, out)
		}
		if reason, mistake := m.Waiting(); mistake || !strings.Contains(reason, "c1 by nb") {
			t.Errorf("%s: waits for %q; want to be let in by nb", name, reason)
		}
	}
	m := newMachine("a", 1, State{})
	gone := Peer{ID: "b", Name: "nb", Gone: true, Cluster: "c1"}
	if out := m.Observe(begin, View{Peers: []Peer{gone}}); out.Found == nil {
		t.Error("a cluster whose only member has left keeps this one from founding")
	}
}

func TestPeerWithALogFoundsNothing(t *testing.T) {
	m := newMachine("a", 1, State{})
	if out := m.Observe(begin, View{Member: true}); out.Found != nil || out.Save != nil {
		t.Errorf("did %+v; want nothing", out)
	}
	if reason, _ := m.Waiting(); reason != "" {
		t.Errorf("waits for %q; want nothing", reason)
	}
	p := Proposal{Founder: "Z", Seq: 1, Peers: []string{"Z", "a"}}
	if out := m.Receive(begin, "Z", Message{Kind: Ask, Proposal: p}); !said(out, Never, "Z") {
		t.Errorf("answered %+v; want Never", out.Send)
	}
}

func TestOnlyTheLowestAsks(t *testing.T) {
	for id, asks := range map[string]bool{"a": true, "b": false, "c": false, "d": false} {
		m := newMachine(id, 3, State{})
		out := m.Observe(begin, seeing(strings.ReplaceAll("abcd", id, ""), 3))
		if got := len(out.Send) > 0; got != asks {
			t.Errorf("%s sends %+v; want to ask: %t", id, out.Send, asks)
		}
		if asks && (!said(out, Ask, "b") || !said(out, Ask, "c") || said(out, Ask, "d")) {
			t.Errorf("asks %+v; want b and c", out.Send)
		}
	}
}

func TestReplicasFoundNothing(t *testing.T) {
	m := NewMachine(Peer{ID: "a", Name: "na", Expect: 1, NonVoter: true}, State{})
	if out := m.Observe(begin, View{}); out.Found != nil {
		t.Error("a replica founded a cluster")
	}
	v := seeing("bc", 3)
	v.Peers[1].NonVoter = true
	if out := newMachine("a", 3, State{}).Observe(begin, v); out.Send != nil {
		t.Errorf("asked %+v; want to wait for a third who votes", out.Send)
	}
}

func TestPromiseIsExclusiveAndOnDiskBeforeItIsSaid(t *testing.T) {
	m := newMachine("c", 3, State{})
	m.Observe(begin, seeing("abde", 3))
	first := Proposal{Founder: "a", Seq: 1, Peers: []string{"a", "b", "c"}}
	out := m.Receive(begin, "a", Message{Kind: Ask, Proposal: first})
	if out.Save == nil || !first.is(out.Save.Promise) || !said(out, Held, "a") {
		t.Fatalf("first Ask: did %+v; want it kept and promised", out)
	}
	kept := *out.Save
	second := Proposal{Founder: "b", Seq: 9, Peers: []string{"b", "c", "d"}}
	for name, m := range map[string]*Machine{"same run": m, "after a crash": newMachine("c", 3, kept)} {
		m.Observe(begin, seeing("abde", 3))
		out := m.Receive(begin, "b", Message{Kind: Ask, Proposal: second})
		if said(out, Held, "b") || !said(out, Never, "b") {
			t.Errorf("%s: second Ask was answered by %+v; want Never", name, out.Send)
		}
		out = m.Receive(begin, "a", Message{Kind: Ask, Proposal: first})
		if !said(out, Held, "a") {
			t.Errorf("%s: first Ask again was answered by %+v; want Held", name, out.Send)
		}
	}
}

// TestNeverIsForEver is the interleaving that random ones hardly find: b says that
// it never will, which frees c, then forgets it in a crash and hears an old Ask.
func TestNeverIsForEver(t *testing.T) {
	p := Proposal{Founder: "a", Seq: 1, Peers: []string{"a", "b", "c"}}
	b := newMachine("b", 3, State{})
	b.Observe(begin, seeing("ac", 3))
	out := b.Receive(begin, "c", Message{Kind: Check, Proposal: p})
	if !said(out, Never, "c") {
		t.Fatalf("Check was answered by %+v; want Never", out.Send)
	}
	if out.Save == nil {
		t.Fatal("Never was said before it was kept")
	}
	b = newMachine("b", 3, *out.Save)
	b.Observe(begin, seeing("ac", 3))
	if out := b.Receive(begin, "a", Message{Kind: Ask, Proposal: p}); said(out, Held, "a") {
		t.Error("promised what it had said it never will")
	}
	next := Proposal{Founder: "a", Seq: 2, Peers: p.Peers}
	if out := b.Receive(begin, "a", Message{Kind: Ask, Proposal: next}); !said(out, Held, "a") {
		t.Errorf("next proposal was answered by %+v; want Held", out.Send)
	}
}

func TestSilentFounderIsAskedAfterAndItsWordFrees(t *testing.T) {
	p := Proposal{Founder: "a", Seq: 1, Peers: []string{"a", "b", "c"}}
	c := newMachine("c", 3, State{Promise: &p})
	v := seeing("ab", 3)
	v.Peers[0].Present = false
	c.Observe(begin, v)
	if out := c.Observe(begin.Add(checkEvery-time.Second), v); out.Send != nil {
		t.Errorf("asked %+v; want patience first", out.Send)
	}
	out := c.Observe(begin.Add(checkEvery), v)
	if !said(out, Check, "a") || !said(out, Check, "b") {
		t.Fatalf("asked %+v; want a and b", out.Send)
	}
	if reason, _ := c.Waiting(); !strings.Contains(reason, "force-leave na") {
		t.Errorf("waits for %q; want the command that ends it", reason)
	}
	c.Receive(begin, "b", Message{Kind: Held, Proposal: p})
	if out = c.Observe(begin.Add(time.Hour), v); !said(out, Check, "b") {
		t.Errorf("did %+v after an hour; want to hold on and ask again", out)
	}
	out = c.Receive(begin.Add(time.Hour), "b", Message{Kind: Never, Proposal: p})
	if out.Save == nil || out.Save.Promise != nil || out.Save.Refused["a"] != 1 {
		t.Errorf("Never left %+v; want it free, and that proposal refused", out.Save)
	}
}

func TestOperatorsWordEndsAPromise(t *testing.T) {
	p := Proposal{Founder: "a", Seq: 1, Peers: []string{"a", "b", "c"}}
	v := seeing("abde", 3)
	v.Peers[0].Present, v.Peers[0].Gone = false, true
	c := newMachine("c", 3, State{Promise: &p})
	out := c.Observe(begin, v)
	if out.Save == nil || out.Save.Promise != nil {
		t.Errorf("did %+v; want the promise to a founder that is gone given up", out)
	}
	// But not where a cluster is known: it may be the one that was promised.
	v.Peers[1].Cluster = p.Cluster()
	c = newMachine("c", 3, State{Promise: &p})
	if out := c.Observe(begin, v); out.Save != nil {
		t.Errorf("did %+v beside a cluster; want to wait for it", out)
	}
}

func TestFounderFreesAllWhenOneRefuses(t *testing.T) {
	a := newMachine("a", 3, State{})
	v := seeing("bc", 3)
	out := a.Observe(begin, v)
	p := *out.Save.Promise
	a.Receive(begin, "b", Message{Kind: Held, Proposal: p})
	out = a.Receive(begin, "c", Message{Kind: Never, Proposal: p, Reason: "nc is busy"})
	if out.Save == nil || out.Save.Promise != nil || !said(out, Never, "b") {
		t.Fatalf("did %+v; want it given up and b told", out)
	}
	if reason, _ := a.Waiting(); !strings.Contains(reason, "nc is busy") {
		t.Errorf("waits for %q; want the reason", reason)
	}
	if out := a.Receive(begin, "b", Message{Kind: Check, Proposal: p}); !said(out, Never, "b") {
		t.Errorf("Check of what it gave up: %+v; want Never", out.Send)
	}
	if out := a.Observe(begin.Add(3*retryAfter), v); !said(out, Ask, "b") || out.Save.Seq != p.Seq+1 {
		t.Errorf("later: did %+v; want a proposal with the next number", out)
	}
}

func TestOnlyWordsAboutThisProposalByItsPeersCount(t *testing.T) {
	peers := []string{"a", "b", "c"}
	old, now := Proposal{Founder: "a", Seq: 1, Peers: peers}, Proposal{Founder: "a", Seq: 2, Peers: peers}
	a := newMachine("a", 3, State{Seq: 2, Promise: &now})
	a.Observe(begin, seeing("bcd", 3))
	a.Receive(begin, "b", Message{Kind: Held, Proposal: now})
	if out := a.Receive(begin, "c", Message{Kind: Held, Proposal: old}); out.Found != nil {
		t.Error("founded by a late answer to an earlier proposal")
	}
	if out := a.Receive(begin, "c", Message{Kind: Never, Proposal: old}); out.Save != nil {
		t.Error("gave up for a late answer to an earlier proposal")
	}
	if out := a.Receive(begin, "d", Message{Kind: Never, Proposal: now}); out.Save != nil {
		t.Error("gave up for the word of one who is not named")
	}
	if out := a.Receive(begin, "c", Message{Kind: Held, Proposal: now}); out.Found == nil {
		t.Error("not founded though all hold it")
	}
}

func TestFounderThatCrashedGoesOn(t *testing.T) {
	v := seeing("bc", 3)
	first := newMachine("a", 3, State{}).Observe(begin, v)
	p := *first.Save.Promise
	a := newMachine("a", 3, *first.Save)
	if out := a.Observe(begin.Add(time.Hour), v); !said(out, Ask, "b") || !said(out, Ask, "c") {
		t.Fatalf("after a crash: did %+v; want the same asked again", out)
	}
	a.Receive(begin, "b", Message{Kind: Held, Proposal: p})
	if out := a.Receive(begin, "c", Message{Kind: Held, Proposal: p}); out.Found == nil || !p.is(out.Found) {
		t.Errorf("did %+v; want it founded", out)
	}
}

func TestHolderTellsSoAlsoAsAMember(t *testing.T) {
	p := Proposal{Founder: "a", Seq: 1, Peers: []string{"a", "b", "c"}}
	for _, id := range []string{"a", "b"} {
		m := newMachine(id, 3, State{Seq: 1, Promise: &p})
		m.Observe(begin, View{Member: true})
		if out := m.Receive(begin, "c", Message{Kind: Check, Proposal: p}); !said(out, Held, "c") {
			t.Errorf("%s answered %+v; want Held: c must not found anew", id, out.Send)
		}
		if out := m.Receive(begin, "c", Message{Kind: Never, Proposal: p}); out.Save != nil {
			t.Errorf("%s let go of what it had founded", id)
		}
	}
}

func TestMessagesThatDoNotFitAreIgnored(t *testing.T) {
	p := Proposal{Founder: "a", Seq: 1, Peers: []string{"a", "b", "c"}}
	for name, c := range map[string]struct {
		from string
		p    Proposal
	}{
		"not by the founder": {"b", p},
		"by a stranger":      {"z", p},
		"not about us":       {"a", Proposal{Founder: "a", Seq: 1, Peers: []string{"a", "b", "d"}}},
		"unordered":          {"a", Proposal{Founder: "a", Seq: 1, Peers: []string{"a", "c", "b"}}},
		"twice the same":     {"a", Proposal{Founder: "a", Seq: 1, Peers: []string{"a", "c", "c"}}},
		"founder not lowest": {"b", Proposal{Founder: "b", Seq: 1, Peers: []string{"a", "b", "c"}}},
		"no number":          {"a", Proposal{Founder: "a", Peers: p.Peers}},
	} {
		m := newMachine("c", 3, State{})
		m.Observe(begin, seeing("ab", 3))
		if out := m.Receive(begin, c.from, Message{Kind: Ask, Proposal: c.p}); out.Save != nil || out.Send != nil {
			t.Errorf("%s: did %+v; want nothing", name, out)
		}
	}
}

func TestWaitingSaysWhatIsMissing(t *testing.T) {
	for want, m := range map[string]func() *Machine{
		"met 2 of 3 peers": func() *Machine {
			m := newMachine("a", 3, State{})
			m.Observe(begin, seeing("b", 3))
			return m
		},
		"without -bootstrap-expect it founds none": func() *Machine {
			return newMachine("a", 0, State{})
		},
		"waiting for na, who has the lowest id": func() *Machine {
			m := newMachine("b", 2, State{})
			m.Observe(begin, seeing("a", 2))
			return m
		},
		"waiting for the promise of nb, nc": func() *Machine {
			m := newMachine("a", 3, State{})
			m.Observe(begin, seeing("bc", 3))
			return m
		},
	} {
		if got, mistake := m().Waiting(); !strings.Contains(got, want) || mistake {
			t.Errorf("Waiting = %q, %t; want %q", got, mistake, want)
		}
	}
}

func FuzzMessage(f *testing.F) {
	p := Proposal{Founder: "a", Seq: 1, Peers: []string{"a", "b", "c"}}
	for _, kind := range []Kind{Ask, Check, Held, Never} {
		f.Add(Message{Kind: kind, Proposal: p, Reason: "x"}.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		machine := newMachine("c", 3, State{})
		machine.Observe(begin, seeing("ab", 3))
		if out := machine.Receive(begin, "a", m); out.Found != nil {
			t.Errorf("%s made it found a cluster", b)
		}
	})
}
