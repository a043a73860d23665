package fsm

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// with returns a state of origins of which each may be changed before it comes.
func with(origins ...Origin) *State {
	s := NewState(Limits{})
	for _, o := range origins {
		s.Apply(s.Index()+1, epoch, PutOrigin{Origin: o})
	}
	return s
}

// but returns an origin with a change.
func but(id string, change func(*Origin)) Origin {
	o := origin(id)
	change(&o)
	return o
}

// load places so many streams on an origin.
func load(s *State, id string, streams int) {
	o, _ := s.Origin(OriginID(id))
	for i := range streams {
		s.Apply(s.Index()+1, epoch, Place{
			Stream: named(id + strconv.Itoa(i)), Origin: o.ID, Incarnation: o.Incarnation, Holder: peerA,
		})
	}
}

// choose checks that Explain and Choose agree and returns the choice, or the
// error without the sentinel's text.
func choose(t *testing.T, p Policy, s *State, q Query) string {
	t.Helper()
	chosen, err := p.Choose(s, q)
	explained, explainedErr := p.Explain(s, q).Chosen()
	if !reflect.DeepEqual(chosen, explained) || (err == nil) != (explainedErr == nil) {
		t.Errorf("Choose = %+v, %v; Explain says %+v, %v", chosen, err, explained, explainedErr)
	}
	if err != nil {
		if !errors.Is(err, ErrNoCandidate) {
			t.Errorf("Choose = %v; want ErrNoCandidate", err)
		}
		return strings.TrimPrefix(err.Error(), ErrNoCandidate.Error()+": ")
	}
	return string(chosen.Origin)
}

func TestPolicyChooses(t *testing.T) {
	small := but("b", func(o *Origin) { o.MaxStreams = 1 })
	heavy := but("b", func(o *Origin) { o.Weight = 300 })
	eu := but("b", func(o *Origin) { o.Labels = []string{"eu"} })
	pool := Policy{Rules: []Rule{{Match: "*/live/*", Pool: "eu", Backup: "us"}, {Match: "*/*/*", Pool: "asia"}}}
	for name, c := range map[string]struct {
		policy Policy
		state  *State
		before func(*State)
		query  Query
		want   string
	}{
		"nothing known": {state: with(), want: "none is known"},
		"the emptier":   {state: with(origin("a"), origin("b")), before: func(s *State) { load(s, "a", 1) }, want: "b"},
		"twice the load for three times the weight": {
			state:  with(origin("a"), heavy),
			before: func(s *State) { load(s, "a", 1); load(s, "b", 2) }, want: "b",
		},
		"the busier CPU counts up to twice": {
			state:  with(origin("a"), origin("b")),
			before: func(s *State) { load(s, "a", 2); load(s, "b", 2) },
			query: Query{Load: func(id OriginID) Load {
				return Load{CPUPercent: map[OriginID]float64{"a": 1000, "b": 20}[id]}
			}},
			want: "b",
		},
		"a CPU below zero counts as none": {
			state:  with(origin("a"), origin("b")),
			before: func(s *State) { load(s, "b", 1) },
			query:  Query{Load: func(OriginID) Load { return Load{CPUPercent: -100} }},
			want:   "a",
		},
		"weight 0": {state: with(but("a", func(o *Origin) { o.Weight = 0 })), want: "a: weight 0"},
		"full": {
			state: with(origin("a"), small), before: func(s *State) { load(s, "a", 5); load(s, "b", 1) }, want: "a",
		},
		"full, nothing else": {
			state: with(small), before: func(s *State) { load(s, "b", 1) }, want: "b: full: 1 streams",
		},
		"down": {
			state: with(origin("a")), want: "a: down",
			before: func(s *State) { s.Apply(9, epoch, SetUp{ID: "a", Incarnation: run("1")}) },
		},
		"draining": {
			state: with(origin("a")), want: "a: draining",
			before: func(s *State) { s.Apply(9, epoch, Drain{ID: "a"}) },
		},
		"another protocol": {state: with(origin("a"), full("b")), query: Query{Protocol: SRT}, want: "b"},
		"no such protocol": {state: with(origin("a")), query: Query{Protocol: RTC}, want: "a: does not serve rtc"},
		"unknown protocol": {state: with(full("a")), query: Query{Protocol: 77}, want: "a: does not serve protocol(77)"},
		"not reached": {
			state: with(origin("a"), origin("b")), query: Query{Avoid: []OriginID{"a"}}, want: "b",
		},
		"reached by nobody": {
			state: with(origin("a")), query: Query{Avoid: []OriginID{"a"}}, want: "a: not reached from this peer",
		},
		"the pool's, though it has more": {
			policy: pool, state: with(origin("a"), eu), before: func(s *State) { load(s, "b", 9) }, want: "b",
		},
		"the backup's when the pool cannot": {
			policy: pool, state: with(eu, but("c", func(o *Origin) { o.Labels = []string{"big", "us"} })),
			before: func(s *State) { s.Apply(9, epoch, SetUp{ID: "b", Incarnation: run("1")}) }, want: "c",
		},
		"neither pool nor backup": {policy: pool, state: with(origin("a")), want: "a: not in pool us"},
		"the first rule that matches": {
			policy: pool, state: with(eu), query: Query{Stream: Stream{VHost: "v", App: "vod", Name: "s"}},
			want: "b: not in pool asia",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.before != nil {
				c.before(c.state)
			}
			if c.query.Stream.IsZero() {
				c.query.Stream = named("s")
			}
			if got := choose(t, c.policy, c.state, c.query); got != c.want {
				t.Errorf("Choose = %q; want %q", got, c.want)
			}
		})
	}
}

// TestBurstFollowsWeights: as many placements as there are shares fall out as the
// weights say, with no report in between.
func TestBurstFollowsWeights(t *testing.T) {
	s := with(origin("a"), but("b", func(o *Origin) { o.Weight = 200 }), but("c", func(o *Origin) { o.Weight = 300 }))
	for i := range 600 {
		c, err := Policy{}.Choose(s, Query{Stream: named(strconv.Itoa(i))})
		if err != nil {
			t.Fatal(err)
		}
		s.Apply(s.Index()+1, epoch, Place{Stream: named(strconv.Itoa(i)), Origin: c.Origin, Incarnation: c.Incarnation, Holder: peerA})
	}
	for id, want := range map[OriginID]int{"a": 100, "b": 200, "c": 300} {
		if got := s.StreamsOn(id); got < want-2 || got > want+2 {
			t.Errorf("%s has %d streams; want %d", id, got, want)
		}
	}
}

func TestSlowStartGrowsTheShare(t *testing.T) {
	p := Policy{SlowStart: 100 * time.Second}
	s := with(origin("old"))
	load(s, "old", 9)
	s.Apply(s.Index()+1, epoch.Add(time.Hour), PutOrigin{Origin: origin("new")})
	for _, c := range []struct {
		age  time.Duration
		want string
	}{
		{0, "new"},                      // 1/0.1 is what 10/1 is: by the name
		{5 * time.Second, "new"},        // a tenth at least
		{11 * time.Second, "new"},       // 1/0.11 below 10/1
		{100 * time.Second, "new"},      // 1/1
		{-time.Hour + time.Hour, "new"}, // a clock behind: a tenth
	} {
		q := Query{Stream: named("tie-0"), Now: epoch.Add(time.Hour + c.age)}
		if got := choose(t, p, s, q); got != c.want && c.age > 10*time.Second {
			t.Errorf("at %s: %s; want %s", c.age, got, c.want)
		}
	}
	load(s, "new", 1)
	for _, c := range []struct {
		age  time.Duration
		want string
	}{
		{15 * time.Second, "old"}, // 2/0.15 against 10
		{21 * time.Second, "new"}, // 2/0.21
		{-time.Minute, "old"},     // a clock that is behind
		{time.Hour, "new"},
	} {
		q := Query{Stream: named("s"), Now: epoch.Add(time.Hour + c.age)}
		if got := choose(t, p, s, q); got != c.want {
			t.Errorf("with a stream, at %s: %s; want %s", c.age, got, c.want)
		}
	}
}

// TestTiesAreSharedByName: equal origins get equal parts of the names, the same
// ones whoever asks, and when one goes only its own names move.
func TestTiesAreSharedByName(t *testing.T) {
	all := []Origin{origin("a"), origin("b"), origin("c"), origin("d")}
	s, fewer := with(all...), with(all[:3]...)
	count := make(map[string]int)
	for i := range 4000 {
		q := Query{Stream: named(strconv.Itoa(i))}
		got := choose(t, Policy{}, s, q)
		count[got]++
		if then := choose(t, Policy{}, fewer, q); got != "d" && then != got {
			t.Errorf("stream %d goes from %s to %s when d goes", i, got, then)
		}
	}
	for id, n := range count {
		if n < 900 || n > 1100 {
			t.Errorf("%s is the first of %d of 4000 names; want a quarter", id, n)
		}
	}
	order := with(all[2], all[0], all[3], all[1])
	for i := range 100 {
		q := Query{Stream: named(strconv.Itoa(i))}
		if a, b := choose(t, Policy{}, s, q), choose(t, Policy{}, order, q); a != b {
			t.Errorf("stream %d: %s or %s, by the order in which origins came", i, a, b)
		}
	}
}

func TestExplainShowsEveryOrigin(t *testing.T) {
	s := with(origin("a"), full("b"), but("c", func(o *Origin) { o.Weight = 0 }))
	load(s, "a", 3)
	p := Policy{Rules: []Rule{{Match: "*/li*/*", Pool: "eu"}}}
	want := Decision{Rule: "*/li*/*", Pool: "eu", Candidates: []Candidate{
		{Origin: "a", Incarnation: run("1"), Reason: "not in pool eu"},
		{Origin: "b", Incarnation: run("2"), Score: 1. / 300, Chosen: true},
		{Origin: "c", Incarnation: run("1"), Reason: "not in pool eu"},
	}}
	if got := p.Explain(s, Query{Stream: named("s")}); !reflect.DeepEqual(got, want) {
		t.Errorf("Explain = %+v; want %+v", got, want)
	}
}

func TestManyReasonsStayALine(t *testing.T) {
	s := NewState(Limits{})
	for i := range 500 {
		s.Apply(1, epoch, PutOrigin{Origin: but(fmt.Sprintf("o%03d", i), func(o *Origin) { o.Weight = 0 })})
	}
	got := choose(t, Policy{}, s, Query{Stream: named("s")})
	if !strings.HasPrefix(got, "o000: weight 0; o001") || !strings.HasSuffix(got, "o009: weight 0; and 490 more") {
		t.Errorf("error = %q", got)
	}
}

func TestRulesMatch(t *testing.T) {
	for _, c := range []struct {
		match  string
		stream Stream
		want   bool
	}{
		{"*/*/*", Stream{"v", "a", "n"}, true},
		{"v/a/n", Stream{"v", "a", "n"}, true},
		{"v/a/n", Stream{"v", "a", "nn"}, false},
		{"v/a/n", Stream{"v", "a", ""}, false},
		{"*/live/cam*", Stream{"v", "live", "cam7"}, true},
		{"*/live/cam*", Stream{"v", "live", "xcam7"}, false},
		{"*/live/*cam", Stream{"v", "live", "webcam"}, true},
		{"*/live/*cam", Stream{"v", "live", "webcam2"}, false},
		{"*/live/a*b*c", Stream{"v", "live", "a-b-b-c"}, true},
		{"*/live/a*b*c", Stream{"v", "live", "a-c-b"}, false},
		{"*/live/a*a", Stream{"v", "live", "a"}, false},
		{"*/live*/x", Stream{"v", "live/hd", "x"}, true},
		{"a/b", Stream{"a", "b", ""}, false},
	} {
		if got := (Rule{Match: c.match}).matches(c.stream); got != c.want {
			t.Errorf("%s matches %s = %v; want %v", c.match, c.stream, got, c.want)
		}
	}
	for _, c := range []struct {
		rule Rule
		ok   bool
	}{
		{Rule{Match: "v/a/*", Pool: "p"}, true},
		{Rule{Match: "v/a/*"}, false},
		{Rule{Match: "v/a", Pool: "p"}, false},
		{Rule{Match: "v//n", Pool: "p"}, false},
		{Rule{Match: "v/a/b/n", Pool: "p"}, false},
	} {
		if err := c.rule.Validate(); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrRule) {
			t.Errorf("Validate(%+v) = %v; want ok %v", c.rule, err, c.ok)
		}
	}
}

func TestChoosingAllocatesNothing(t *testing.T) {
	s := with(origin("a"), origin("b"), origin("c"))
	p := Policy{SlowStart: time.Minute, Rules: []Rule{{Match: "other/*/*", Pool: "x"}}}
	q := Query{Stream: named("s"), Avoid: []OriginID{"b"}, Now: epoch}
	if n := testing.AllocsPerRun(100, func() { _, _ = p.Choose(s, q) }); n != 0 {
		t.Errorf("Choose allocates %v times", n)
	}
}

// BenchmarkChoose among many origins, all tied and spread.
func BenchmarkChoose(b *testing.B) {
	for _, origins := range []int{10, 100, 10_000} {
		s := NewState(Limits{})
		for i := range origins {
			s.Apply(1, epoch, PutOrigin{Origin: origin("origin-" + strconv.Itoa(i))})
		}
		q := Query{Stream: named("s"), Now: epoch}
		b.Run(fmt.Sprintf("%d origins tied", origins), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = Policy{}.Choose(s, q)
			}
		})
		q.Load = func(id OriginID) Load { return Load{CPUPercent: float64(len(id))} }
		b.Run(fmt.Sprintf("%d origins with loads", origins), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = Policy{SlowStart: time.Minute}.Choose(s, q)
			}
		})
	}
}
