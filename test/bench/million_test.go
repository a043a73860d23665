package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"srsx/fsm"
	"srsx/test/peertest"
)

const million = 1_000_000

// millionStreams measures what a million streams take of three peers.
func millionStreams(b *testing.B, r *report) {
	t := start(b, roleBatched, originCount)
	leader, followers := t.byRole(b)
	var empty Memory
	for _, p := range t {
		var m Memory
		p.call(b, "Memory", None{}, &m)
		empty.Heap, empty.Resident = max(empty.Heap, m.Heap), max(empty.Resident, m.Resident)
	}
	began := time.Now()
	leader.call(b, "Fill", Range{Prefix: "million", Count: million}, &None{})
	b.Logf("a million placed in %v", time.Since(began))
	for _, p := range followers {
		peertest.Eventually(b, 2*time.Minute, p.options.Name+" knows a million", func() bool {
			var known int
			p.call(b, "Count", Range{Prefix: "million", Count: million}, &known)
			return known == million
		})
	}
	var full Memory
	for _, p := range t {
		var m Memory
		p.call(b, "Memory", None{}, &m)
		b.Logf("%s: %+v", p.options.Name, m)
		full.Heap, full.Resident = max(full.Heap, m.Heap), max(full.Resident, m.Resident)
	}
	r.add(figure{
		what:     "a million streams, memory of a peer",
		measured: fmt.Sprintf("%d MB live, %d MB of the process", full.Heap>>20, full.Resident>>20),
		wanted:   "<= 160 MB", met: full.Resident <= 160<<20,
	})
	var hot Hotness
	followers[0].call(b, "Hot", One{Prefix: "million", Number: 4711}, &hot)
	r.add(figure{
		what: "where is a stream, among a million, hot", measured: fmt.Sprintf("%d ns, %.0f allocations", hot.Took.Nanoseconds(), hot.Allocations),
		wanted: "<= 100 ns, 0", met: hot.Took <= 100*time.Nanosecond && hot.Allocations == 0,
	})
	file := filepath.Join(b.TempDir(), "snapshot")
	leader.call(b, "Snapshot", file, &None{})
	snapshots(b, r, file)
}

// Snapshot saves the state to a file.
func (d *Drive) Snapshot(path string, _ *None) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	if _, err = d.batched.peer.SaveSnapshot(file); err != nil {
		return err
	}
	return file.Close()
}

// snapshots measures with the state of a peer what its snapshots take.
func snapshots(b *testing.B, r *report, file string) {
	saved, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	r.add(figure{
		what: "snapshot of a million streams", measured: fmt.Sprintf("%.1f MB", float64(len(saved))/(1<<20)), wanted: "<= 50 MB",
		met: len(saved) <= 50<<20,
	})
	var state *fsm.State
	var restoring, pauses []time.Duration
	for range 3 {
		began := time.Now()
		if state, err = fsm.Restore(bytes.NewReader(saved), fsm.Limits{}); err != nil {
			b.Fatal(err)
		}
		restoring = append(restoring, time.Since(began))
	}
	r.add(within("restore of a million streams, median of 3", median(restoring), time.Second))
	for range 100 {
		began := time.Now()
		s := state.Snapshot()
		pauses = append(pauses, time.Since(began))
		_ = s.Index()
	}
	f := within("pause for a snapshot, longest of 100", slices.Max(pauses), time.Millisecond)
	f.measured += " (p50 " + ms(median(pauses)) + ")"
	r.add(f)
}
