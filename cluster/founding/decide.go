package founding

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// decision is what a view means for a peer that holds no proposal.
type decision struct {
	cluster string   // that exists already: it is to be joined
	mistake string   // settings that do not fit together
	met     []Peer   // who may found, self included, lowest id first
	peers   []string // the lowest of them, when there are enough
	propose bool     // self is the lowest
}

func (m *Machine) decide() decision {
	var d decision
	if m.self.Expect > 0 && !m.self.NonVoter {
		d.met = append(d.met, m.self)
	}
	for _, p := range m.view.Peers {
		switch {
		case p.Cluster != "" && !p.Gone:
			// Also when it is away: the cluster may well go on without it.
			d.cluster = p.Cluster
		case !p.candidate() || m.self.NonVoter || m.self.Expect == 0:
		case p.Expect != m.self.Expect:
			d.mistake = fmt.Sprintf("%s expects %d peers and %s %d: -bootstrap-expect must be the same everywhere",
				m.self.Name, m.self.Expect, p.Name, p.Expect)
		default:
			d.met = append(d.met, p)
		}
	}
	slices.SortFunc(d.met, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
	if m.view.Member || d.cluster != "" || d.mistake != "" || len(d.met) == 0 || len(d.met) < m.self.Expect {
		return d
	}
	for _, p := range d.met[:m.self.Expect] {
		d.peers = append(d.peers, p.ID)
	}
	d.propose = d.peers[0] == m.self.ID
	return d
}

// Waiting says in one line what this peer waits for; empty for a member. A mistake
// is one that an operator has to correct.
func (m *Machine) Waiting() (reason string, mistake bool) {
	d := m.decide()
	p := m.state.Promise
	switch {
	case m.view.Member:
		return "", false
	case d.cluster != "":
		return fmt.Sprintf("waiting to be let into cluster %s by %s", d.cluster, m.membersOf(d.cluster)), false
	case d.mistake != "":
		return d.mistake, true
	case m.found:
		return "founding cluster " + p.Cluster(), false
	case p != nil && p.Founder == m.self.ID:
		return "waiting for the promise of " + m.names(m.silent(*p)) + " to found a cluster together", false
	case p != nil:
		return m.waitingFor(*p), false
	case m.self.NonVoter:
		return "waiting for a cluster to let this replica in; none met yet", false
	case m.self.Expect == 0:
		return "waiting for a cluster to let this peer in; none met yet, and without -bootstrap-expect it founds none", false
	case d.peers == nil:
		return fmt.Sprintf("met %d of %d peers that found a cluster together: %s", len(d.met), m.self.Expect, names(d.met)), false
	case !d.propose:
		return "waiting for " + m.name(d.peers[0]) + ", who has the lowest id of " + names(d.met) + ", to found a cluster", false
	case m.refuse != "":
		return "about to try again to found a cluster with " + names(d.met) + ": " + m.refuse, false
	default:
		return "about to found a cluster with " + names(d.met), false
	}
}

// Proposed returns the UUID of the cluster that an own proposal founds, or has
// founded; empty: it holds none.
func (m *Machine) Proposed() string {
	if p := m.state.Promise; p != nil && p.Founder == m.self.ID {
		return p.Cluster()
	}
	return ""
}

func (m *Machine) waitingFor(p Proposal) string {
	founder := m.peer(p.Founder)
	text := "promised " + founder.Name + " to found a cluster by " + m.names(p.Peers)
	if founder.Present {
		return text + "; waiting for it"
	}
	return text + "; it is away, and nobody knows whether it did; if it is gone for good: srsx force-leave " + founder.Name
}

// silent returns who has not answered to an own proposal.
func (m *Machine) silent(p Proposal) []string {
	return slices.DeleteFunc(slices.Clone(p.Peers), func(id string) bool { return m.held[id] })
}

func (m *Machine) membersOf(cluster string) string {
	return names(slices.DeleteFunc(slices.Clone(m.view.Peers), func(p Peer) bool { return p.Cluster != cluster || p.Gone }))
}

func (m *Machine) names(ids []string) string {
	all := make([]string, len(ids))
	for i, id := range ids {
		all[i] = m.name(id)
	}
	return strings.Join(all, ", ")
}

func names(peers []Peer) string {
	all := make([]string, len(peers))
	for i, p := range peers {
		all[i] = p.Name
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
