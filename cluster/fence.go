package cluster

import "context"

// watchDisk fences this peer off while its disk stalls. Raft's main loop is stuck
// in a write then, but heartbeats do not need it: a leader would stay leader and
// agree to nothing, for as long as the disk hangs. So the others are made to miss
// it. Views, status and all that needs no consensus go on.
func (n *Node) watchDisk(ctx context.Context) {
	for {
		select {
		case stalled := <-n.config.Stalled:
			n.fence(ctx, stalled)
		case <-ctx.Done():
			return
		}
	}
}

func (n *Node) fence(ctx context.Context, shut bool) { //nolint:revive // the state itself, not a mode
	if n.fenced.Swap(shut) == shut {
		return
	}
	n.leaders.resign(shut)
	if n.config.Fence != nil {
		n.config.Fence(shut)
	}
	if !shut {
		n.log.WarnContext(ctx, "the disk of the log works again; this peer is back")
		return
	}
	n.queue.refuse(ErrFenced)
	n.reads.refuse(ErrFenced)
	n.log.ErrorContext(ctx, "the disk of the log has stalled; this peer takes no part in consensus until it works again")
}
