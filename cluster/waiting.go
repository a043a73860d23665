package cluster

import (
	"container/heap"
	"slices"

	"srsx/fsm"
)

// waiter waits until an entry is applied.
type waiter struct {
	index uint64
	done  chan error // of size 1
	place int        // in the heap; -1: not in it
}

// waiters are ordered so that each entry looks only at those it concerns.
type waiters struct{ heap waiterHeap }

func (ws *waiters) add(w *waiter) { heap.Push(&ws.heap, w) }

func (ws *waiters) remove(w *waiter) {
	if w.place < len(ws.heap) && w.place >= 0 && ws.heap[w.place] == w {
		heap.Remove(&ws.heap, w.place)
	}
}

func (ws *waiters) wake(applied uint64) {
	for len(ws.heap) > 0 && ws.heap[0].index <= applied {
		ws.pop().done <- nil
	}
}

func (ws *waiters) fail(err error) {
	for len(ws.heap) > 0 {
		ws.pop().done <- err
	}
}

func (ws *waiters) pop() *waiter {
	w := ws.heap[0]
	heap.Remove(&ws.heap, 0)
	return w
}

type waiterHeap []*waiter

func (h waiterHeap) Len() int           { return len(h) }
func (h waiterHeap) Less(i, j int) bool { return h[i].index < h[j].index }

func (h waiterHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *waiterHeap) Push(x any) {
	w := x.(*waiter) //nolint:errcheck // container/heap gives back what add gave
	w.place = len(*h)
	*h = append(*h, w)
}

func (h *waiterHeap) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	w.place = -1
	return w
}

// maxResults bounds what is kept for a forward that gets no reply for long.
const maxResults = 1 << 18 // of commands; some 50 MB

// results keeps what the latest entries did, as long as a forward is under way:
// the leader's reply names the entry that holds this peer's commands, and the
// entry may have been applied here before the reply comes.
type results struct {
	wanted []uint64 // the index applied when each forward under way began
	order  []uint64 // indexes of what is kept, ascending
	kept   map[uint64][]fsm.Result
	count  int // of commands in kept
}

func newResults() results { return results{kept: make(map[uint64][]fsm.Result)} }

func (r *results) want(applied uint64) uint64 {
	r.wanted = append(r.wanted, applied)
	return applied
}

func (r *results) release(from uint64) {
	if i := slices.Index(r.wanted, from); i >= 0 {
		r.wanted = slices.Delete(r.wanted, i, i+1)
	}
	if len(r.wanted) == 0 {
		r.forget()
		return
	}
	oldest := slices.Min(r.wanted)
	for len(r.order) > 0 && r.order[0] <= oldest {
		r.drop()
	}
}

func (r *results) keep(index uint64, res []fsm.Result) {
	if len(r.wanted) == 0 {
		return
	}
	r.kept[index] = res
	r.order = append(r.order, index)
	for r.count += len(res); r.count > maxResults && len(r.order) > 1; {
		r.drop()
	}
}

func (r *results) drop() {
	r.count -= len(r.kept[r.order[0]])
	delete(r.kept, r.order[0])
	r.order = r.order[1:]
}

func (r *results) forget() {
	clear(r.kept)
	r.order, r.count = nil, 0
}

func (r *results) of(index uint64) ([]fsm.Result, bool) {
	res, ok := r.kept[index]
	return res, ok
}
