package peer

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"srsx/cluster/gossip"
	"srsx/cluster/quorum"
	"srsx/fsm"
)

const (
	leadershipPace = 200 * time.Millisecond
	contactTimeout = time.Second
)

// reconcile brings the members of Raft in line with who is there, while this
// peer leads.
func (p *Peer) reconcile(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	pace := time.NewTicker(leadershipPace)
	defer pace.Stop()
	var keeping sync.WaitGroup
	defer keeping.Wait()
	end := context.CancelFunc(func() {})
	defer func() { end() }()
	for leading := false; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-p.gossip.Events():
			select {
			case changed <- struct{}{}:
			default:
			}
		case <-pace.C:
		}
		leads := p.Status().Established
		switch {
		case leads && !leading:
			term, stop := context.WithCancel(ctx)
			end = stop
			keeping.Go(func() { p.keep(term, changed) })
		case leading && !leads:
			end()
			keeping.Wait()
		}
		leading = leads
	}
}

// keep names a cluster that has just been founded, and keeps its members, until
// ctx ends with this peer's leadership.
func (p *Peer) keep(ctx context.Context, changed <-chan struct{}) {
	for {
		err := p.name(ctx)
		if err == nil {
			break
		}
		p.log.WarnContext(ctx, "cluster not named", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(leadershipPace):
		}
	}
	keeper := quorum.NewKeeper(quorum.Config{
		Self: raft.ServerID(p.id), Raft: p.Raft(), Settings: quorum.Settings{Stabilization: stabilization},
		Cluster: p.clusterID, Commands: func() uint16 { return uint16(fsm.BatchVersion) },
		Peers: p.quorumPeers, Contacts: p.contacts, Changed: changed, Log: p.log,
	})
	_ = keeper.Serve(ctx) // nil: it ends with ctx
}

// stabilization is how long a replica works before it may vote.
const stabilization = 2 * time.Second

func (p *Peer) clusterID() (id string) {
	p.View(func(s *fsm.State) {
		if c, named := s.Cluster(); named {
			id = c.ID
		}
	})
	return id
}

func (p *Peer) quorumPeers() []quorum.Peer {
	var peers []quorum.Peer
	for _, m := range p.gossip.Members() {
		peers = append(peers, quorum.Peer{
			ID: raft.ServerID(m.ID), Name: m.Name, Address: raft.ServerAddress(m.ClusterAddr),
			Alive: m.State == gossip.Alive, Left: m.State == gossip.Left, Leaving: m.Leaving,
			Cluster: m.Cluster, NonVoter: m.NonVoter, Commands: m.Commands,
		})
	}
	return peers
}

// contacts asks all other servers at once how far they are.
func (p *Peer) contacts(ctx context.Context, c raft.Configuration) map[raft.ServerID]quorum.Contact {
	ctx, cancel := context.WithTimeout(ctx, contactTimeout)
	defer cancel()
	var (
		mu     sync.Mutex
		asking sync.WaitGroup
		found  = make(map[raft.ServerID]quorum.Contact)
	)
	for _, server := range c.Servers {
		if string(server.ID) == p.id {
			continue
		}
		asking.Go(func() {
			position, err := p.Position(ctx, string(server.ID))
			if err != nil || !position.Healthy {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			found[server.ID] = quorum.Contact{Answered: true, Term: position.Term, LastIndex: position.Last}
		})
	}
	asking.Wait()
	return found
}
