package peer

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"srsx/cluster/gossip"
	"srsx/cluster/quorum"
)

const (
	namePause      = 200 * time.Millisecond // before a cluster is named once more
	contactTimeout = time.Second
)

// settings of who votes. A replica that is some seconds behind is found out by
// then.
func settings() quorum.Settings { return quorum.Settings{Stabilization: 2 * time.Second} }

// reconcile brings the members of Raft in line with who is there, in each term
// that this peer leads.
func (p *Peer) reconcile(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	end := func() {}
	defer func() { end() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.gossip.Events():
			select {
			case changed <- struct{}{}:
			default:
			}
		case l := <-p.leadership:
			end()
			end = func() {}
			if l.Established {
				end = p.keeping(ctx, changed)
			}
		}
	}
}

// keeping runs keep until end is called, which waits for it.
func (p *Peer) keeping(ctx context.Context, changed <-chan struct{}) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var working sync.WaitGroup
	working.Go(func() { p.keep(ctx, changed) })
	return func() { cancel(); working.Wait() }
}

// keep names a cluster that has just been founded, and keeps its members, until
// ctx ends with this peer's leadership.
func (p *Peer) keep(ctx context.Context, changed <-chan struct{}) {
	for err := p.name(ctx); err != nil; err = p.name(ctx) {
		p.log.WarnContext(ctx, "cluster not named", "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(namePause):
		}
	}
	keeper := quorum.NewKeeper(quorum.Config{
		Self: raft.ServerID(p.id), Raft: p.Raft(), Answered: p.Answered, Settings: settings(),
		Cluster: p.clusterID, Commands: p.commandVersion,
		Peers: p.quorumPeers, Contacts: p.contacts, Changed: changed, Log: p.log,
	})
	p.keeper.Store(keeper)
	defer p.keeper.Store(nil)
	_ = keeper.Serve(ctx) // nil: it ends with ctx
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
