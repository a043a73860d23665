package cluster

import "context"

// watchDisk fences this peer off when its disk stalls. Raft's main loop is stuck
// in a write then, but heartbeats do not need it: a leader would stay leader and
// agree to nothing, for as long as the disk hangs. So the others are made to miss
// it. Views, status and all that needs no consensus go on.
//
// The fence stays until the process starts anew. What raft had in hand is only
// known when the disk answers, which may be never.
func (n *Node) watchDisk(ctx context.Context) {
	select {
	case <-n.config.Stalled:
	case <-ctx.Done():
		return
	}
	n.fenced.Store(true)
	if n.config.Fence != nil {
		n.config.Fence()
	}
	n.queue.close(ErrFenced)
	n.reads.close(ErrFenced)
	n.leaders.resign()
	n.log.ErrorContext(ctx, "the disk of the log has stalled; this peer takes no part in consensus until it is restarted")
}
