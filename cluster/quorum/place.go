package quorum

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// Raft refuses a configuration in which two servers have one address. Peers that
// swap addresses, or a newcomer on the address of one that is away, would wait for
// ever; so whoever is in the way is parked at an address that nobody has
// (RFC 6761 section 6.4) until it is seen again.
const parkedHost = ".parked.invalid:1"

func parked(id raft.ServerID) raft.ServerAddress { return raft.ServerAddress(string(id) + parkedHost) }

// Parked reports whether an address of the configuration stands for none.
func Parked(address raft.ServerAddress) bool { return strings.HasSuffix(string(address), parkedHost) }

// holder returns the server that has an address in the configuration.
func (p *picture) holder(address raft.ServerAddress) (raft.Server, bool) {
	i := slices.IndexFunc(p.Config.Servers, func(s raft.Server) bool { return s.Address == address })
	if i < 0 {
		return raft.Server{}, false
	}
	return p.Config.Servers[i], true
}

// move takes over the address that a server now has, first where it is free.
func (p *picture) move() *Step {
	var blocked []Peer
	for _, s := range p.Config.Servers {
		peer := p.peers[s.ID]
		if !peer.Alive || peer.Left || peer.Address == s.Address {
			continue
		}
		if _, taken := p.holder(peer.Address); taken {
			blocked = append(blocked, peer)
			continue
		}
		return p.moveTo(s.ID, peer.Address, "it has come back at another address")
	}
	for _, peer := range blocked {
		if step := p.clear(peer); step != nil {
			return step
		}
	}
	return nil
}

// clear parks whoever holds the address of a peer and is not there, and returns
// nil when it is there after all.
func (p *picture) clear(peer Peer) *Step {
	holder, _ := p.holder(peer.Address)
	if other := p.peers[holder.ID]; other.Alive && other.Address == peer.Address {
		p.note(peer.ID, fmt.Sprintf("%s advertises %s, which is the address of %s", p.name(peer.ID), peer.Address, p.name(holder.ID)))
		return nil
	}
	return p.moveTo(holder.ID, parked(holder.ID), p.name(peer.ID)+" has its address now")
}

func (p *picture) moveTo(id raft.ServerID, address raft.ServerAddress, reason string) *Step {
	step := p.step(Move, id, reason)
	step.Address = address
	return step
}

// add lets newcomers in, as replicas.
func (p *picture) add() *Step {
	newcomers := slices.DeleteFunc(slices.Clone(p.Peers), func(peer Peer) bool {
		known := slices.ContainsFunc(p.Config.Servers, func(s raft.Server) bool { return s.ID == peer.ID })
		stranger := peer.Cluster != "" && peer.Cluster != p.Cluster
		return known || stranger || !peer.Alive || peer.Left || peer.Leaving
	})
	slices.SortFunc(newcomers, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
	for _, peer := range newcomers {
		if peer.Commands < p.Commands {
			p.note(peer.ID, fmt.Sprintf("%s understands commands up to version %d, and %d are in use: it needs a newer release",
				p.name(peer.ID), peer.Commands, p.Commands))
			continue
		}
		if _, taken := p.holder(peer.Address); taken {
			if step := p.clear(peer); step != nil {
				return step
			}
			continue
		}
		step := p.step(Add, peer.ID, "it has joined")
		step.Address = peer.Address
		return step
	}
	return nil
}

// First returns the configuration with which a cluster is founded by these peers:
// as many voters as are of use, those with the lowest ids, the founder among them.
func First(peers []Peer, set Settings) raft.Configuration {
	peers = slices.Clone(peers)
	slices.SortFunc(peers, func(a, b Peer) int { return cmp.Compare(a.ID, b.ID) })
	voters := min(set.votersAmong(len(peers)), len(peers))
	if voters%2 == 0 {
		voters--
	}
	var c raft.Configuration
	for i, peer := range peers {
		suffrage := raft.Nonvoter
		if i < voters {
			suffrage = raft.Voter
		}
		c.Servers = append(c.Servers, raft.Server{ID: peer.ID, Address: peer.Address, Suffrage: suffrage})
	}
	return c
}

// CommandVersion returns the newest version of commands that every server of the
// configuration understands, own being what this release does. A server that is
// away counts by what it last said of itself; of one never heard of only what is
// in use already is known to be understood.
func CommandVersion(config raft.Configuration, peers []Peer, own, inUse uint16) uint16 {
	understood := make(map[raft.ServerID]uint16)
	for _, p := range peers {
		understood[p.ID] = p.Commands
	}
	version := own
	for _, s := range config.Servers {
		v, known := understood[s.ID]
		if !known {
			v = inUse
		}
		version = min(version, v)
	}
	return version
}
