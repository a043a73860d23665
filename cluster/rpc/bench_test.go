package rpc_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkCalls is calls of 100 bytes over loopback, TLS and all, by so many
// callers that each wait for their answer.
func BenchmarkCalls(b *testing.B) {
	for _, callers := range []int{1, 64, 2048} {
		b.Run(fmt.Sprintf("callers-%d", callers), func(b *testing.B) {
			from, to := pair(b)
			payload := make([]byte, 100)
			if _, err := from.Call(b.Context(), to.target(), kindEcho, payload); err != nil {
				b.Fatal(err)
			}
			var left atomic.Int64
			left.Store(int64(b.N))
			var wait sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range callers {
				wait.Go(func() {
					for left.Add(-1) >= 0 {
						if _, err := from.Call(b.Context(), to.target(), kindEcho, payload); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wait.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}
