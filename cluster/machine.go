package cluster

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"srsx/fsm"
)

// machine is the state as raft drives it. It has one writer at a time: raft, or
// whoever has learnt sooner than raft that entries are committed. An entry that
// has been applied already is skipped.
type machine struct {
	limits   fsm.Limits
	observer Observer
	log      *slog.Logger
	bytes    atomic.Int64 // of entries applied since the last snapshot
	// onSettled is called, with mu held, when follow may work again.
	onSettled func()

	mu    sync.RWMutex // guards all below, and what the observer keeps
	state *fsm.State
	// applied is the index of the last entry that is in the state. No-ops and
	// barriers of raft do not reach it.
	applied uint64
	term    uint64 // of that entry; 0: not known
	// settled means that entry applied is followed by entry applied+1 in this
	// peer's log. A restored snapshot may say nothing of the sort: one that an
	// operator restored stands for an index of which it does not know.
	settled bool
	halted  error
	results results
	waiters waiters
}

// outcome is what raft gets for an entry, and hands to whoever proposed it.
type outcome struct {
	term    uint64
	results []fsm.Result
	err     error
}

// errSkipped should not meet a proposal: its entry was applied, but by somebody
// who did not know of it.
var errSkipped = errors.New("entry was applied before")

func newMachine(limits fsm.Limits, observer Observer, log *slog.Logger) *machine {
	return &machine{
		limits: limits, observer: observer, log: log, onSettled: func() {},
		state: fsm.NewState(limits), results: newResults(),
	}
}

var _ raft.BatchingFSM = (*machine)(nil)

// Apply implements raft.FSM.
func (m *machine) Apply(entry *raft.Log) any { return m.apply(entry) }

// ApplyBatch implements raft.BatchingFSM.
func (m *machine) ApplyBatch(entries []*raft.Log) []any {
	outcomes := make([]any, len(entries))
	for i, entry := range entries {
		outcomes[i] = m.apply(entry)
	}
	return outcomes
}

// apply applies one entry that raft found committed. The lock is held for one
// entry only, so that readers are not kept waiting for a whole batch.
func (m *machine) apply(entry *raft.Log) outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	if entry.Index <= m.applied {
		return outcome{term: entry.Term, err: errSkipped}
	}
	out := m.take(entry)
	if !m.settled {
		m.settled = true
		m.onSettled()
	}
	return out
}

// follow applies an entry that was found committed by other means than raft. It
// reports whether the state now is that of the entry or a later one.
func (m *machine) follow(entry *raft.Log) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case entry.Index <= m.applied:
		return true
	case !m.settled || entry.Index != m.applied+1 || m.halted != nil:
		return false
	}
	return m.take(entry).err == nil
}

// take makes entry the last one applied. m.mu is held.
func (m *machine) take(entry *raft.Log) outcome {
	if m.halted != nil {
		return outcome{term: entry.Term, err: m.halted}
	}
	out := outcome{term: entry.Term}
	if entry.Type == raft.LogCommand {
		at, commands, err := fsm.DecodeBatch(entry.Data)
		if err != nil {
			m.halt(entry.Index, err)
			return outcome{term: entry.Term, err: m.halted}
		}
		out.results = m.state.Apply(entry.Index, at, commands...)
		m.observer.Applied(m.state, at, out.results)
		m.results.keep(entry.Index, out.results)
		m.bytes.Add(int64(len(entry.Data)))
	}
	m.applied, m.term = entry.Index, entry.Term
	m.waiters.wake(m.applied)
	return out
}

// halt keeps the state as it is for good: to skip an entry would make this peer
// differ from the others without anybody noticing. m.mu is held.
func (m *machine) halt(index uint64, why error) {
	m.halted = fmt.Errorf("%w: entry %d: %w", ErrHalted, index, why)
	m.log.Error("log entry cannot be read; this peer's state stays as it was before it", "index", index, "err", why)
	m.waiters.fail(m.halted)
}

// Snapshot implements raft.FSM. A halted machine takes none: raft believes it to
// be further than it is.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.halted != nil {
		return nil, m.halted
	}
	m.bytes.Store(0)
	return snapshot{m.state.Snapshot()}, nil
}

// Restore implements raft.FSM. It also ends a halt: the snapshot comes from a
// peer that has gone past the entry.
func (m *machine) Restore(source io.ReadCloser) error {
	state, err := fsm.Restore(source, m.limits)
	if err != nil {
		return err
	}
	m.replace(state, state.Index())
	return nil
}

// replace makes state the state, with applied the last entry that is in it.
func (m *machine) replace(state *fsm.State, applied uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state, m.applied, m.term = state, applied, 0
	m.settled, m.halted = false, nil
	m.results.forget()
	m.observer.Restored(state)
	m.waiters.wake(applied)
}

// capture returns the state as it is now, cheaply.
func (m *machine) capture() *fsm.Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Snapshot()
}

// view calls f with the state, which does not change meanwhile.
func (m *machine) view(f func(*fsm.State)) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	f(m.state)
}

// position returns the index of the last entry applied, and why no more are.
func (m *machine) position() (uint64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.applied, m.halted
}

// last returns the place of the last entry applied; zero when its term is not
// known.
func (m *machine) last() place {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.term == 0 {
		return place{}
	}
	return place{index: m.applied, term: m.term}
}

// await registers for the moment when index is applied. The channel gets nil
// then, or why it will not come; give back what it was called with.
func (m *machine) await(index uint64) *waiter {
	w := &waiter{index: index, done: make(chan error, 1)}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.applied >= index:
		w.done <- nil
	case m.halted != nil:
		w.done <- m.halted
	default:
		m.waiters.add(w)
	}
	return w
}

// leave takes back what await registered.
func (m *machine) leave(w *waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waiters.remove(w)
}

// remember makes sure that the results of entries applied from now on can be
// had from recall, until release is called.
func (m *machine) remember() (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := m.results.want(m.applied)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.results.release(from)
	}
}

// recall returns what the commands of an entry did, or false when that is not
// known: a snapshot brought it, or it is too long ago.
func (m *machine) recall(index uint64) ([]fsm.Result, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.results.of(index)
}

// snapshot implements raft.FSMSnapshot.
type snapshot struct{ *fsm.Snapshot }

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.WriteTo(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (snapshot) Release() {}
