package peer

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"time"

	"github.com/hashicorp/raft"

	"srsx/cluster"
	"srsx/cluster/gossip"
	"srsx/cluster/keyring"
	"srsx/cluster/port"
	"srsx/cluster/rpc"
	"srsx/cluster/store"
	"srsx/fsm"
)

// Open recovers the state from disk and opens both ports. A failure names the
// port or the file. Serve comes next, and Shutdown or Close in any case.
func Open(ctx context.Context, config Config) (*Peer, error) {
	config = config.withDefaults()
	p := &Peer{
		config: config, log: config.Log, id: config.Dir.NodeID(),
		opened: make(chan struct{}), founded: make(chan fsm.Cluster, 1),
		leadership: make(chan cluster.Leadership, 1), left: make(chan struct{}),
	}
	if err := p.open(ctx); err != nil {
		return nil, errors.Join(err, p.closeParts())
	}
	return p, nil
}

func (p *Peer) open(ctx context.Context) (err error) {
	if p.ring, err = p.openRing(); err != nil {
		return err
	}
	stalled := make(chan bool, 1)
	if p.disk, err = p.openDisk(stalled); err != nil {
		return err
	}
	clusterID, err := readClusterID(p.config.Dir)
	if err != nil {
		return err
	}
	if err = p.openPort(ctx, clusterID); err != nil {
		return err
	}
	p.founding = p.newFounding()
	if err = p.openGossip(ctx, clusterID); err != nil {
		return err
	}
	if err = p.openNode(ctx, stalled); err != nil {
		return err
	}
	close(p.opened)
	return nil
}

func (p *Peer) openRing() (*keyring.Ring, error) {
	var key keyring.Key
	if p.config.Key != "" {
		var err error
		if key, err = keyring.Parse(p.config.Key); err != nil {
			return nil, fmt.Errorf("cluster key: %w", err)
		}
	}
	return keyring.Open(p.config.Dir.Path("keyring"), key)
}

// maxAppendEntries is raft's own setting in cluster.Config.
const maxAppendEntries = 256

// openDisk opens the log and the snapshots. stalled always holds the newest word.
func (p *Peer) openDisk(stalled chan bool) (*store.Store, error) {
	return store.Open(p.config.Dir.Path("raft"), store.Options{
		MaxAppendEntries: maxAppendEntries,
		OnStall: func(s store.Stall) {
			p.log.Error("disk stalled: this peer takes no part in decisions, media goes on", "doing", s.Doing, "for", s.For)
			replaceIn(stalled, true)
		},
		OnRecover: func(s store.Stall) {
			p.log.Warn("disk answers again", "was", s.Doing, "for", s.For)
			replaceIn(stalled, false)
		},
		Logger: cluster.NewRaftLogger(p.log),
	})
}

// replaceIn leaves only the newest value in a channel of size 1 that one goroutine
// at a time fills.
func replaceIn[T any](c chan T, v T) {
	select {
	case <-c:
	default:
	}
	c <- v
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
			Version: p.config.Version, Epoch: p.config.Epoch, Commands: p.config.reads,
			Expect: uint16(min(max(p.config.Expect, 0), math.MaxUint16)), NonVoter: p.config.NonVoter,
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
		return net.JoinHostPort(p.config.Advertise, number), nil
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.IsUnspecified() {
		return "", fmt.Errorf("-cluster: %s is every address of this host: -advertise has to say which one others use", host)
	}
	return net.JoinHostPort(host, number), nil
}

// raftTimeout bounds what raft does over one connection, a snapshot aside.
const raftTimeout = 10 * time.Second

func (p *Peer) openNode(ctx context.Context, stalled <-chan bool) (err error) {
	stream := p.port.Raft()
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: stream, ServerAddressProvider: stream, MaxPool: 3, Timeout: raftTimeout,
		MsgpackUseNewTimeFormat: true, Logger: cluster.NewRaftLogger(p.log),
	})
	p.Node, err = cluster.Open(ctx, cluster.Config{
		ID: p.id, RecoveryDir: p.config.Dir.Path("."), Limits: p.config.Limits,
		Logs: p.disk, Stable: p.disk, Snapshots: p.disk.Snapshots(), Transport: transport, RPC: nodeCalls{p.calls},
		Observer: observer{p, p.config.Observer}, Answer: p.config.Answer, Witness: p.config.Witness, OnLeadership: p.onLeadership,
		Understood: p.understood, Stalled: stalled, Fence: fence(stream), Processes: processes{p.port},
		Multiplier: p.config.Multiplier, Log: p.log,
	})
	if err != nil {
		_ = transport.Close()
	}
	return err
}

func (p *Peer) onLeadership(l cluster.Leadership) {
	replaceIn(p.leadership, l)
	p.config.OnLeadership(l)
}
