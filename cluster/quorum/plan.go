package quorum

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// Next returns the next step towards the configuration that fits, nil when it
// fits, and notes about peers that are left as they are. One step at a time: the
// one after it is decided when this one is committed. Without a majority that is
// working there is no step at all.
func Next(s Situation, set Settings) (*Step, []Note) {
	p := newPicture(s, set)
	if !slices.ContainsFunc(p.voters, func(v raft.Server) bool { return v.ID == s.Self }) || !p.majorityWithout("") {
		return nil, nil
	}
	for _, decide := range []func() *Step{p.move, p.removeGone, p.add, p.demote, p.promote, p.removeAbsent} {
		if step := decide(); step != nil {
			return step, p.notes
		}
	}
	return nil, p.notes
}

// removeGone removes who has left, or is about to while a majority stays without
// it. The leader itself hands over first.
func (p *picture) removeGone() *Step {
	for _, server := range p.Config.Servers {
		if server.ID == p.Self || !p.goes(server.ID) {
			continue
		}
		if server.Suffrage == raft.Voter && !p.majorityWithout(server.ID) {
			p.note(server.ID, p.name(server.ID)+" wants to leave, but without it there would be no majority: "+p.away(server.ID))
			continue
		}
		return p.step(Remove, server.ID, "it has left")
	}
	return nil
}

// NeededError says why a peer must not leave now: the others had no majority
// without it.
type NeededError struct{ Reason string }

func (e *NeededError) Error() string { return e.Reason }

// MayLeave returns a [*NeededError] when a peer must not leave now. One that is dead
// by gossip and does not work is in nobody's majority: it may always go.
func MayLeave(s Situation, id raft.ServerID) error {
	p := newPicture(s, Settings{})
	for _, v := range p.voters {
		switch {
		case v.ID != id || !p.peers[id].Alive && !p.working(id):
		case len(p.voters) == 1:
			return &NeededError{"it is the only voter, and no replica votes in its place"}
		case !p.majorityWithout(id):
			return &NeededError{"without it there would be no majority: " + p.away(id)}
		}
	}
	return nil
}

// away names the voters, other than the given one, that are not working.
func (p *picture) away(without raft.ServerID) string {
	var names []string
	for _, v := range p.voters {
		if v.ID != without && !p.working(v.ID) {
			names = append(names, p.name(v.ID))
		}
	}
	if len(names) == 0 {
		return "too few voters"
	}
	slices.Sort(names)
	return strings.Join(names, ", ") + " away"
}

// demote takes the vote from one who should not have it.
func (p *picture) demote() *Step {
	limit, staying := p.set.votersAmong(p.countEligible()), p.staying()
	candidates := p.candidates()
	if p.peers[p.Self].NonVoter {
		p.note(p.Self, p.name(p.Self)+" was started with -non-voter and leads: transfer the leadership, then it becomes a replica")
	}
	for _, v := range p.byUse() {
		if v.ID == p.Self || p.goes(v.ID) || !p.majorityWithout(v.ID) {
			continue
		}
		switch {
		case p.peers[v.ID].NonVoter:
			return p.step(Demote, v.ID, "it was started with -non-voter")
		case staying > limit:
			return p.step(Demote, v.ID, fmt.Sprintf("%d voters are enough", limit))
		case p.lost(v.ID) && len(candidates) > 0:
			return p.step(Demote, v.ID, "it is away, and "+p.name(candidates[0].ID)+" can vote in its place")
		case staying%2 == 0 && staying > 2 && !p.mayGrow():
			return p.step(Demote, v.ID, fmt.Sprintf("%d voters bear no more losses than %d", staying, staying-1))
		}
	}
	return nil
}

// byUse returns the voters, those first whose vote is missed least.
func (p *picture) byUse() []raft.Server {
	rank := func(s raft.Server) int {
		switch {
		case p.lost(s.ID):
			return 0
		case !p.working(s.ID):
			return 1
		default:
			return 2
		}
	}
	voters := slices.Clone(p.voters)
	slices.SortFunc(voters, func(a, b raft.Server) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(b.ID, a.ID))
	})
	return voters
}

// mayGrow reports whether a replica is there that votes sooner or later.
func (p *picture) mayGrow() bool {
	return slices.ContainsFunc(p.Config.Servers, func(s raft.Server) bool {
		return s.Suffrage != raft.Voter && p.eligible(s.ID) && p.peers[s.ID].Alive
	})
}

func (p *picture) countEligible() (n int) {
	for _, s := range p.Config.Servers {
		if p.eligible(s.ID) {
			n++
		}
	}
	return n
}

// candidates returns the replicas that may vote from now on, the steadiest first.
func (p *picture) candidates() []raft.Server {
	var able []raft.Server
	for _, s := range p.Config.Servers {
		st := p.Standings[s.ID]
		if s.Suffrage != raft.Voter && p.eligible(s.ID) && p.peers[s.ID].Alive && st.Working && st.Steady >= p.set.Stabilization {
			able = append(able, s)
		}
	}
	slices.SortFunc(able, func(a, b raft.Server) int {
		return cmp.Or(cmp.Compare(p.Standings[b.ID].Steady, p.Standings[a.ID].Steady), cmp.Compare(a.ID, b.ID))
	})
	return able
}

// promote gives a vote to a steady replica where that ends, by itself or with the
// next ones, in an odd number: an even number bears no more losses than the odd
// one below it. The only voter so gets a successor when it is about to leave.
func (p *picture) promote() *Step {
	candidates := p.candidates()
	voters := p.staying()
	room := min(p.set.votersAmong(p.countEligible())-voters, len(candidates))
	if (voters+room)%2 == 0 {
		room--
	}
	if room <= 0 {
		return nil
	}
	// The new voter works, so the majority of one more is there as well.
	step := p.step(Promote, candidates[0].ID, fmt.Sprintf("%d voters become %d", voters, voters+1))
	step.Address = candidates[0].Address
	return step
}

// removeAbsent forgets who has not been seen for days. A voter goes only while
// enough remain: a new replica takes its vote first, as soon as there is one.
func (p *picture) removeAbsent() *Step {
	for _, s := range p.Config.Servers {
		if s.ID == p.Self || p.Standings[s.ID].Absent < p.set.RemoveAfter {
			continue
		}
		if s.Suffrage == raft.Voter && (len(p.voters) <= p.set.MinVoters || !p.majorityWithout(s.ID)) {
			p.note(s.ID, fmt.Sprintf("%s is away for long and kept, for there are only %d voters; if it is gone for good: srsx force-leave %s",
				p.name(s.ID), len(p.voters), p.name(s.ID)))
			continue
		}
		return p.step(Remove, s.ID, "it was away for "+p.set.RemoveAfter.String())
	}
	return nil
}
