package bench

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"srsx/cluster"
	clusterpeer "srsx/cluster/peer"
	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/raftlb"
)

// batched is a peer as cmd/srsx wires it, without its media.
type batched struct {
	log      *slog.Logger
	peer     *clusterpeer.Peer
	balancer *raftlb.Balancer
}

// leaseTTL is longer than any benchmark: who fills a cluster with a million
// streams is no peer, and sends no sign of life.
const leaseTTL = time.Hour

func (b *batched) open(ctx context.Context, o Options) (Server, error) {
	dir, err := cluster.OpenDataDir(o.Dir)
	if err != nil {
		return Server{}, err
	}
	epoch := uint64(time.Now().UnixMilli())
	b.balancer = raftlb.New(raftlb.Config{
		Holder: fsm.Holder{Peer: dir.NodeID(), Epoch: epoch}, LeaseTTL: leaseTTL,
		Probe: func(context.Context, lb.Origin) error { return nil }, // nothing is relayed
	})
	expect := 3
	if o.Alone {
		expect = 0
	}
	b.peer, err = clusterpeer.Open(ctx, clusterpeer.Config{
		Dir: dir, Name: o.Name, ClusterName: "bench", Epoch: epoch,
		Listen: o.Cluster, GossipListen: o.Gossip, Advertise: "127.0.0.1", SystemAddr: o.Cluster,
		RetryJoin: strings.Split(o.Seeds, ","), Expect: expect,
		Observer: b.balancer, Answer: b.balancer.Answer,
		OnLeadership: func(l cluster.Leadership) { b.balancer.Lead(l.Established) },
		Log:          b.log,
	})
	if err != nil {
		return Server{}, err
	}
	go func() {
		if err := b.peer.Serve(ctx); err != nil {
			b.log.ErrorContext(ctx, "peer ended", "err", err)
		}
	}()
	go b.balancer.Run(ctx, b.peer.Node)
	return Server{ID: dir.NodeID(), Addr: o.Cluster}, nil
}

// found has nothing to do: the peers meet by gossip.
func (b *batched) found(context.Context, []Server) error { return nil }

func (b *batched) status() Status {
	s := b.peer.Status()
	voters := 0
	for _, server := range b.peer.Servers() {
		if server.Voter {
			voters++
		}
	}
	return Status{Leads: s.Established, Settled: s.Leader != "" && voters == 3, Applied: s.Applied}
}

func (b *batched) register(ctx context.Context, r lb.Registration) error {
	return b.balancer.Register(ctx, r)
}

func (b *batched) place(ctx context.Context, w lb.Want) (lb.Lease, error) {
	return b.balancer.Acquire(ctx, w)
}

func (b *batched) lookup(s lb.Stream) bool {
	_, _, ok := b.balancer.Lookup(s)
	return ok
}

func (b *batched) events() (<-chan lb.Event, func()) { return b.balancer.Events() }

// Fill places the streams of a range without sessions that would hold them, as
// if they were those of other peers.
func (d *Drive) Fill(r Range, _ *None) error {
	if d.batched == nil {
		return fmt.Errorf("only %s can be filled", roleBatched)
	}
	const batch = 500
	ctx := context.Background()
	var origins []lb.Origin
	for _, o := range d.batched.balancer.Origins() {
		origins = append(origins, o.Origin)
	}
	for from := 0; from < r.Count; from += batch {
		places := make([]fsm.Command, 0, batch)
		for i := from; i < min(from+batch, r.Count); i++ {
			o := origins[i%len(origins)]
			places = append(places, fsm.Place{
				Stream: stream(r.Prefix, i), Origin: o.ID, Incarnation: o.Incarnation, Publish: true,
				Holder: fsm.Holder{Peer: fmt.Sprintf("6fa3c9a2-5a1c-4a4e-9d0a-0b1f9f6f8a%02d", i%3), Epoch: 1},
			})
		}
		results, err := d.batched.peer.Propose(ctx, places...)
		if err != nil {
			return err
		}
		for _, result := range results {
			if !result.Created {
				return fmt.Errorf("place: %+v", result)
			}
		}
	}
	return nil
}
