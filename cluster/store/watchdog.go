package store

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// Stall describes a write that does not return, or has at last.
type Stall struct {
	Doing string // "storing entries 7 to 9"
	For   time.Duration
}

func (s Stall) String() string { return fmt.Sprintf("%s for %s", s.Doing, s.For) }

// disk is what the watchdog watches: raft's log, and single values.
type disk interface {
	raft.LogStore
	Set(key, value []byte) error
}

// watchdog lets reads pass and watches writes. A write leaves a note in a slot
// while it is under way and does nothing else: no lock, no timer, no goroutine.
// One watcher reads the slots when the oldest note is due.
type watchdog struct {
	disk
	limit              time.Duration
	onStall, onRecover func(Stall)

	slots   [8]atomic.Pointer[write] // raft writes from two goroutines
	stalled atomic.Bool              // the watcher wants to hear of every end
	wake    chan struct{}            // room for one: look at the slots again
	stop    chan struct{}
	stopped chan struct{}
}

// write is one write under way. Its words are made only when it stalls.
type write struct {
	began    time.Time
	doing    string
	from, to uint64 // entries, 0 where there are none
}

func (w *write) stall() Stall {
	doing := w.doing
	if w.from > 0 {
		doing = fmt.Sprintf("%s entries %d to %d", w.doing, w.from, w.to)
	}
	return Stall{Doing: doing, For: time.Since(w.began)}
}

// watch starts a watchdog over d. It ends with close.
func watch(d disk, limit time.Duration, onStall, onRecover func(Stall)) *watchdog {
	w := &watchdog{
		disk:      d,
		limit:     limit,
		onStall:   onStall,
		onRecover: onRecover,
		wake:      make(chan struct{}, 1),
		stop:      make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	go w.run()
	return w
}

// close ends the watcher and waits for it, and for a callback under way.
func (w *watchdog) close() {
	close(w.stop)
	<-w.stopped
}

func (w *watchdog) StoreLog(l *raft.Log) error { return w.StoreLogs([]*raft.Log{l}) }

func (w *watchdog) StoreLogs(logs []*raft.Log) error {
	note := &write{doing: "storing"}
	if len(logs) > 0 {
		note.from, note.to = logs[0].Index, logs[len(logs)-1].Index
	}
	defer w.end(w.begin(note))
	return w.disk.StoreLogs(logs)
}

func (w *watchdog) DeleteRange(lowest, highest uint64) error {
	defer w.end(w.begin(&write{doing: "removing", from: lowest, to: highest}))
	return w.disk.DeleteRange(lowest, highest)
}

func (w *watchdog) Set(key, value []byte) error {
	defer w.end(w.begin(&write{doing: "storing " + string(key)}))
	return w.disk.Set(key, value)
}

// begin returns the slot that the write has taken, or nil when all are taken:
// then eight writes are being watched, and this one waits for one of them.
func (w *watchdog) begin(note *write) *atomic.Pointer[write] {
	note.began = time.Now()
	for i := range w.slots {
		if w.slots[i].CompareAndSwap(nil, note) {
			w.rouse()
			return &w.slots[i]
		}
	}
	return nil
}

func (w *watchdog) end(slot *atomic.Pointer[write]) {
	if slot == nil {
		return
	}
	slot.Store(nil)
	if w.stalled.Load() {
		w.rouse()
	}
}

func (w *watchdog) rouse() {
	select {
	case w.wake <- struct{}{}:
	default: // the watcher has yet to take up the last call and will see this too
	}
}

func (w *watchdog) oldest() *write {
	var oldest *write
	for i := range w.slots {
		if note := w.slots[i].Load(); note != nil && (oldest == nil || note.began.Before(oldest.began)) {
			oldest = note
		}
	}
	return oldest
}

func (w *watchdog) run() {
	defer close(w.stopped)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		due := w.wake // nothing is under way: the next write wakes us
		var expired <-chan time.Time
		if note := w.oldest(); note != nil {
			left := w.limit - time.Since(note.began)
			if left <= 0 {
				if !w.await(note) {
					return
				}
				continue
			}
			// Later writes are due later, so none of them needs to wake us.
			timer.Reset(left)
			due, expired = nil, timer.C
		}
		select {
		case <-due:
		case <-expired:
		case <-w.stop:
			return
		}
	}
}

// await reports a stall, waits until no write is overdue and reports that. It
// returns false when the watchdog is closed before.
func (w *watchdog) await(note *write) bool {
	w.stalled.Store(true)
	defer w.stalled.Store(false)
	w.onStall(note.stall())
	for {
		// Those that queue behind the stalled one may be overdue by now as well.
		if o := w.oldest(); o == nil || time.Since(o.began) < w.limit {
			break
		}
		select {
		case <-w.wake:
		case <-w.stop:
			return false
		}
	}
	w.onRecover(note.stall())
	return true
}
