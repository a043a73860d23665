package bench

import (
	"fmt"
	"testing"
	"time"
)

const (
	publications = 300
	// publicationPace leaves the log idle between two placements, which is when
	// followers learn late that an entry is committed.
	publicationPace = 30 * time.Millisecond
)

// routable measures when a stream that was published at one peer can be played
// at the two others, and plays it there before that.
func routable(b *testing.B, r *report) {
	t := start(b, roleBatched, originCount)
	leader, followers := t.byRole(b)
	for _, from := range []struct {
		what string
		at   *process
	}{{"the leader", leader}, {"a follower", followers[0]}} {
		late := t.publish(b, from.at)
		_, p99, _ := quantiles(late)
		f := within(fmt.Sprintf("placed at %s, routable at the others, p99", from.what), p99, 25*time.Millisecond)
		f.measured += " (p50 " + ms(median(late)) + ")"
		r.add(f)
	}
	played, sooner := t.playAtOnce(b, leader, followers)
	r.add(figure{
		what: "played elsewhere at once, succeeds", measured: fmt.Sprintf("%d of %d, %d of them unknown there", played, publications, sooner),
		wanted: "all", met: played == publications,
	})
}

// publish places streams at one peer and returns how much later each of the
// others knew of each.
func (t trio) publish(b *testing.B, at *process) []time.Duration {
	b.Helper()
	prefix := "from-" + at.options.Name
	t.each(b, "Watch", None{})
	placed := make([]int64, publications)
	for i := range placed {
		var p Placed
		at.call(b, "Place", One{Prefix: prefix, Number: i, Publish: true}, &p)
		placed[i] = p.At
		time.Sleep(publicationPace)
	}
	var late []time.Duration
	for _, p := range t {
		if p == at {
			continue
		}
		var seen []int64
		p.call(b, "Seen", Range{Prefix: prefix, Count: publications}, &seen)
		for i, at := range seen {
			if at == 0 {
				b.Fatalf("%s never saw stream %d", p.options.Name, i)
			}
			late = append(late, max(0, time.Duration(at-placed[i])))
		}
	}
	return late
}

// playAtOnce plays each stream at a follower as soon as it is published at the
// leader. It returns how many plays found it where it was published, and how
// many of them had to ask.
func (t trio) playAtOnce(b *testing.B, leader *process, followers []*process) (played, asked int) {
	b.Helper()
	for i := range publications {
		var published, play Placed
		leader.call(b, "Place", One{Prefix: "at-once", Number: i, Publish: true}, &published)
		if err := followers[i%2].try("Place", One{Prefix: "at-once", Number: i}, &play); err != nil {
			b.Logf("play %d: %v", i, err)
			continue
		}
		if play.Origin == published.Origin && !play.Created {
			played++
			if !play.Known {
				asked++
			}
		}
		time.Sleep(publicationPace)
	}
	return played, asked
}
