package store

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

const benchEntry = 16 << 10 // bytes: the largest that is proposed

func benchLogs(from uint64, count int, data []byte) []*raft.Log {
	logs := make([]*raft.Log, count)
	for i := range logs {
		logs[i] = &raft.Log{Index: from + uint64(i), Term: 3, Data: data, AppendedAt: time.Now()}
	}
	return logs
}

func median(of []time.Duration) time.Duration {
	slices.Sort(of)
	return of[len(of)/2]
}

// BenchmarkStoreLogs writes the same entries in turns to the whole stack and to
// raft-boltdb as it comes, each in its own file on the same disk, so that what
// else the machine does hits both. ratio is that of the medians.
func BenchmarkStoreLogs(b *testing.B) {
	for _, batch := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			s, err := Open(b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			bare, err := raftboltdb.New(raftboltdb.Options{
				Path:        filepath.Join(b.TempDir(), "bare.db"),
				BoltOptions: &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
			})
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = bare.Close() }()

			data := make([]byte, benchEntry)
			var took [2][]time.Duration
			const kept = 4096
			for next := uint64(1); b.Loop(); next += uint64(batch) {
				for i, store := range []raft.LogStore{s, bare} {
					logs := benchLogs(next, batch, data)
					began := time.Now()
					if err := store.StoreLogs(logs); err != nil {
						b.Fatal(err)
					}
					took[i] = append(took[i], time.Since(began))
					if next%kept < uint64(batch) && next > 2*kept { // keep the files at a size
						if err := store.DeleteRange(next-2*kept, next-kept); err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			stack, plain := median(took[0]), median(took[1])
			b.ReportMetric(float64(stack.Microseconds()), "stack-us")
			b.ReportMetric(float64(plain.Microseconds()), "bare-us")
			b.ReportMetric(float64(stack)/float64(plain), "ratio")
		})
	}
}

// BenchmarkOpen opens a log of the length that the settings allow for, all of
// it read and checked, and one of small entries.
func BenchmarkOpen(b *testing.B) {
	for name, size := range map[string]int{"12288x16KB": benchEntry, "12288x300B": 300} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			s, err := Open(dir, Options{})
			if err != nil {
				b.Fatal(err)
			}
			data := make([]byte, size)
			for next := uint64(1); next < 12288; next += 256 {
				if err := s.StoreLogs(benchLogs(next, 256, data)); err != nil {
					b.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				s, err := Open(dir, Options{})
				if err != nil {
					b.Fatal(err)
				}
				_ = s.Close()
			}
		})
	}
}

// BenchmarkDeleteRange removes what one snapshot makes superfluous.
func BenchmarkDeleteRange(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	data := make([]byte, benchEntry)
	next := uint64(1)
	for b.Loop() {
		b.StopTimer()
		first := next
		for ; next < first+8192; next += 256 {
			if err := s.StoreLogs(benchLogs(next, 256, data)); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		if err := s.DeleteRange(first, next-100); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.DeleteRange(first, next-1); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkSeal(b *testing.B) {
	l := benchLogs(1, 1, make([]byte, benchEntry))[0]
	b.ReportAllocs()
	b.SetBytes(benchEntry)
	for b.Loop() {
		sealed := seal(l, 1)
		if _, err := unseal(sealed); err != nil {
			b.Fatal(err)
		}
	}
}
