package cluster

import (
	"slices"
	"sync"
)

// lobby holds what waits while what came before is under way, for one goroutine
// that deals with it and is woken when there is something.
type lobby[T any] struct {
	wake chan struct{} // of size 1
	fail func(T, error)

	mu      sync.Mutex // guards what follows
	waiting []T
	closed  error
}

// newLobby returns an empty lobby. Fail tells one that it waits in vain, without
// blocking.
func newLobby[T any](fail func(T, error)) lobby[T] {
	return lobby[T]{wake: make(chan struct{}, 1), fail: fail}
}

// put lets some in, in their order and next to each other.
func (l *lobby[T]) put(some ...T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.insert(len(l.waiting), some)
}

// insert lets some in at a place in the row. l.mu is held.
func (l *lobby[T]) insert(at int, some []T) {
	if l.closed != nil {
		l.failAll(some, l.closed)
		return
	}
	l.waiting = slices.Insert(l.waiting, at, some...)
	l.rouse()
}

func (l *lobby[T]) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// takeAll takes all that wait.
func (l *lobby[T]) takeAll() []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.waiting
	l.waiting = nil
	return all
}

// close refuses all that wait and all that come.
func (l *lobby[T]) close(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = why
	l.failAll(l.waiting, why)
	l.waiting = nil
}

// refuse refuses all that wait.
func (l *lobby[T]) refuse(why error) {
	for _, one := range l.takeAll() {
		l.fail(one, why)
	}
}

func (l *lobby[T]) failAll(all []T, why error) {
	for _, one := range all {
		l.fail(one, why)
	}
}
