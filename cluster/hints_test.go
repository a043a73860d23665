package cluster

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"srsx/fsm"
)

// follower is what of a node follows hints, with a log in memory.
func follower(t *testing.T, entries ...*raft.Log) *Node {
	t.Helper()
	logs := raft.NewInmemStore()
	if err := logs.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	n := &Node{
		machine: newMachine(fsm.Limits{}, nobody{}, Config{}.withDefaults().Log),
		journal: newJournal(logs, logs), hints: newHints(),
	}
	n.machine.settled = true
	return n
}

func entry(index, term uint64, kind raft.LogType) *raft.Log {
	l := &raft.Log{Index: index, Term: term, Type: kind}
	if kind == raft.LogCommand {
		l.Data = fsm.AppendBatch(nil, time.UnixMilli(1), []fsm.Command{fsm.Forget{}})
	}
	return l
}

func TestHintIsFollowedThroughTheLog(t *testing.T) {
	n := follower(t, entry(1, 1, raft.LogConfiguration), entry(2, 1, raft.LogNoop),
		entry(3, 1, raft.LogCommand), entry(4, 2, raft.LogCommand), entry(5, 2, raft.LogCommand))
	if !n.applyThrough(place{index: 4, term: 2}) {
		t.Fatal("the entry is in the log, and was not applied")
	}
	if applied, _ := n.machine.position(); applied != 4 || n.machine.state.Sequence() != 2 {
		t.Errorf("applied = %d with %d commands; want 4 with 2", applied, n.machine.state.Sequence())
	}
	// What raft brings later is skipped, what is new is not.
	for _, l := range []*raft.Log{entry(3, 1, raft.LogCommand), entry(4, 2, raft.LogCommand), entry(5, 2, raft.LogCommand)} {
		n.machine.apply(l)
	}
	if got := n.machine.state.Sequence(); got != 3 {
		t.Errorf("%d commands applied; want 3", got)
	}
}

func TestHintWaitsForItsOwnEntry(t *testing.T) {
	for name, at := range map[string]place{
		"the log has an entry of a deposed leader": {index: 2, term: 2},
		"the log ends before":                      {index: 3, term: 1},
	} {
		n := follower(t, entry(1, 1, raft.LogCommand), entry(2, 1, raft.LogCommand))
		if n.applyThrough(at) {
			t.Errorf("%s: followed", name)
		}
		if applied, _ := n.machine.position(); applied != 0 {
			t.Errorf("%s: applied up to %d", name, applied)
		}
	}
}

func TestHintDoesNotLeadFromARestoredStateIntoAnOldLog(t *testing.T) {
	n := follower(t, entry(1, 1, raft.LogCommand), entry(2, 1, raft.LogCommand), entry(3, 1, raft.LogCommand))
	// A backup stands for an index of its own cluster, here 1.
	n.machine.replace(fsm.NewState(fsm.Limits{}), 1)
	if n.applyThrough(place{index: 3, term: 1}) {
		t.Error("entries from before the restore were applied to the restored state")
	}
	n.machine.apply(entry(10, 2, raft.LogCommand)) // raft goes on behind it
	if !n.applyThrough(place{index: 10, term: 2}) {
		t.Error("what raft has applied is not known")
	}
}

func TestHintIsTakenUpWhenTheLogHasIt(t *testing.T) {
	h := newHints()
	h.add(place{index: 5, term: 1})
	<-h.wake
	h.appended(4)
	select {
	case <-h.wake:
		t.Error("woken for an entry that is not the one")
	default:
	}
	h.appended(6)
	select {
	case <-h.wake:
	default:
		t.Error("not woken when the log had the entry")
	}
	h.done(place{index: 5, term: 1})
	h.appended(7)
	select {
	case <-h.wake:
		t.Error("woken for a hint that was followed")
	default:
	}
}

func TestHintThatCameBeforeTheStateIsSettledIsFollowedAfterwards(t *testing.T) {
	n := follower(t, entry(1, 1, raft.LogConfiguration), entry(2, 1, raft.LogCommand), entry(3, 1, raft.LogCommand))
	n.machine.settled, n.machine.onSettled = false, n.hints.rouse
	ctx, stop := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { n.followHints(ctx) })
	defer following.Wait()
	defer stop()
	n.hints.add(place{index: 3, term: 1})
	for len(n.hints.wake) > 0 { // until it has been looked at
		time.Sleep(time.Millisecond)
	}
	if applied, _ := n.machine.position(); applied != 0 {
		t.Fatalf("followed up to %d from a state that says nothing of the log", applied)
	}
	n.machine.apply(entry(2, 1, raft.LogCommand)) // raft's own word, and the last for now
	w := n.machine.await(3)
	select {
	case err := <-w.done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the hint was forgotten")
	}
}

// answering is an RPC whose peers give one reply to everything.
type answering struct{ reply []byte }

func (a answering) Call(context.Context, string, byte, []byte) ([]byte, error) { return a.reply, nil }

func (answering) Handle(byte, func(context.Context, string, []byte) ([]byte, error)) {}

func TestAnswerTellsUpToWhereTheLogMayBeApplied(t *testing.T) {
	log := []*raft.Log{entry(1, 1, raft.LogCommand), entry(2, 3, raft.LogCommand)}
	leader := follower(t, log...)
	leader.leaders = &leaders{current: Leadership{Leader: "self", Established: true}}
	leader.config.Answer = func(context.Context, string, []byte) ([]byte, error) { return []byte("answer"), nil }
	for _, known := range []bool{false, true} {
		if known {
			for _, l := range log {
				leader.machine.apply(l)
			}
		}
		reply, err := leader.answerAsk(t.Context(), "n", nil)
		if err != nil {
			t.Fatal(err)
		}
		n := follower(t, log...)
		n.config.RPC = answering{reply}
		answer, err := n.ask(t.Context(), "leader", nil)
		if err != nil || string(answer) != "answer" {
			t.Fatalf("ask = %q, %v", answer, err)
		}
		want := place{}
		if known {
			want = place{index: 2, term: 3}
		}
		if got := n.hints.get(); got != want {
			t.Errorf("hint = %+v; want %+v", got, want)
		}
	}
	n := follower(t)
	n.config.RPC = answering{[]byte{codeNone, 1}}
	if _, err := n.ask(t.Context(), "leader", nil); !errors.Is(err, errTruncated) {
		t.Errorf("answer cut off = %v; want %v", err, errTruncated)
	}
}
