package cluster

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// mended is a transport without three defects that hashicorp/raft 1.8.0 has
// together with its own NetworkTransport.
type mended struct {
	Transport
	timeout time.Duration             // of an election
	raft    atomic.Pointer[raft.Raft] // nil until it has started
}

// AppendEntries implements raft.Transport.
//
// Raft waits before it sends entries again to a follower that was not reached,
// each time twice as long and up to ten seconds, while its heartbeats go on: a
// follower that is back would hear the leader at once and have nothing of what it
// missed for as long as it was away. So entries are tried here for as long as they
// are to go there, at the pace of heartbeats, and raft counts no failure.
func (t *mended) AppendEntries(id raft.ServerID, to raft.ServerAddress, q *raft.AppendEntriesRequest, a *raft.AppendEntriesResponse) error {
	heartbeat := q.PrevLogEntry == 0 && len(q.Entries) == 0 && q.LeaderCommitIndex == 0 // as raft's own transport tells
	for {
		err := t.Transport.AppendEntries(id, to, q, a)
		if err == nil || heartbeat || !t.sends(id, q.Term) {
			return err
		}
		time.Sleep(t.timeout / 5)
	}
}

// sends reports whether raft, as the leader of a term, sends a peer its entries.
func (t *mended) sends(id raft.ServerID, term uint64) bool {
	r := t.raft.Load()
	if r == nil || r.State() != raft.Leader || r.CurrentTerm() != term {
		return false
	}
	return slices.ContainsFunc(r.GetConfiguration().Configuration().Servers, func(s raft.Server) bool { return s.ID == id })
}

// AppendEntriesPipeline implements raft.Transport: there are no pipelines. Raft
// waits for a follower's answer then before it sends more; what comes meanwhile
// goes with the next message, so that costs nothing that could be measured.
//
// A pipeline that ends, because the follower said no, ends its reader first. If
// the sender is then about to add a message, it waits for that reader for ever:
// the follower gets heartbeats but no entries as long as this peer leads, and raft
// cannot be shut down.
func (*mended) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// RequestVote implements raft.Transport.
func (t *mended) RequestVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestVoteRequest, a *raft.RequestVoteResponse) error {
	return t.insist(func() error { return t.Transport.RequestVote(id, to, q, a) })
}

// RequestPreVote implements raft.WithPreVote.
func (t *mended) RequestPreVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestPreVoteRequest, a *raft.RequestPreVoteResponse) error {
	return t.insist(func() error { return t.Transport.RequestPreVote(id, to, q, a) })
}

// TimeoutNow implements raft.Transport.
func (t *mended) TimeoutNow(id raft.ServerID, to raft.ServerAddress, q *raft.TimeoutNowRequest, a *raft.TimeoutNowResponse) error {
	return t.insist(func() error { return t.Transport.TimeoutNow(id, to, q, a) })
}

// maxPooled is how many connections to one peer a transport keeps at most.
const maxPooled = 4

// insist repeats a call that failed at once. The transport keeps connections, and
// learns that a peer was restarted only when it uses one of the old. Raft asks
// each voter once an election; with one vote lost that way, of two, it would wait
// for the next.
func (t *mended) insist(call func() error) error {
	began := time.Now()
	for range maxPooled {
		if err := call(); err == nil || time.Since(began) > t.timeout/2 {
			return err
		}
	}
	return call()
}
