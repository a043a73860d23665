package cluster

import (
	"errors"
	"math/rand/v2"
	"testing"

	"srsx/fsm"
)

func TestResultsAreKeptAsLongAsAForwardMayNeedThem(t *testing.T) {
	r := newResults()
	r.keep(1, make([]fsm.Result, 1))
	if _, ok := r.of(1); ok {
		t.Error("results are kept while nobody waits")
	}
	first := r.want(1)
	r.keep(2, make([]fsm.Result, 2))
	second := r.want(2)
	r.keep(3, make([]fsm.Result, 3))
	if res, ok := r.of(2); !ok || len(res) != 2 {
		t.Errorf("of(2) = %d results, %t; want 2", len(res), ok)
	}
	r.release(first)
	if _, ok := r.of(2); ok {
		t.Error("results are kept after all who began before are done")
	}
	if res, ok := r.of(3); !ok || len(res) != 3 {
		t.Errorf("of(3) = %d results, %t; want 3", len(res), ok)
	}
	r.release(second)
	if len(r.kept) != 0 || len(r.order) != 0 || r.count != 0 {
		t.Errorf("left over: %+v", r)
	}
}

func TestResultsAreBounded(t *testing.T) {
	r := newResults()
	r.want(0)
	for i := range uint64(10) {
		r.keep(i+1, make([]fsm.Result, maxResults/4))
	}
	if r.count > maxResults || len(r.kept) != 4 {
		t.Errorf("%d results of %d entries are kept; want at most %d", r.count, len(r.kept), maxResults)
	}
	if _, ok := r.of(10); !ok {
		t.Error("the newest were dropped")
	}
}

func TestWaitersWakeInOrderAndLeave(t *testing.T) {
	var ws waiters
	all := make([]*waiter, 100)
	for _, i := range rand.Perm(len(all)) {
		all[i] = &waiter{index: uint64(i), done: make(chan error, 1)}
		ws.add(all[i])
	}
	for i := 0; i < len(all); i += 3 {
		ws.remove(all[i])
		ws.remove(all[i]) // once more changes nothing
	}
	ws.wake(49)
	gone := errors.New("gone")
	ws.fail(gone)
	for i, w := range all {
		select {
		case err := <-w.done:
			if i%3 == 0 || (err == nil) != (i <= 49) {
				t.Errorf("waiter %d got %v", i, err)
			}
		default:
			if i%3 != 0 {
				t.Errorf("waiter %d was not woken", i)
			}
		}
	}
}

func TestTransferIsNotTriedTwiceInATerm(t *testing.T) {
	var tr transfers
	if !tr.mayTry(1, "a") {
		t.Error("a first transfer is refused")
	}
	tr.fail("a")
	if tr.mayTry(1, "a") || !tr.mayTry(1, "b") {
		t.Error("a failed transfer may be tried again in its term, or bars others")
	}
	if !tr.mayTry(2, "a") {
		t.Error("a failed transfer bars the next term")
	}
}
