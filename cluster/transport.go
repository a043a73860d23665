package cluster

import (
	"time"

	"github.com/hashicorp/raft"
)

// mended is a transport without two defects that hashicorp/raft 1.8.0 has together
// with its own NetworkTransport.
type mended struct {
	Transport
	timeout time.Duration // of an election
}

// AppendEntriesPipeline implements raft.Transport: there are no pipelines. Raft
// waits for a follower's answer then before it sends more; what comes meanwhile
// goes with the next message, so that costs nothing that could be measured.
//
// A pipeline that ends, because the follower said no, ends its reader first. If
// the sender is then about to add a message, it waits for that reader for ever:
// the follower gets heartbeats but no entries as long as this peer leads, and raft
// cannot be shut down.
func (mended) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}

// RequestVote implements raft.Transport.
func (t mended) RequestVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestVoteRequest, a *raft.RequestVoteResponse) error {
	return t.insist(func() error { return t.Transport.RequestVote(id, to, q, a) })
}

// RequestPreVote implements raft.WithPreVote.
func (t mended) RequestPreVote(id raft.ServerID, to raft.ServerAddress, q *raft.RequestPreVoteRequest, a *raft.RequestPreVoteResponse) error {
	return t.insist(func() error { return t.Transport.RequestPreVote(id, to, q, a) })
}

// TimeoutNow implements raft.Transport.
func (t mended) TimeoutNow(id raft.ServerID, to raft.ServerAddress, q *raft.TimeoutNowRequest, a *raft.TimeoutNowResponse) error {
	return t.insist(func() error { return t.Transport.TimeoutNow(id, to, q, a) })
}

// maxPooled is how many connections to one peer a transport keeps at most.
const maxPooled = 4

// insist repeats a call that failed at once. The transport keeps connections, and
// learns that a peer was restarted only when it uses one of the old. Raft asks
// each voter once an election; with one vote lost that way, of two, it would wait
// for the next.
func (t mended) insist(call func() error) error {
	began := time.Now()
	for range maxPooled {
		if err := call(); err == nil || time.Since(began) > t.timeout/2 {
			return err
		}
	}
	return call()
}
