package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"srsx/cluster"
	"srsx/cluster/clustertest"
)

// BenchmarkPropose measures new placements in a cluster of three with durable
// logs, in one process. "plain" is the same with one entry a placement and no
// batching, as a reference.
func BenchmarkPropose(b *testing.B) {
	for _, design := range []struct {
		name string
		tune func(*cluster.Config)
	}{
		{"batched", func(*cluster.Config) {}},
		{"plain", func(c *cluster.Config) { c.EntrySize, c.Depth = 1, 4096 }},
	} {
		for _, at := range []string{"leader", "follower"} {
			for _, callers := range []int{1, 64, 2048} {
				b.Run(fmt.Sprintf("%s/%s/%d", design.name, at, callers), func(b *testing.B) {
					c := clustertest.Start(b, clustertest.Config{
						Voters: 3, Tune: func(_ *clustertest.Peer, c *cluster.Config) { design.tune(c) },
					})
					p := c.Leader()
					if at == "follower" {
						p = c.Followers()[0]
					}
					proposeAll(b, p, callers)
				})
			}
		}
	}
}

func proposeAll(b *testing.B, p *clustertest.Peer, callers int) {
	b.Helper()
	if _, err := p.Node.Propose(context.Background(), putOrigin()); err != nil {
		b.Fatal(err)
	}
	var next atomic.Int64
	var running sync.WaitGroup
	took := make([][]time.Duration, callers)
	b.ResetTimer()
	for caller := range callers {
		running.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				began := time.Now()
				results, err := p.Node.Propose(context.Background(), place(fmt.Sprintf("stream-%d", i), p.ID))
				if err != nil || !results[0].Created {
					b.Errorf("Propose = %+v, %v", results, err)
					return
				}
				took[caller] = append(took[caller], time.Since(began))
			}
		})
	}
	running.Wait()
	b.StopTimer()
	all := slices.Sorted(slices.Values(slices.Concat(took...)))
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "placements/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
}

// BenchmarkBarrier measures linearizable reads.
func BenchmarkBarrier(b *testing.B) {
	for _, callers := range []int{1, 256} {
		b.Run(strconv.Itoa(callers), func(b *testing.B) {
			c := clustertest.Start(b, clustertest.Config{Voters: 3})
			p := c.Followers()[0]
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := p.Node.Barrier(context.Background()); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
