package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"srsx/lb"
)

// Load is so many streams that are placed by so many callers, each of which
// waits for its answer.
type Load struct {
	Range

	Callers int
}

// Result is what a load measured.
type Result struct {
	Count         int
	Took          time.Duration
	P50, P99, Max time.Duration
}

// PerSecond returns the rate.
func (r Result) PerSecond() float64 { return float64(r.Count) / r.Took.Seconds() }

// Load places the streams of a load.
func (d *Drive) Load(l Load, r *Result) (err error) {
	*r, err = l.run(d.design)
	return err
}

// Profile writes a profile of the processor to a file until it is called again
// without one.
func (d *Drive) Profile(file string, _ *None) error {
	if file == "" {
		pprof.StopCPUProfile()
		return d.profile.Close()
	}
	var err error
	if d.profile, err = os.Create(file); err != nil {
		return err
	}
	return pprof.StartCPUProfile(d.profile)
}

// Processor returns the processor time that the process has used.
func (d *Drive) Processor(_ None, used *time.Duration) error {
	*used = processorTime()
	return nil
}

func (l Load) run(d design) (r Result, err error) {
	ctx, fail := context.WithCancelCause(context.Background())
	defer fail(nil)
	var next atomic.Int64
	var callers sync.WaitGroup
	took := make([][]time.Duration, l.Callers)
	began := time.Now()
	for caller := range l.Callers {
		callers.Go(func() {
			for i := int(next.Add(1)) - 1; i < l.Count; i = int(next.Add(1)) - 1 {
				asked := time.Now()
				lease, err := d.place(ctx, publish(stream(l.Prefix, i)))
				if err == nil && !lease.Created {
					err = errors.New("it was placed before")
				}
				if err != nil {
					fail(fmt.Errorf("place %v: %w", stream(l.Prefix, i), err))
					return
				}
				took[caller] = append(took[caller], time.Since(asked))
			}
		})
	}
	callers.Wait()
	r = Result{Count: l.Count, Took: time.Since(began)}
	r.P50, r.P99, r.Max = quantiles(slices.Concat(took...))
	return r, context.Cause(ctx)
}

func processorTime() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func quantiles(of []time.Duration) (p50, p99, longest time.Duration) {
	if len(of) == 0 {
		return 0, 0, 0
	}
	slices.Sort(of)
	return of[len(of)/2], of[len(of)*99/100], of[len(of)-1]
}

func median(of []time.Duration) time.Duration {
	p50, _, _ := quantiles(slices.Clone(of))
	return p50
}

// sightings are when the streams of a prefix were first routable here.
type sightings struct {
	mu sync.Mutex
	at map[lb.Stream]int64 // guarded by mu; Unix time in nanoseconds
}

// Watch notes from now on when streams are placed.
func (d *Drive) Watch(None, *None) error {
	s := &sightings{at: make(map[lb.Stream]int64)}
	d.seen.Store(s)
	events, _ := d.design.events()
	go func() {
		for e := range events {
			if e.Kind == lb.StreamPlaced {
				at := time.Now().UnixNano()
				s.mu.Lock()
				s.at[e.Stream] = at
				s.mu.Unlock()
			}
		}
	}()
	return nil
}

// Seen returns when each stream was placed, 0 for those that were not.
func (d *Drive) Seen(r Range, at *[]int64) error {
	s := d.seen.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range r.Count {
		*at = append(*at, s.at[stream(r.Prefix, i)])
	}
	return nil
}
