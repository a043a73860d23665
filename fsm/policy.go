package fsm

import (
	"errors"
	"fmt"
	"hash/fnv"
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
	Avoid    []OriginID // not in reach of the peer that asks
	Loads    map[OriginID]Load
	Now      time.Time
}

// Candidate is one origin's part in a decision.
type Candidate struct {
	Origin      OriginID
	Incarnation Incarnation
	Score       float64 // load for its weight; the lowest wins
	Reason      string  // why it was passed over; empty: it was eligible
	Chosen      bool

	tie uint64
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
	for _, c := range d.Candidates {
		if c.Chosen {
			return c, nil
		}
	}
	if len(d.Candidates) == 0 {
		return Candidate{}, fmt.Errorf("%w: none is known", ErrNoCandidate)
	}
	reasons := make([]string, len(d.Candidates))
	for i, c := range d.Candidates {
		reasons[i] = fmt.Sprintf("%s: %s", c.Origin, c.Reason)
	}
	return Candidate{}, fmt.Errorf("%w: %s", ErrNoCandidate, strings.Join(reasons, "; "))
}

// Choose decides where a new stream goes. It is a pure function: the same state
// and query give the same decision on every peer.
func (p Policy) Choose(s *State, q Query) Decision {
	rule, ok := p.rule(q.Stream)
	if !ok {
		return p.among(s, q, "")
	}
	d := p.among(s, q, rule.Pool)
	if _, err := d.Chosen(); err != nil && rule.Backup != "" {
		d = p.among(s, q, rule.Backup)
	}
	d.Rule = rule.Match
	return d
}

func (p Policy) rule(stream Stream) (Rule, bool) {
	for _, r := range p.Rules {
		if r.matches(stream) {
			return r, true
		}
	}
	return Rule{}, false
}

// among scores every origin; those outside the pool are passed over.
func (p Policy) among(s *State, q Query, pool string) Decision {
	d := Decision{Pool: pool}
	best := -1
	for _, o := range s.Origins() {
		c := Candidate{Origin: o.ID, Incarnation: o.Incarnation, Reason: obstacle(s, o, q, pool)}
		if c.Reason == "" {
			c.Score, c.tie = p.score(s, o, q), rendezvous(q.Stream, o.ID)
			if best < 0 || c.before(d.Candidates[best]) {
				best = len(d.Candidates)
			}
		}
		d.Candidates = append(d.Candidates, c)
	}
	if best >= 0 {
		d.Candidates[best].Chosen = true
	}
	return d
}

func (c Candidate) before(o Candidate) bool {
	if c.Score != o.Score {
		return c.Score < o.Score
	}
	return c.tie > o.tie
}

// obstacle says why an origin may not take the stream, empty when it may.
func obstacle(s *State, o Origin, q Query, pool string) string {
	switch {
	case pool != "" && !slices.Contains(o.Labels, pool):
		return "not in pool " + pool
	case o.State != Up:
		return o.State.String()
	case len(o.Endpoints.Of(q.Protocol)) == 0:
		return "does not serve " + q.Protocol.String()
	case o.Weight == 0:
		return "weight 0"
	case o.MaxStreams > 0 && s.StreamsOn(o.ID)+q.Loads[o.ID].Coming >= int(o.MaxStreams):
		return fmt.Sprintf("full: %d streams", o.MaxStreams)
	case slices.Contains(q.Avoid, o.ID):
		return "not reached from this peer"
	default:
		return ""
	}
}

// score is the origin's load, with the new stream, for its weight. Streams are
// counted as they are placed, so a burst spreads without waiting for the next
// report; what the origin says of its CPU scales that up to twice.
func (p Policy) score(s *State, o Origin, q Query) float64 {
	reported := q.Loads[o.ID]
	load := float64(s.StreamsOn(o.ID)+reported.Coming+1) * (1 + min(max(reported.CPUPercent, 0), 100)/100)
	return load / (float64(o.Weight) * p.ramp(o, q.Now))
}

// ramp is the share of its weight that an origin has reached since it came up.
func (p Policy) ramp(o Origin, now time.Time) float64 {
	const start = 0.1
	age := now.Sub(o.UpSince)
	if p.SlowStart <= 0 || age >= p.SlowStart {
		return 1
	}
	return max(start, float64(age)/float64(p.SlowStart))
}

// rendezvous breaks ties: highest random weight of the pair, so that equal
// origins share the names and each name has its own order of preference.
func rendezvous(stream Stream, id OriginID) uint64 {
	h := fnv.New64a()
	for _, part := range []string{stream.VHost, stream.App, stream.Name, string(id)} {
		_, _ = h.Write([]byte(part)) // never fails
		_, _ = h.Write([]byte{0})
	}
	x := h.Sum64() // fnv's high bits change little with the last bytes: mix them
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return x
}

// ErrRule is returned by [Rule.Validate].
var ErrRule = errors.New("a rule matches vhost/app/name, with * for any run of characters in one part")

// Validate reports whether the rule can match anything and names a pool.
func (r Rule) Validate() error {
	if parts := strings.Split(r.Match, "/"); len(parts) != 3 || slices.Contains(parts, "") || r.Pool == "" {
		return fmt.Errorf("%w: %q -> %q", ErrRule, r.Match, r.Pool)
	}
	return nil
}

func (r Rule) matches(stream Stream) bool {
	parts := strings.Split(r.Match, "/")
	return len(parts) == 3 && glob(parts[0], stream.VHost) && glob(parts[1], stream.App) && glob(parts[2], stream.Name)
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
