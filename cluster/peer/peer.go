// Package peer is one running member of a cluster: its disk, its port, its
// gossip and its part in consensus, put together.
package peer

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	"golang.org/x/sync/errgroup"

	"srsx/cluster"
	"srsx/cluster/durable"
	"srsx/cluster/founding"
	"srsx/cluster/gossip"
	"srsx/cluster/keyring"
	"srsx/cluster/port"
	"srsx/cluster/rpc"
	"srsx/cluster/store"
	"srsx/fsm"
)

// Config of a [Peer]. Zero values mean the defaults.
type Config struct {
	Dir         *cluster.DataDir // required
	Name        string           // unique in the cluster; required
	ClusterName string           // peers of another name are ignored; required
	Version     string           // of the build
	Epoch       uint64           // of this run

	Listen       string // host:port of the cluster port; required
	GossipListen string // host:port of gossip; required
	Advertise    string // host by which others reach both; default: first private address
	SystemAddr   string // of the system API, for others to show

	Join      []string // seeds of which one has to answer before Serve goes on
	RetryJoin []string // seeds that are tried for ever
	Expect    int      // found a cluster when so many peers have met; 0: never
	NonVoter  bool

	Key          string                // base64; empty: none
	Certificates port.CertificateFiles // empty: none

	Multiplier int // of raft's timeouts
	Limits     fsm.Limits
	Observer   cluster.Observer
	Answer     func(ctx context.Context, from string, question []byte) ([]byte, error)
	Witness    func(ctx context.Context, from string, question []byte) bool
	// OnLeadership is told who leads; see cluster.Config.
	OnLeadership func(cluster.Leadership)
	// Vitals are what this peer says of itself to others that list the members.
	Vitals func() Vitals

	Log *slog.Logger // default: none
}

// Vitals are what a peer says of itself when it is asked.
type Vitals struct {
	Streams, Sessions int
	Insecure          bool
}

// Peer is one member. Its methods are safe for concurrent use.
type Peer struct {
	*cluster.Node

	config Config
	log    *slog.Logger
	id     string
	ring   *keyring.Ring
	disk   *store.Store
	port   *port.Port
	calls  *rpc.Exchange
	gossip *gossip.Gossip

	founding *founding.Participant
	proposed atomic.Pointer[string] // UUID of the cluster that this peer founds

	founded chan fsm.Cluster // what the state says of the cluster, when it first does
	left    chan struct{}    // closed when this peer has left for good
	leaving sync.Once
}

// Open recovers the state from disk and opens both ports. A failure names the
// port or the file. Serve comes next, and Close in any case.
func Open(ctx context.Context, config Config) (p *Peer, err error) {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	p = &Peer{
		config: config, log: config.Log, id: config.Dir.NodeID(),
		founded: make(chan fsm.Cluster, 1), left: make(chan struct{}),
	}
	opened := p
	defer func() {
		if err != nil {
			opened.closeParts()
		}
	}()
	if p.ring, err = openRing(config); err != nil {
		return nil, err
	}
	stalled := make(chan bool, 1)
	if p.disk, err = p.openDisk(stalled); err != nil {
		return nil, err
	}
	kept, err := readClusterID(config.Dir)
	if err != nil {
		return nil, err
	}
	if err = p.openPort(ctx, kept); err != nil {
		return nil, err
	}
	p.founding = p.newFounding()
	if err = p.openGossip(ctx, kept); err != nil {
		return nil, err
	}
	if err = p.openNode(ctx, stalled); err != nil {
		return nil, err
	}
	return p, nil
}

func openRing(config Config) (*keyring.Ring, error) {
	var key keyring.Key
	if config.Key != "" {
		var err error
		if key, err = keyring.Parse(config.Key); err != nil {
			return nil, fmt.Errorf("cluster key: %w", err)
		}
	}
	return keyring.Open(config.Dir.Path("keyring"), key)
}

// maxAppendEntries is raft's own setting in cluster.Config.
const maxAppendEntries = 256

// openDisk opens the log and the snapshots. stalled always holds the newest word.
func (p *Peer) openDisk(stalled chan bool) (*store.Store, error) {
	tell := func(stands bool) {
		select {
		case <-stalled:
		default:
		}
		stalled <- stands
	}
	return store.Open(p.config.Dir.Path("raft"), store.Options{
		MaxAppendEntries: maxAppendEntries,
		OnStall: func(s store.Stall) {
			p.log.Error("disk stalled: this peer takes no part in decisions, media goes on", "doing", s.Doing, "for", s.For)
			tell(true)
		},
		OnRecover: func(s store.Stall) {
			p.log.Warn("disk answers again", "was", s.Doing, "for", s.For)
			tell(false)
		},
		Logger: cluster.NewRaftLogger(p.log),
	})
}

func (p *Peer) openPort(ctx context.Context, clusterID string) (err error) {
	var certificates *port.Certificates
	if p.config.Certificates != (port.CertificateFiles{}) {
		if certificates, err = port.LoadCertificates(p.config.Certificates, p.log); err != nil {
			return err
		}
	}
	p.port, err = port.Listen(ctx, p.config.Listen, port.Config{
		NodeID: p.id, NodeName: p.config.Name, ClusterName: p.config.ClusterName, ClusterID: clusterID,
		Keys: p.ring, Certs: certificates, Resolve: p.resolve, Log: p.log,
	})
	if err != nil {
		return fmt.Errorf("-cluster: %w", err)
	}
	p.calls = rpc.New(p.port, rpc.Config{Log: p.log})
	p.serveCalls()
	return nil
}

func (p *Peer) openGossip(ctx context.Context, clusterID string) (err error) {
	addr, err := p.advertised()
	if err != nil {
		return err
	}
	p.gossip, err = gossip.Open(ctx, gossip.Config{
		Meta: gossip.Meta{
			ID: p.id, Name: p.config.Name, Cluster: clusterID, ClusterAddr: addr, SystemAddr: p.config.SystemAddr,
			Version: p.config.Version, Epoch: p.config.Epoch, Commands: fsm.BatchVersion,
			Expect: uint16(min(max(p.config.Expect, 0), 1<<16-1)), NonVoter: p.config.NonVoter,
		},
		Label: p.config.ClusterName, Listen: p.config.GossipListen, Keyring: p.ring.Gossip(), Advertise: p.config.Advertise,
		Seeds: p.config.RetryJoin, PeersFile: p.config.Dir.Path("peers"), OnMessage: p.founding.Deliver, Log: p.log,
	})
	if err != nil {
		return fmt.Errorf("-gossip: %w", err)
	}
	return nil
}

// advertised returns where others reach the cluster port.
func (p *Peer) advertised() (string, error) {
	host, number, err := net.SplitHostPort(p.port.Addr().String())
	if err != nil {
		return "", fmt.Errorf("-cluster: %w", err)
	}
	if p.config.Advertise != "" {
		host = p.config.Advertise
	}
	return net.JoinHostPort(host, number), nil
}

func (p *Peer) openNode(ctx context.Context, stalled <-chan bool) (err error) {
	stream := p.port.Raft()
	const timeout = 10 * time.Second
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream, ServerAddressProvider: stream, MaxPool: 3, Timeout: timeout,
		MsgpackUseNewTimeFormat: true, Logger: cluster.NewRaftLogger(p.log),
	})
	p.Node, err = cluster.Open(ctx, cluster.Config{
		ID: p.id, RecoveryDir: p.config.Dir.Path("."), Limits: p.config.Limits,
		Logs: p.disk, Stable: p.disk, Snapshots: p.disk.Snapshots(), Transport: transport, RPC: calls{p.calls},
		Observer: observer{p, p.config.Observer}, Answer: p.config.Answer, Witness: p.config.Witness, OnLeadership: p.config.OnLeadership,
		Understood: p.understood, Stalled: stalled, Fence: fence(stream), Processes: processes{p.port},
		Multiplier: p.config.Multiplier, Log: p.log,
	})
	return err
}

// understood returns the newest version of commands that every member reads.
func (p *Peer) understood() uint8 {
	version := uint16(fsm.BatchVersion)
	for _, m := range p.gossip.Members() {
		if m.State != gossip.Left {
			version = min(version, m.Commands)
		}
	}
	return uint8(version)
}

// resolve returns where the cluster port of a peer is: by gossip, or as it was
// when it was let in.
func (p *Peer) resolve(id string) string {
	for _, m := range p.gossip.Members() {
		if m.ID == id {
			return m.ClusterAddr
		}
	}
	if p.Node == nil {
		return "" // it is being opened
	}
	for _, s := range p.Servers() {
		if s.ID == id {
			return s.Addr
		}
	}
	return ""
}

// Serve works until ctx ends, this peer has left for good, or a part fails.
func (p *Peer) Serve(ctx context.Context) error {
	working, ctx := errgroup.WithContext(ctx)
	working.Go(func() error { return p.port.Serve(ctx) })
	working.Go(func() error { return p.gossip.Serve(ctx) })
	working.Go(func() error { return p.belong(ctx) })
	working.Go(func() error { return p.founding.Serve(ctx) })
	working.Go(func() error { return p.reconcile(ctx) })
	working.Go(func() error { return p.explainWaiting(ctx) })
	if len(p.config.Join) > 0 {
		working.Go(func() error { return p.joinFirst(ctx) })
	}
	return working.Wait()
}

// joinTimeout is how long the seeds of -join may take to answer: they may be
// started at the same time.
const joinTimeout = 30 * time.Second

func (p *Peer) joinFirst(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if err := p.gossip.Join(limited, p.config.Join...); err != nil && ctx.Err() == nil {
		return fmt.Errorf("-join: %w", err)
	}
	return nil
}

// Left is closed when this peer has left the cluster for good.
func (p *Peer) Left() <-chan struct{} { return p.left }

// Shutdown hands leadership over, if this peer leads, and stops. It stays a
// member. Serve has to be ended, too.
func (p *Peer) Shutdown(ctx context.Context) error {
	err := p.Node.Shutdown(ctx)
	p.closeParts()
	return err
}

// closeParts closes what Open opened before the node.
func (p *Peer) closeParts() {
	if p.gossip != nil {
		_ = p.gossip.Close()
	}
	if p.calls != nil {
		_ = p.calls.Close()
	}
	if p.port != nil {
		_ = p.port.Close()
	}
	if p.disk != nil {
		_ = p.disk.Close()
	}
}

const clusterIDFile = "cluster-id"

// keepClusterID remembers to which cluster this peer belongs, so that it cannot
// be let into another one before its state is read.
func keepClusterID(dir *cluster.DataDir, id string) error {
	return durable.WriteFile(dir.Path(clusterIDFile), []byte(id+"\n"))
}
