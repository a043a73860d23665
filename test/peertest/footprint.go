package peertest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"
)

// Footprint is what a peer takes of the machine.
type Footprint struct {
	Goroutines, Descriptors int
	Heap                    float64 // bytes, after a collection
}

// Footprint measures the peer after a garbage collection.
func (p *Peer) Footprint(tb testing.TB) Footprint {
	tb.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+p.Pprof+"/debug/pprof/heap?gc=1", nil)
	if err != nil {
		tb.Fatal(err)
	}
	response, err := p.client().Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer response.Body.Close()
	if _, err = io.Copy(io.Discard, response.Body); err != nil {
		tb.Fatal(err)
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil {
		tb.Fatal(err)
	}
	return Footprint{
		Goroutines:  int(p.Metric(tb, "go_goroutines", "")),
		Descriptors: len(files),
		Heap:        p.Metric(tb, "go_memstats_heap_inuse_bytes", ""),
	}
}

// RequireBaseline waits until the peer takes no more than before, give or take
// what the measuring itself needs.
func (p *Peer) RequireBaseline(tb testing.TB, before Footprint) {
	tb.Helper()
	const (
		slack     = 6        // goroutines, descriptors: connections of the measuring
		heapSlack = 12 << 20 // bytes: pools and tables that stay warm
	)
	var now Footprint
	defer func() {
		if tb.Failed() {
			tb.Logf("footprint = %+v; before %+v", now, before)
		}
	}()
	Eventually(tb, 30*time.Second, "goroutines, descriptors and memory back at the baseline", func() bool {
		now = p.Footprint(tb)
		return now.Goroutines <= before.Goroutines+slack && now.Descriptors <= before.Descriptors+slack &&
			now.Heap <= before.Heap+heapSlack
	})
}
