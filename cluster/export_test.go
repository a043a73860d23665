package cluster

import "time"

// AppendRaw appends an entry that no node would propose, to the leader's log.
func (n *Node) AppendRaw(entry []byte) error {
	return n.raft.Apply(entry, time.Second).Error()
}

// WithoutEmptyMessages keeps raft from telling followers what is committed, other
// than with the entries that follow.
func WithoutEmptyMessages(c *Config) { c.commitTimeout = time.Hour }
