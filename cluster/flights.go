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
	closed bool          // nothing is to be handed to raft any more
}

// watch calls wait, which waits for raft's answer. It reports false, and does
// nothing, once settle has been called.
func (f *flights) watch(wait func()) bool {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return false
	}
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
	return true
}

// settle waits until all is answered, and lets nothing more be asked.
func (f *flights) settle() {
	f.mu.Lock()
	f.closed = true
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

// answered asks raft and waits for its answer, which may never come.
func (f *flights) answered(ctx context.Context, ask func() raft.Future) error {
	answer := make(chan error, 1)
	if !f.watch(func() { answer <- ask().Error() }) {
		return ErrClosed
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
