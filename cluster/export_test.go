package cluster

import "time"

// AppendRaw appends an entry that no node would propose, to the leader's log.
func (n *Node) AppendRaw(entry []byte) error {
	return n.raft.Apply(entry, time.Second).Error()
}
