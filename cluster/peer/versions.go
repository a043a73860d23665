package peer

import (
	"math"
	"time"

	"srsx/cluster/quorum"
)

// oldestCommands is the version of commands that every release reads.
const oldestCommands = 1

// versionsFresh is how long what members read is not looked at again: every
// proposal asks.
const versionsFresh = 50 * time.Millisecond

// versionsLooked is what was found when the members were last looked at.
type versionsLooked struct {
	at    time.Time
	inUse uint16
}

// commandVersion returns the version of commands in use: the newest that all
// members of Raft read. Who is away counts as when it was last heard.
func (p *Peer) commandVersion() uint16 {
	now := time.Now()
	if l := p.versions.Load(); l != nil && now.Sub(l.at) < versionsFresh {
		return l.inUse
	}
	members := p.Raft().GetConfiguration().Configuration()
	inUse := quorum.CommandVersion(members, p.quorumPeers(), p.config.reads, oldestCommands)
	p.versions.Store(&versionsLooked{now, inUse})
	return inUse
}

// understood is commandVersion as batches carry it.
func (p *Peer) understood() uint8 { return uint8(min(p.commandVersion(), math.MaxUint8)) }
