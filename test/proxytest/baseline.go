package proxytest

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

// Baseline is what the process takes of the machine.
type Baseline struct {
	Goroutines, Descriptors int
	Heap                    uint64 // bytes in use after a collection
}

// heapSlack is what pools and tables that stay warm may take.
const heapSlack = 4 << 20 // bytes

// Measure collects garbage and measures. Call it when all that the test itself
// needs is running.
func Measure(tb testing.TB) Baseline {
	tb.Helper()
	debug.FreeOSMemory() // collects twice over, so that finalizers have run
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil && runtime.GOOS == "linux" { // elsewhere descriptors are not counted
		tb.Fatal(err)
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return Baseline{Goroutines: runtime.NumGoroutine(), Descriptors: len(files), Heap: memory.HeapAlloc}
}

// Require waits until the process takes no more than before.
func (b Baseline) Require(tb testing.TB) {
	tb.Helper()
	var now Baseline
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		now = Measure(tb)
		if now.Goroutines <= b.Goroutines && now.Descriptors <= b.Descriptors && now.Heap <= b.Heap+heapSlack {
			return
		}
	}
	stacks := make([]byte, 64<<10)
	tb.Errorf("takes %+v; before %+v\n%s", now, b, stacks[:runtime.Stack(stacks, true)])
}

// Eventually fails the test unless holds becomes true in time.
func Eventually(tb testing.TB, what string, holds func() bool) {
	tb.Helper()
	for end := time.Now().Add(Patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("not within %s: %s", Patience, what)
		}
	}
}
