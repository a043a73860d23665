package bench

import (
	"fmt"
	"testing"
	"time"
)

const (
	aloneStreams = 500_000
	aloneCallers = 2048
)

// alone places streams, kills all three peers at once while the last are hardly
// placed, and measures how many of the streams one of them still routes when it is
// started by itself. What it lacks is the batches that no later one followed, some
// hundred placements, however many there were.
func alone(b *testing.B, r *report) {
	routed, took := routedAlone(b, aloneStreams)
	share := 100 * float64(routed) / aloneStreams
	r.add(figure{
		what:     fmt.Sprintf("one of three killed peers alone, routes of %d streams", aloneStreams),
		measured: fmt.Sprintf("%.3f %%, open in %s", share, ms(took)), wanted: ">= 99.9 %", met: share >= 99.9,
	})
}

// routedAlone returns how many streams a peer routes that was killed as soon as
// they were placed, and started without the others, and how long it took to open.
func routedAlone(tb testing.TB, streams int) (routed int, opened time.Duration) {
	tb.Helper()
	t := start(tb, roleBatched, originCount)
	leader, followers := t.byRole(tb)
	leader.load(tb, "alone", aloneCallers, streams)
	for _, p := range t {
		p.kill()
	}
	o := followers[0].options
	o.Alone = true
	p := launch(tb, roleBatched, o)
	began := time.Now()
	p.call(tb, "Open", o, &Server{})
	opened = time.Since(began)
	p.call(tb, "Count", Range{Prefix: "alone", Count: streams}, &routed)
	return routed, opened
}
