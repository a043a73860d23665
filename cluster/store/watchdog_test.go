package store

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// slowDisk returns from a write when the test lets it.
type slowDisk struct {
	*raft.InmemStore
	gate     chan error
	removing chan error // the gate of DeleteRange
}

func newSlowDisk() *slowDisk {
	return &slowDisk{InmemStore: raft.NewInmemStore(), gate: make(chan error), removing: make(chan error)}
}

func (d *slowDisk) StoreLogs([]*raft.Log) error      { return <-d.gate }
func (d *slowDisk) DeleteRange(uint64, uint64) error { return <-d.removing }
func (d *slowDisk) Set([]byte, []byte) error         { return <-d.gate }

// bench is a watchdog with a limit of 4 s over a slowDisk, in a synctest bubble.
type bench struct {
	*watchdog
	disk *slowDisk

	mu     sync.Mutex
	events []string
}

func (b *bench) note(event string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, event)
}

// take returns what has happened since the last call.
func (b *bench) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.events
	b.events = nil
	return taken
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{disk: newSlowDisk()}
	b.watchdog = watch(b.disk, 4*time.Second,
		func(s Stall) { b.note("stall " + s.String()) },
		func(s Stall) { b.note("recover " + s.String()) },
	)
	t.Cleanup(b.close)
	return b
}

func (b *bench) store(from, to uint64) {
	logs := make([]*raft.Log, 0, to-from+1)
	for index := from; index <= to; index++ {
		logs = append(logs, &raft.Log{Index: index})
	}
	_ = b.StoreLogs(logs)
}

func (b *bench) after(d time.Duration) {
	time.Sleep(d) // in a bubble: until the clock has got there
	synctest.Wait()
}

func (b *bench) requireEvents(t *testing.T, want ...string) {
	t.Helper()
	if got := b.take(); !slices.Equal(got, want) {
		t.Fatalf("events %q; want %q", got, want)
	}
}

func TestWriteWithinTheLimitIsNoStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		for i := range uint64(20) { // 80 s of writing, never more than 4 s at once
			go b.store(i, i)
			b.after(3999 * time.Millisecond)
			b.disk.gate <- nil
		}
		b.after(time.Hour)
		b.requireEvents(t)
	})
}

func TestStalledWriteIsReportedOnceAndItsReturnToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		go b.store(7, 9)
		b.after(3999 * time.Millisecond)
		b.requireEvents(t)
		b.after(time.Millisecond)
		b.requireEvents(t, "stall storing entries 7 to 9 for 4s")
		b.after(time.Minute)
		b.requireEvents(t)
		b.disk.gate <- nil
		synctest.Wait()
		b.requireEvents(t, "recover storing entries 7 to 9 for 1m4s")

		// The next one is a stall of its own.
		b.after(time.Minute)
		go b.store(10, 10)
		b.after(5 * time.Second)
		b.disk.gate <- nil
		synctest.Wait()
		b.requireEvents(t, "stall storing entries 10 to 10 for 4s", "recover storing entries 10 to 10 for 5s")
	})
}

func TestEveryKindOfWriteIsWatched(t *testing.T) {
	for doing, write := range map[string]func(*bench) error{
		"storing entries 3 to 3":  func(b *bench) error { return b.StoreLog(&raft.Log{Index: 3}) },
		"removing entries 1 to 8": func(b *bench) error { return b.DeleteRange(1, 8) },
		"storing settings":        func(b *bench) error { return b.Set([]byte("settings"), nil) },
	} {
		t.Run(doing, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				result := make(chan error)
				go func() { result <- write(b) }()
				b.after(4 * time.Second)
				b.requireEvents(t, fmt.Sprintf("stall %s for 4s", doing))
				broken := errors.New("broken")
				select {
				case b.disk.gate <- broken:
				case b.disk.removing <- broken:
				}
				if err := <-result; !errors.Is(err, broken) {
					t.Errorf("write = %v; want the error of the disk", err)
				}
			})
		})
	}
}

// A stall is over when nothing is overdue any more, not when the first returns.
func TestWritesBehindAStalledOneBelongToTheSameStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		go func() { _ = b.DeleteRange(1, 5) }()
		b.after(time.Millisecond)
		go b.store(6, 6)
		b.after(5 * time.Second)
		b.requireEvents(t, "stall removing entries 1 to 5 for 4s")
		b.disk.removing <- nil
		b.after(time.Second)
		b.requireEvents(t)
		b.disk.gate <- nil
		synctest.Wait()
		b.requireEvents(t, "recover removing entries 1 to 5 for 6.001s")
	})
}

func TestMoreWritersThanSlotsAreStillWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		const writers = 20
		for i := range uint64(writers) {
			go b.store(i+1, i+1)
		}
		b.after(4 * time.Second)
		if got := b.take(); len(got) != 1 {
			t.Fatalf("events %q; want one stall", got)
		}
		for range writers {
			b.disk.gate <- nil
		}
		synctest.Wait()
		if got := b.take(); len(got) != 1 {
			t.Fatalf("events %q; want one recovery", got)
		}
	})
}

// close waits for the watcher, and a bubble with a goroutine left would not end.
func TestWatcherEndsWithClose(t *testing.T) {
	for name, before := range map[string]func(*bench){
		"idle": func(*bench) {},
		"while a write is under way": func(b *bench) {
			go b.store(1, 1)
			b.after(time.Second)
		},
		"while a write is stalled": func(b *bench) {
			go b.store(1, 1)
			b.after(5 * time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(_ *testing.T) {
				b := &bench{disk: newSlowDisk()}
				b.watchdog = watch(b.disk, 4*time.Second, func(Stall) {}, func(Stall) {})
				before(b)
				b.close()
				close(b.disk.gate)
			})
		})
	}
}

func TestSlowCallbackDelaysNoWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newSlowDisk()
		let := make(chan struct{})
		w := watch(d, 4*time.Second, func(Stall) { <-let }, func(Stall) {})
		defer w.close()
		defer close(let)
		go func() { _ = w.StoreLog(&raft.Log{Index: 1}) }()
		time.Sleep(5 * time.Second)
		d.gate <- nil
		began := time.Now()
		for i := range uint64(100) {
			go func() { d.gate <- nil }()
			if err := w.StoreLog(&raft.Log{Index: i + 2}); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("100 writes took %s of a clock that only waiting moves; want 0", took)
		}
	})
}

func BenchmarkWatch(b *testing.B) {
	w := watch(nopDisk{}, 4*time.Second, func(Stall) {}, func(Stall) {})
	defer w.close()
	logs := []*raft.Log{{Index: 1}}
	b.ReportAllocs()
	for b.Loop() {
		_ = w.StoreLogs(logs)
	}
}

type nopDisk struct{ *raft.InmemStore }

func (nopDisk) StoreLogs([]*raft.Log) error { return nil }
func (nopDisk) Set([]byte, []byte) error    { return nil }
