package fsm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrNoCandidate means that no origin may take the stream; the text of the
// error gives the reason for each.
var ErrNoCandidate = errors.New("no origin available")

// Policy is how an origin is chosen for a new stream. It is configured, not
// agreed: peers that differ in it choose differently, and the log decides.
type Policy struct {
	Rules     []Rule        // the first that matches counts
	SlowStart time.Duration // an origin's share grows over this time; 0: at once
}

// Rule narrows the candidates of matching streams to a pool: the origins that
// carry its label. Backup is used when no origin of the pool may take them.
type Rule struct {
	Match  string // vhost/app/name, * for any run of characters in one part
	Pool   string
	Backup string // empty: none
}

// Load is what an origin reports of itself beyond the streams placed on it.
type Load struct {
	CPUPercent float64 // of the machine; 0: not reported
	Coming     int     // streams chosen for it whose commands are under way
}

// Query asks where a stream should go.
type Query struct {
	Stream   Stream
	Protocol Protocol
	Avoid    []OriginID          // not in reach of the peer that asks
	Load     func(OriginID) Load // nil: nothing is known of any
	Now      time.Time
}

// Candidate is one origin's part in a decision.
type Candidate struct {
	Origin      OriginID
	Incarnation Incarnation
	Score       float64 // load for its weight; the lowest wins
	Reason      string  // why it was passed over; empty: it was eligible
	Chosen      bool
}

// Decision is a choice with its working.
type Decision struct {
	Rule       string // pattern of the rule that matched; empty: none did
	Pool       string // label that was demanded; empty: all origins
	Candidates []Candidate
}

// Chosen returns the origin that the decision names, or an error matching
// [ErrNoCandidate] with the reasons.
func (d Decision) Chosen() (Candidate, error) {
	const enough = 10 // reasons: an error is a line
	var reasons []string
	for _, c := range d.Candidates {
		if c.Chosen {
			return c, nil
		}
		if len(reasons) < enough {
			reasons = append(reasons, fmt.Sprintf("%s: %s", c.Origin, c.Reason))
		}
	}
	if more := len(d.Candidates) - len(reasons); more > 0 {
		reasons = append(reasons, fmt.Sprintf("and %d more", more))
	}
	if len(reasons) == 0 {
		reasons = []string{"none is known"}
	}
	return Candidate{}, fmt.Errorf("%w: %s", ErrNoCandidate, strings.Join(reasons, "; "))
}

// Choose decides where a new stream goes, or returns an error matching
// [ErrNoCandidate] with the reasons. It is a pure function: the same state and
// query give the same choice on every peer. It looks at each origin once and
// allocates nothing.
func (p Policy) Choose(s *State, q Query) (Candidate, error) {
	r := p.rule(q.Stream)
	h, score := p.best(s, &q, r.Pool, nil)
	if h == nil && r.Backup != "" {
		h, score = p.best(s, &q, r.Backup, nil)
	}
	if h == nil {
		return p.Explain(s, q).Chosen()
	}
	return Candidate{Origin: h.origin.ID, Incarnation: h.origin.Incarnation, Score: score, Chosen: true}, nil
}

// Explain decides as Choose does and shows every origin's part in it.
func (p Policy) Explain(s *State, q Query) Decision {
	r := p.rule(q.Stream)
	d, ok := p.explain(s, &q, r.Pool)
	if !ok && r.Backup != "" {
		d, _ = p.explain(s, &q, r.Backup)
	}
	d.Rule = r.Match
	return d
}

func (p Policy) explain(s *State, q *Query, pool string) (d Decision, ok bool) {
	d = Decision{Pool: pool, Candidates: make([]Candidate, 0, len(s.homes.ordered))}
	chosen, _ := p.best(s, q, pool, func(h *home, score float64, o obstacle) {
		d.Candidates = append(d.Candidates, Candidate{
			Origin: h.origin.ID, Incarnation: h.origin.Incarnation, Score: score, Reason: o.reason(h, q, pool),
		})
	})
	if chosen == nil {
		return d, false
	}
	at, _ := s.homes.find(chosen.origin.ID)
	d.Candidates[at].Chosen = true
	return d, true
}

// rule returns the first rule that matches, the zero one if none does: its pool
// is all origins.
func (p Policy) rule(stream Stream) Rule {
	for _, r := range p.Rules {
		if r.matches(stream) {
			return r
		}
	}
	return Rule{}
}

// best returns the origin of the lowest score, nil if none may take the stream.
// See, if there is one, is shown each of them in the order of their ids.
func (p Policy) best(s *State, q *Query, pool string, see func(*home, float64, obstacle)) (best *home, score float64) {
	names := hashText(hashText(hashText(hashStart, q.Stream.VHost), q.Stream.App), q.Stream.Name)
	var rank uint64
	for _, h := range s.homes.ordered {
		var own float64
		o := h.obstacle(q, pool)
		if o == nothing {
			own = p.score(h, q)
			// Ties go to the highest random weight of the pair: equal origins share
			// the names, and each name has its own order of preference.
			if ownRank := mix(names ^ h.hash); best == nil || own < score || own == score && ownRank > rank {
				best, score, rank = h, own, ownRank
			}
		}
		if see != nil {
			see(h, own, o)
		}
	}
	return best, score
}

// obstacle is why an origin may not take a stream.
type obstacle uint8

const (
	nothing obstacle = iota
	outsidePool
	notUp
	otherProtocol
	noWeight
	atCap
	notReached
)

func (h *home) obstacle(q *Query, pool string) obstacle {
	o := h.origin
	switch {
	case pool != "" && !slices.Contains(o.Labels, pool):
		return outsidePool
	case o.State != Up:
		return notUp
	case len(o.Endpoints.Of(q.Protocol)) == 0:
		return otherProtocol
	case o.Weight == 0:
		return noWeight
	case h.full():
		return atCap
	case slices.Contains(q.Avoid, o.ID):
		return notReached
	default:
		return nothing
	}
}

// reason spells an obstacle out.
func (o obstacle) reason(h *home, q *Query, pool string) string {
	switch o {
	case outsidePool:
		return "not in pool " + pool
	case notUp:
		return h.origin.State.String()
	case otherProtocol:
		return "does not serve " + q.Protocol.String()
	case noWeight:
		return "weight 0"
	case atCap:
		return fmt.Sprintf("full: %d streams", h.origin.MaxStreams)
	case notReached:
		return "not reached from this peer"
	default:
		return ""
	}
}

// score is the origin's load, with the new stream, for its weight. Streams are
// counted as they are placed, so a burst spreads without waiting for the next
// report; what the origin says of its CPU scales that up to twice.
func (p Policy) score(h *home, q *Query) float64 {
	load := float64(h.streams + 1)
	if q.Load != nil {
		reported := q.Load(h.origin.ID)
		load += float64(reported.Coming)
		load *= 1 + min(max(reported.CPUPercent, 0), 100)/100
	}
	return load / (float64(h.origin.Weight) * p.ramp(h.origin, q.Now))
}

// ramp is the share of its weight that an origin has reached since it came up.
func (p Policy) ramp(o *Origin, now time.Time) float64 {
	const start = 0.1
	if p.SlowStart <= 0 {
		return 1
	}
	age := now.Sub(o.UpSince)
	if age >= p.SlowStart {
		return 1
	}
	return max(start, float64(age)/float64(p.SlowStart))
}

const hashStart = 0xcbf29ce484222325

// hashText goes on with a hash by text and an end mark: FNV-1a.
func hashText(hash uint64, text string) uint64 {
	const prime = 0x100000001b3
	for i := range len(text) {
		hash = (hash ^ uint64(text[i])) * prime
	}
	return hash * prime
}

// mix makes each bit of the result depend on all bits (MurmurHash3's finish).
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// ErrRule is returned by [Rule.Validate].
var ErrRule = errors.New("a rule matches vhost/app/name, with * for any run of characters in one part")

// Validate reports whether the rule can match anything and names a pool.
func (r Rule) Validate() error {
	if vhost, app, name, ok := r.parts(); !ok || vhost == "" || app == "" || name == "" || r.Pool == "" {
		return fmt.Errorf("%w: %q -> %q", ErrRule, r.Match, r.Pool)
	}
	return nil
}

func (r Rule) parts() (vhost, app, name string, ok bool) {
	vhost, rest, _ := strings.Cut(r.Match, "/")
	app, name, ok = strings.Cut(rest, "/")
	return vhost, app, name, ok && !strings.Contains(name, "/")
}

func (r Rule) matches(stream Stream) bool {
	vhost, app, name, ok := r.parts()
	return ok && glob(vhost, stream.VHost) && glob(app, stream.App) && glob(name, stream.Name)
}

// glob matches text against a pattern in which * stands for any run.
func glob(pattern, text string) bool {
	head, rest, star := strings.Cut(pattern, "*")
	if !strings.HasPrefix(text, head) {
		return false
	}
	text = text[len(head):]
	for star {
		var part string
		part, rest, star = strings.Cut(rest, "*")
		if !star {
			return strings.HasSuffix(text, part)
		}
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text = text[at+len(part):]
	}
	return text == ""
}
