package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"srsx/cluster"
	"srsx/cluster/keyring"
	"srsx/cluster/port"
	"srsx/cluster/rpc"
	"srsx/cluster/store"
	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/decide"
	"srsx/lb/liveness"
	"srsx/lb/replica"
)

// plain is what one writes first: each placement is an entry of the log, given to
// raft.Apply by whoever wants it, and a follower asks the leader for each of
// them. All else is as srsx has it: store, port, settings of raft, state machine
// and read index.
type plain struct {
	log     *slog.Logger
	id      string
	addrs   sync.Map // of peers, by id
	raft    *raft.Raft
	calls   *rpc.Exchange
	replica *replica.Replica
	decider *decide.Decider

	mu      sync.RWMutex // guards what follows
	state   *fsm.State
	waiting map[uint64]chan struct{} // by index, closed when it is applied
}

const kindPlainPlace byte = 100

func (p *plain) open(ctx context.Context, o Options) (Server, error) {
	dir, err := cluster.OpenDataDir(o.Dir)
	if err != nil {
		return Server{}, err
	}
	p.id, p.state, p.replica = dir.NodeID(), fsm.NewState(fsm.Limits{}), replica.New()
	p.waiting = make(map[uint64]chan struct{})
	p.decider = decide.New(fsm.Policy{}, nobody{}, liveness.Config{Probe: func(context.Context, lb.Origin) error { return nil }})
	ring, err := keyring.Open(dir.Path("keyring"), keyring.Key{})
	if err != nil {
		return Server{}, err
	}
	listener, err := port.Listen(ctx, o.Cluster, port.Config{
		NodeID: p.id, NodeName: o.Name, ClusterName: "plain", Keys: ring, Log: p.log,
		Resolve: func(id string) string { addr, _ := p.addrs.Load(id); text, _ := addr.(string); return text },
	})
	if err != nil {
		return Server{}, err
	}
	p.calls = rpc.New(listener, rpc.Config{Log: p.log})
	p.calls.Handle(kindPlainPlace, p.answerPlace)
	go func() { _ = listener.Serve(ctx) }()
	return Server{ID: p.id, Addr: o.Cluster}, p.openRaft(dir, listener.Raft())
}

func (p *plain) openRaft(dir *cluster.DataDir, stream *port.RaftStream) error {
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(p.id)
	config.CommitTimeout = 10 * time.Millisecond
	config.MaxAppendEntries, config.BatchApplyCh = 256, true
	config.SnapshotInterval, config.SnapshotThreshold, config.TrailingLogs = time.Second, 8192, 4096
	config.Logger = cluster.NewRaftLogger(p.log)
	disk, err := store.Open(dir.Path("raft"), store.Options{MaxAppendEntries: config.MaxAppendEntries})
	if err != nil {
		return err
	}
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream, ServerAddressProvider: stream, MaxPool: 3, Timeout: 10 * time.Second,
		MsgpackUseNewTimeFormat: true, Logger: cluster.NewRaftLogger(p.log),
	})
	p.raft, err = raft.NewRaft(config, p, disk, disk, disk.Snapshots(), transport)
	return err
}

func (p *plain) found(_ context.Context, servers []Server) error {
	var configuration raft.Configuration
	for _, s := range servers {
		p.addrs.Store(s.ID, s.Addr)
		configuration.Servers = append(configuration.Servers, raft.Server{ID: raft.ServerID(s.ID), Address: raft.ServerAddress(s.ID)})
	}
	if p.id != servers[0].ID {
		return nil
	}
	return p.raft.BootstrapCluster(configuration).Error()
}

func (p *plain) status() Status {
	_, leader := p.raft.LeaderWithID()
	return Status{Leads: p.raft.State() == raft.Leader, Settled: leader != "", Applied: p.raft.AppliedIndex()}
}

func (p *plain) register(ctx context.Context, r lb.Registration) error {
	_, _, err := p.propose(ctx, fsm.PutOrigin{Origin: r.Origin})
	return err
}

// propose agrees on one command, as an entry of its own.
func (p *plain) propose(ctx context.Context, c fsm.Command) (index uint64, result fsm.Result, err error) {
	_, leader := p.raft.LeaderWithID()
	entry := fsm.AppendBatch(nil, time.Now(), []fsm.Command{c})
	if string(leader) == p.id {
		return p.apply(entry)
	}
	reply, err := p.calls.Call(ctx, port.Target{ID: string(leader)}, kindPlainPlace, entry)
	if err != nil {
		return 0, result, err
	}
	index, n := binary.Uvarint(reply)
	if n <= 0 || len(reply) != n+1 {
		return 0, result, errors.New("malformed reply")
	}
	result.Created = reply[n] == 1
	return index, result, nil
}

func (p *plain) apply(entry []byte) (index uint64, result fsm.Result, err error) {
	future := p.raft.Apply(entry, patience)
	if err = future.Error(); err != nil {
		return 0, result, err
	}
	result, _ = future.Response().(fsm.Result)
	return future.Index(), result, result.Err
}

// answerPlace chooses an origin for a follower's stream and agrees on it.
func (p *plain) answerPlace(_ context.Context, _ port.Peer, entry []byte) ([]byte, error) {
	_, commands, err := fsm.DecodeBatch(entry)
	if err != nil || len(commands) != 1 {
		return nil, errors.Join(errors.New("malformed request"), err)
	}
	if place, ok := commands[0].(fsm.Place); ok {
		if entry, err = p.choose(place); err != nil {
			return nil, err
		}
		defer p.decider.Settled(place)
	}
	index, result, err := p.apply(entry)
	created := byte(0)
	if result.Created {
		created = 1
	}
	return append(binary.AppendUvarint(nil, index), created), err
}

func (p *plain) choose(place fsm.Place) ([]byte, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	place, err := p.decider.Place(p.state, lb.Want{Stream: place.Stream, Protocol: lb.RTMP, Publish: place.Publish}, place.Holder)
	return fsm.AppendBatch(nil, time.Now(), []fsm.Command{place}), err
}

func (p *plain) place(ctx context.Context, w lb.Want) (lb.Lease, error) {
	place := fsm.Place{Stream: w.Stream, Publish: w.Publish, Holder: fsm.Holder{Peer: p.id, Epoch: 1}}
	if p.raft.State() == raft.Leader {
		p.mu.RLock()
		chosen, err := p.decider.Place(p.state, w, place.Holder)
		p.mu.RUnlock()
		if err != nil {
			return lb.Lease{}, err
		}
		defer p.decider.Settled(chosen)
		place = chosen
	}
	index, result, err := p.propose(ctx, place)
	if err != nil {
		return lb.Lease{}, err
	}
	if err = p.await(ctx, index); err != nil {
		return lb.Lease{}, err
	}
	placement, origin, ok := p.replica.Alive(w.Stream)
	if !ok {
		return lb.Lease{}, fmt.Errorf("%v is not placed", w.Stream)
	}
	p.replica.Hold(placement, w.Publish)
	return lb.Lease{Placement: placement, Origin: origin, Created: result.Created}, nil
}

// await waits until an entry is applied here.
func (p *plain) await(ctx context.Context, index uint64) error {
	p.mu.Lock()
	if p.state.Index() >= index {
		p.mu.Unlock()
		return nil
	}
	applied := make(chan struct{})
	p.waiting[index] = applied
	p.mu.Unlock()
	select {
	case <-applied:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *plain) lookup(s lb.Stream) bool {
	_, _, ok := p.replica.Alive(s)
	return ok
}

func (p *plain) events() (<-chan lb.Event, func()) { return p.replica.Events() }

// Apply implements raft.FSM.
func (p *plain) Apply(entry *raft.Log) any {
	at, commands, err := fsm.DecodeBatch(entry.Data)
	if err != nil {
		return fsm.Result{Err: err}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	results := p.state.Apply(entry.Index, at, commands...)
	p.replica.Follow(p.state, results...)
	if applied, ok := p.waiting[entry.Index]; ok {
		close(applied)
		delete(p.waiting, entry.Index)
	}
	return results[0]
}

// Snapshot implements raft.FSM.
func (p *plain) Snapshot() (raft.FSMSnapshot, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return plainSnapshot{p.state.Snapshot()}, nil
}

// Restore implements raft.FSM.
func (p *plain) Restore(from io.ReadCloser) error {
	state, err := fsm.Restore(from, fsm.Limits{})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
	p.replica.Reset(state)
	return nil
}

type plainSnapshot struct{ *fsm.Snapshot }

// Persist implements raft.FSMSnapshot.
func (s plainSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := s.WriteTo(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (plainSnapshot) Release() {}

// nobody takes no edges: the origins stay as they are.
type nobody struct{}

func (nobody) ProposeUp(lb.OriginID, lb.Incarnation, string)   {}
func (nobody) ProposeDown(lb.OriginID, lb.Incarnation, string) {}

var _ raft.FSM = (*plain)(nil)
