package cluster

import "github.com/hashicorp/raft"

// unpipelined makes raft wait for a follower's answer before it sends more. What
// comes meanwhile goes with the next message, so that costs nothing that could be
// measured.
//
// In hashicorp/raft 1.8.0 a pipeline that ends, because its connection broke or
// the follower said no, ends its reader first. If the sender is then about to add
// a message it waits for that reader for ever: the follower gets heartbeats but no
// entries as long as this peer leads, and raft cannot be shut down.
type unpipelined struct{ Transport }

// AppendEntriesPipeline implements raft.Transport.
func (unpipelined) AppendEntriesPipeline(raft.ServerID, raft.ServerAddress) (raft.AppendPipeline, error) {
	return nil, raft.ErrPipelineReplicationNotSupported
}
