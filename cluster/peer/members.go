package peer

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"srsx/cluster"
	"srsx/cluster/gossip"
	"srsx/cluster/port"
)

// Vitals are what a peer says of itself when it is asked.
type Vitals struct {
	Streams  int  // placed, by its replica
	Sessions int  // of media, at this peer
	Insecure bool // its log warns of what strangers may do
}

// Member is one peer as this one sees it.
type Member struct {
	gossip.Member

	Vitals // zero when it did not answer
}

const vitalsTimeout = 500 * time.Millisecond

// Members returns all peers, this one included, ordered by name.
func (p *Peer) Members(ctx context.Context) []Member {
	ctx, cancel := context.WithTimeout(ctx, vitalsTimeout)
	defer cancel()
	known := p.gossip.Members()
	members := make([]Member, len(known))
	var asking sync.WaitGroup
	for i, m := range known {
		members[i].Member = m
		switch {
		case m.ID == p.id:
			members[i].Vitals = p.config.Vitals()
		case m.State == gossip.Alive:
			asking.Go(func() {
				answer, err := p.calls.Call(ctx, port.Target{ID: m.ID}, kindVitals, nil)
				if err == nil {
					_ = json.Unmarshal(answer, &members[i].Vitals) // a peer of another version
				}
			})
		}
	}
	asking.Wait()
	return members
}

// NameOf returns the name of a member by its id; empty when it is not known.
func (p *Peer) NameOf(id string) string {
	for _, m := range p.gossip.Members() {
		if m.ID == id {
			return m.Name
		}
	}
	return ""
}

// lookUp returns a member by its name or id, the servers of Raft of which gossip
// knows nothing included. Else the error is cluster.ErrUnknownMember.
func (p *Peer) lookUp(name string) (gossip.Member, error) {
	for _, m := range p.gossip.Members() {
		if m.Name == name || m.ID == name {
			return m, nil
		}
	}
	if p.isServer(name) {
		return gossip.Member{Meta: gossip.Meta{ID: name}}, nil
	}
	return gossip.Member{}, cluster.ErrUnknownMember
}

// find is lookUp of a peer that is to go: another one.
func (p *Peer) find(name string) (gossip.Member, error) {
	m, err := p.lookUp(name)
	if err == nil && m.ID == p.id {
		err = ErrItself
	}
	return m, err
}
