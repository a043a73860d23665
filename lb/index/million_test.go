//go:build unix

package index

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"srsx/fsm"
	"srsx/lb"
)

const million = 1_000_000

// crowd names streams of 16 bytes in a few apps, as the benchmark of fsm does.
func crowd(i int) lb.Stream {
	return lb.Stream{VHost: lb.DefaultVHost, App: "app" + strconv.Itoa(i%5), Name: fmt.Sprintf("cam-%012x", i)}
}

func crowdPlaces(i int) fsm.Place {
	c := place(i, lb.OriginID("origin-"+strconv.Itoa(i%20)))
	c.Stream = crowd(i)
	c.Holder = lb.Holder{Peer: "6fa3c9a2-5a1c-4a4e-9d0a-0b1f9f6f8a0" + strconv.Itoa(i%3), Epoch: 7}
	return c
}

// crowded returns a state and its index with so many placements, a third of
// them held by two peers.
func crowded(n int) *follower {
	var ids []lb.OriginID
	for i := range 20 {
		ids = append(ids, lb.OriginID("origin-"+strconv.Itoa(i)))
	}
	f := follow(ids...)
	for i := range n {
		f.apply(crowdPlaces(i))
		if i%3 == 0 {
			second := crowdPlaces(i)
			second.Holder = crowdPlaces(i + 1).Holder
			f.apply(second)
		}
	}
	return f
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

// BenchmarkMillion is a state of a million placements with its index.
func BenchmarkMillion(b *testing.B) {
	before := heap()
	f := crowded(million)
	perEntry := float64(heap()-before) / million

	b.Run("bytes", func(b *testing.B) {
		for b.Loop() {
			_ = f.index.Len()
		}
		b.ReportMetric(perEntry, "heap-B/entry")
	})
	b.Run("lookup hot", func(b *testing.B) {
		s := crowd(4711)
		b.ReportAllocs()
		defer cpu(b)()
		for b.Loop() {
			if _, _, ok := f.index.Lookup(s); !ok {
				b.Fatal("not placed")
			}
		}
	})
	b.Run("yardstick: hot in a Go map", func(b *testing.B) {
		s, m := crowd(4711), make(map[lb.Stream]int)
		for i := range 10_000 {
			m[crowd(i)] = i
		}
		defer cpu(b)()
		for b.Loop() {
			if m[s] != 4711 {
				b.Fatal("not there")
			}
		}
	})
	b.Run("lookup hot parallel", func(b *testing.B) {
		b.ReportAllocs()
		defer cpu(b)()
		b.RunParallel(func(pb *testing.PB) {
			for s := crowd(4711); pb.Next(); {
				if _, _, ok := f.index.Lookup(s); !ok {
					b.Error("not placed")
				}
			}
		})
	})
	b.Run("lookup random", func(b *testing.B) { lookupRandom(b, f.index) })
	b.Run("lookup random while writing", func(b *testing.B) { lookupWhileWriting(b, f.index) })
	b.Run("lookup unknown", func(b *testing.B) {
		s := crowd(million + 1)
		b.ReportAllocs()
		defer cpu(b)()
		for b.Loop() {
			if _, _, ok := f.index.Lookup(s); ok {
				b.Fatal("placed")
			}
		}
	})
	b.Run("put", func(b *testing.B) {
		p, _ := f.state.Placement(crowd(4711))
		b.ReportAllocs()
		defer cpu(b)()
		for b.Loop() {
			f.index.Put(p)
		}
	})
	b.Run("reset", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			f.index.Reset(f.state)
		}
	})
	b.Run("collect", func(b *testing.B) {
		defer cpu(b)()
		for b.Loop() {
			runtime.GC()
		}
		runtime.KeepAlive(f)
	})
}

func lookupRandom(b *testing.B, x *Index) {
	b.Helper()
	random := rand.New(rand.NewPCG(1, 2))
	streams := make([]lb.Stream, 1<<16)
	for i := range streams {
		streams[i] = crowd(random.IntN(million))
	}
	b.ReportAllocs()
	defer cpu(b)()
	for i := 0; b.Loop(); i++ {
		if _, _, ok := x.Lookup(streams[i%len(streams)]); !ok {
			b.Fatal("not placed")
		}
	}
}

// lookupWhileWriting looks up what another goroutine keeps putting.
func lookupWhileWriting(b *testing.B, x *Index) {
	b.Helper()
	var writer sync.WaitGroup
	stop := make(chan struct{})
	writer.Go(func() {
		random := rand.New(rand.NewPCG(3, 4))
		for {
			select {
			case <-stop:
				return
			default:
				p, _, _ := x.Lookup(crowd(random.IntN(million)))
				x.Put(p)
			}
		}
	})
	lookupRandom(b, x)
	close(stop)
	writer.Wait()
}
