package bench

import (
	"flag"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

var profiles = flag.String("profiles", "", "folder for profiles of the processor while placements are made")

const (
	rounds      = 5
	crowd       = 2048    // callers at once
	crowdCount  = 100_000 // placements a round
	loneCount   = 500     // placements of a single caller a round
	originCount = 10
)

// placements compares new placements of both designs, in turns, so that what else
// the machine does hits both.
func placements(b *testing.B, r *report) {
	designs := []string{roleBatched, rolePlain}
	clusters := map[string]trio{}
	for _, role := range designs {
		clusters[role] = start(b, role, originCount)
	}
	rate := map[string][]float64{}
	cpu := map[string][]time.Duration{} // of all three processes, for one placement
	alone := map[string][]time.Duration{}
	following := map[string][]time.Duration{}
	for round := range rounds {
		for _, role := range designs {
			leader, followers := clusters[role].byRole(b)
			result, cost := clusters[role].crowd(b, leader, round)
			rate[role] = append(rate[role], result.PerSecond())
			alone[role] = append(alone[role], leader.load(b, fmt.Sprintf("alone%d", round), 1, loneCount).P50)
			following[role] = append(following[role], followers[0].load(b, fmt.Sprintf("from%d", round), 1, loneCount).P50)
			cpu[role] = append(cpu[role], cost)
			b.Logf("%s: round %d: %.0f/s, p50 %v, %v of all processors a placement; alone p50 %v, through a follower p50 %v", role, round,
				result.PerSecond(), result.P50, cost, alone[role][round], following[role][round])
		}
	}
	ours, theirs := medianOf(rate[roleBatched]), medianOf(rate[rolePlain])
	r.add(figure{
		what: fmt.Sprintf("new placements a second, %d callers", crowd), measured: fmt.Sprintf("%.0f", ours),
		wanted: ">= 60000, 3.0 of plain", beside: fmt.Sprintf("%.1f times plain (%.0f)", ours/theirs, theirs), met: ours >= 60000 && ours >= 3*theirs,
	})
	for _, f := range []struct {
		what string
		took map[string][]time.Duration
		most time.Duration
	}{
		{"a single caller at the leader, p50", alone, 1200 * time.Microsecond},
		{"a single caller at a follower, p50", following, 2 * time.Millisecond},
	} {
		line := within(f.what, median(f.took[roleBatched]), f.most)
		other := median(f.took[rolePlain])
		line.beside = fmt.Sprintf("%.1f times plain (%s)", other.Seconds()/median(f.took[roleBatched]).Seconds(), ms(other))
		r.add(line)
	}
}

func medianOf(of []float64) float64 {
	durations := make([]time.Duration, len(of))
	for i, f := range of {
		durations[i] = time.Duration(f * 1000)
	}
	return float64(median(durations)) / 1000
}

// crowd has many callers place streams at once, and returns what that takes of
// the processors of all three.
func (t trio) crowd(tb testing.TB, at *process, round int) (r Result, cost time.Duration) {
	tb.Helper()
	for _, p := range t {
		if *profiles != "" {
			p.call(tb, "Profile", filepath.Join(*profiles, fmt.Sprintf("%s-%s-%d.prof", p.role, p.options.Name, round)), &None{})
		}
	}
	before := t.processor(tb)
	r = at.load(tb, fmt.Sprintf("crowd%d", round), crowd, crowdCount)
	cost = (t.processor(tb) - before) / crowdCount
	for _, p := range t {
		if *profiles != "" {
			p.call(tb, "Profile", "", &None{})
		}
	}
	return r, cost
}

func (t trio) processor(tb testing.TB) (sum time.Duration) {
	tb.Helper()
	for _, p := range t {
		var used time.Duration
		p.call(tb, "Processor", None{}, &used)
		sum += used
	}
	return sum
}

// load has a process place streams.
func (p *process) load(tb testing.TB, prefix string, callers, count int) (r Result) {
	tb.Helper()
	p.call(tb, "Load", Load{Range: Range{Prefix: prefix, Count: count}, Callers: callers}, &r)
	return r
}
