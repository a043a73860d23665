package cluster

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
)

// flights counts what raft was handed and has not answered. Raft never answers
// what it had not looked at when it was shut down.
type flights struct {
	idle chan struct{} // of size 1: has a value when nothing is under way any more

	mu     sync.Mutex
	count  int
	landed chan struct{} // closed when count is 0 again; nil: nobody waits
}

// watch calls wait, which waits for raft's answer.
func (f *flights) watch(wait func()) {
	f.mu.Lock()
	f.count++
	f.mu.Unlock()
	go func() {
		wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.count--; f.count > 0 {
			return
		}
		select {
		case f.idle <- struct{}{}:
		default:
		}
		if f.landed != nil {
			close(f.landed)
			f.landed = nil
		}
	}()
}

// settle waits until all is answered.
func (f *flights) settle() {
	f.mu.Lock()
	if f.count == 0 {
		f.mu.Unlock()
		return
	}
	if f.landed == nil {
		f.landed = make(chan struct{})
	}
	landed := f.landed
	f.mu.Unlock()
	<-landed
}

// answered waits for raft's answer, which may never come.
func (f *flights) answered(ctx context.Context, future raft.Future) error {
	answer := make(chan error, 1)
	f.watch(func() { answer <- future.Error() })
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
