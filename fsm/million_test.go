//go:build unix

package fsm

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const million = 1_000_000

// crowd names streams of 16 bytes in a few apps.
func crowd(i int) Stream {
	return Stream{VHost: DefaultVHost, App: "app" + strconv.Itoa(i%5), Name: fmt.Sprintf("cam-%012x", i)}
}

var peers = []Holder{
	{Peer: "6fa3c9a2-5a1c-4a4e-9d0a-0b1f9f6f8a01", Epoch: 7},
	{Peer: "d1a3c9a2-5a1c-4a4e-9d0a-0b1f9f6f8a02", Epoch: 4},
	{Peer: "97a3c9a2-5a1c-4a4e-9d0a-0b1f9f6f8a03", Epoch: 1},
}

// crowdPlaces is the command that places crowd(i) on one of 20 origins.
func crowdPlaces(i int) Place {
	return Place{
		Stream: crowd(i), Origin: OriginID("origin-" + strconv.Itoa(i%20)), Incarnation: run("1"),
		Holder: peers[i%3], Publish: true,
	}
}

// crowded returns a state with so many placements, a third of them held by two
// peers, made by entries of 100 commands.
func crowded(tb testing.TB, n int) *State {
	tb.Helper()
	s := NewState(Limits{})
	for i := range 20 {
		s.Apply(1, epoch, PutOrigin{Origin: origin("origin-" + strconv.Itoa(i))})
	}
	at := epoch
	batch := make([]Command, 0, 200)
	for i := range n {
		batch = append(batch, crowdPlaces(i))
		if i%3 == 0 {
			second := crowdPlaces(i)
			second.Holder, second.Publish = peers[(i+1)%3], false
			batch = append(batch, second)
		}
		if i%100 == 99 || i == n-1 {
			at = at.Add(time.Millisecond)
			s.Apply(s.Index()+1, at, batch...)
			batch = batch[:0]
		}
	}
	if s.Len() != n {
		tb.Fatalf("placed %d; want %d", s.Len(), n)
	}
	return s
}

// cpu reports the processor time of a benchmark beside its wall clock, which on a
// busy machine is mostly that of others. Use: defer cpu(b)().
func cpu(b *testing.B) (done func()) {
	b.Helper()
	used := func() time.Duration {
		var r syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	before := used()
	return func() { b.ReportMetric(float64((used()-before).Nanoseconds())/float64(b.N), "cpu-ns/op") }
}

// heap returns the bytes of live objects.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMillion is one state of a million placements and what can be done
// with it.
func BenchmarkMillion(b *testing.B) {
	before := heap()
	s := crowded(b, million)
	perEntry := float64(heap()-before) / million
	var snapshot bytes.Buffer
	_, _ = s.Snapshot().WriteTo(&snapshot)

	b.Run("bytes", func(b *testing.B) {
		for b.Loop() {
			_ = s.Len()
		}
		b.ReportMetric(perEntry, "heap-B/entry")
		b.ReportMetric(float64(snapshot.Len())/million, "snapshot-B/entry")
	})
	b.Run("find random", func(b *testing.B) { findRandom(b, s) })
	b.Run("find hot", func(b *testing.B) {
		stream := crowd(4711)
		b.ReportAllocs()
		defer cpu(b)()
		for b.Loop() {
			if _, ok := s.Placement(stream); !ok {
				b.Fatal("not placed")
			}
		}
	})
	b.Run("apply", func(b *testing.B) { applyBatches(b, s) })
	b.Run("snapshot pause", func(b *testing.B) { snapshotPause(b, s) })
	b.Run("snapshot write", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			if _, err := s.Snapshot().WriteTo(io.Discard); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("restore", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			if _, err := Restore(bytes.NewReader(snapshot.Bytes()), Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("collect", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			runtime.GC()
		}
		runtime.KeepAlive(s)
	})
}

func findRandom(b *testing.B, s *State) {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	streams := make([]Stream, 1<<16)
	for i := range streams {
		streams[i] = crowd(random.IntN(million))
	}
	b.ReportAllocs()
	defer cpu(b)()
	for i := 0; b.Loop(); i++ {
		if _, ok := s.Placement(streams[i%len(streams)]); !ok {
			b.Fatal("not placed")
		}
	}
}

// applyBatches places and forgets batches of 100 new streams.
func applyBatches(b *testing.B, s *State) {
	b.Helper()
	var places, forgets []Command
	for i := range 100 {
		places = append(places, crowdPlaces(million+i))
		forgets = append(forgets, Forget{Stream: crowd(million + i)})
	}
	defer cpu(b)()
	for b.Loop() {
		s.Apply(s.Index()+1, s.Now(), places...)
		s.Apply(s.Index()+1, s.Now(), forgets...)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/200, "ns/command")
}

// snapshotPause is how long the writer is held up: by taking the snapshot, and
// by the commands after it that have to copy a page first. Of the latter the
// 99.9th percentile: the worst of a busy machine is the machine's.
func snapshotPause(b *testing.B, s *State) {
	b.Helper()
	random := rand.New(rand.NewPCG(3, 4))
	var taking, applying []time.Duration
	defer cpu(b)()
	for b.Loop() {
		start := time.Now()
		snapshot := s.Snapshot()
		taking = append(taking, time.Since(start))
		for range 1000 {
			p, _ := s.Placement(crowd(random.IntN(million)))
			c := Release{Stream: p.Stream, Generation: p.Generation, Holder: Holder{Peer: "none"}}
			if random.IntN(2) == 0 {
				c.Holder = p.Holders[0]
			}
			start := time.Now()
			s.Apply(s.Index()+1, s.Now(), c, Place{Stream: p.Stream, Holder: c.Holder})
			applying = append(applying, time.Since(start))
		}
		runtime.KeepAlive(snapshot)
	}
	slices.Sort(taking)
	slices.Sort(applying)
	at := func(d []time.Duration, share float64) float64 {
		return float64(d[int(share*float64(len(d)-1))].Nanoseconds()) / 1000
	}
	b.ReportMetric(at(taking, 0.5), "us-taking-p50")
	b.ReportMetric(at(taking, 1), "us-taking-max")
	b.ReportMetric(at(applying, 0.5), "us-apply-p50")
	b.ReportMetric(at(applying, 0.999), "us-apply-p99.9")
}
