package clustertest

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"srsx/cluster"
)

// Patience is how long what must happen may take, on a slow machine.
const Patience = 30 * time.Second

// patient is the multiplier of raft's timeouts: where many tests share few cores,
// a leader may not get to run for as long as its lease is otherwise.
const patient = 4

// Config of a [Cluster].
type Config struct {
	Voters, Replicas int
	// Tune changes the configuration of a peer before each start.
	Tune func(p *Peer, c *cluster.Config)
	// Verbose prints the peers' logs.
	Verbose bool
}

// Cluster is a number of peers. Its methods fail the test when they cannot do
// what they say.
type Cluster struct {
	t      testing.TB
	config Config
	dir    string
	net    *Network
	peers  []*Peer
}

// Peer is one peer, whether it runs or not.
type Peer struct {
	ID   string
	Node *cluster.Node // nil while it does not run

	cluster *Cluster
	host    *host
	disk    *Disk

	transport raft.Transport
	tune      func(*cluster.Config) // for the next start
}

// Start founds a cluster and waits until somebody leads it. It is closed at the
// end of the test.
func Start(t testing.TB, config Config) *Cluster {
	t.Helper()
	c := &Cluster{t: t, config: config, dir: t.TempDir(), net: newNetwork()}
	t.Cleanup(c.close)
	var servers []cluster.Server
	for i := range config.Voters + config.Replicas {
		p := c.NewPeer()
		servers = append(servers, cluster.Server{ID: p.ID, Addr: p.ID, Voter: i < config.Voters})
	}
	if err := c.peers[0].Node.Bootstrap(t.Context(), servers); err != nil {
		t.Fatal(err)
	}
	c.Elect(c.peers[0])
	return c
}

// NewPeer starts one more peer, that is no member yet.
func (c *Cluster) NewPeer() *Peer {
	c.t.Helper()
	p := &Peer{ID: fmt.Sprintf("peer-%d", len(c.peers)), cluster: c}
	c.peers = append(c.peers, p)
	p.Start()
	return p
}

// Start starts a peer on the disk that it had before.
func (p *Peer) Start() {
	p.cluster.t.Helper()
	if err := p.TryStart(); err != nil {
		p.cluster.t.Fatalf("start %s: %v", p.ID, err)
	}
}

// TuneNext changes the configuration for the next start only.
func (p *Peer) TuneNext(tune func(*cluster.Config)) { p.tune = tune }

// Disk returns the disk of a peer that runs.
func (p *Peer) Disk() *Disk { return p.disk }

// Dir returns where the peer's disk is.
func (p *Peer) Dir() string { return filepath.Join(p.cluster.dir, p.ID) }

// TryStart is Start for a peer that may not be able to.
func (p *Peer) TryStart() error {
	if err := os.MkdirAll(p.Dir(), 0o700); err != nil {
		return err
	}
	disk, err := openDisk(p.Dir())
	if err != nil {
		return err
	}
	p.disk, p.host = disk, p.cluster.net.start(p.ID)
	log := p.cluster.log().With("peer", p.ID)
	transport := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: p.host.layer, MaxPool: 3, Timeout: 2 * time.Second, MsgpackUseNewTimeFormat: true,
		Logger: hclog.NewNullLogger(),
	})
	p.transport = transport
	id, net := p.ID, p.cluster.net
	config := cluster.Config{
		ID: id, RecoveryDir: p.Dir(), Logs: disk, Stable: disk, Snapshots: disk.Snapshots(),
		Transport: transport, RPC: rpc{net, p.host}, Log: log,
		Multiplier: patient, Stalled: disk.stalls, Fence: p.host.fence, Processes: processes{net, id},
	}
	if p.cluster.config.Tune != nil {
		p.cluster.config.Tune(p, &config)
	}
	if p.tune != nil {
		p.tune(&config)
		p.tune = nil
	}
	p.Node, err = cluster.Open(context.Background(), config)
	if err != nil {
		net.kill(p.host)
		err = errors.Join(err, transport.Close(), disk.Close())
	}
	return err
}

func (c *Cluster) log() *slog.Logger {
	if !c.config.Verbose {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Kill ends a peer as kill -9 does: its connections end, and what it was about to
// send is lost.
func (p *Peer) Kill() {
	p.cluster.t.Helper()
	if p.Node == nil {
		return
	}
	p.cluster.net.kill(p.host)
	p.end(p.Node.Close())
}

// Stop ends a peer as SIGTERM does.
func (p *Peer) Stop() {
	p.cluster.t.Helper()
	err := p.Node.Shutdown(p.cluster.t.Context())
	p.cluster.net.kill(p.host)
	p.end(err)
}

func (p *Peer) end(err error) {
	p.cluster.t.Helper()
	p.Node = nil
	if errors.Is(err, cluster.ErrFenced) {
		err = nil
	}
	if err = errors.Join(err, p.disk.Close()); err != nil {
		p.cluster.t.Errorf("end %s: %v", p.ID, err)
	}
}

func (c *Cluster) close() {
	c.net.heal()
	for _, p := range c.peers {
		p.Kill()
	}
}

// Peers returns the peers that run.
func (c *Cluster) Peers() []*Peer {
	var running []*Peer
	for _, p := range c.peers {
		if p.Node != nil {
			running = append(running, p)
		}
	}
	return running
}

// Peer returns a peer by its number, from 0.
func (c *Cluster) Peer(i int) *Peer { return c.peers[i] }

// Leader returns the peer that leads, or nil. While the network is cut there may
// be more; it is the one of the latest term then.
func (c *Cluster) Leader() *Peer {
	var leader *Peer
	latest := uint64(0)
	for _, p := range c.Peers() {
		if s := p.Node.Status(); s.Established && s.Term > latest {
			leader, latest = p, s.Term
		}
	}
	return leader
}

// WaitLeader waits until all running peers, or those given, agree on a leader that
// runs, and returns it.
func (c *Cluster) WaitLeader(among ...*Peer) *Peer {
	c.t.Helper()
	if len(among) == 0 {
		among = c.Peers()
	}
	var leader *Peer
	c.Eventually("agree on a leader", func() bool {
		leader = nil
		for _, p := range among {
			s := p.Node.Status()
			if s.Leader == p.ID && s.Established {
				leader = p
			}
		}
		for _, p := range among {
			if leader == nil || p.Node.Status().Leader != leader.ID {
				return false
			}
		}
		return true
	})
	return leader
}

// Elect makes a voter start an election now, and waits for a leader.
func (c *Cluster) Elect(p *Peer) {
	c.t.Helper()
	before := p.Node.Status().Term
	request := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	err := p.transport.TimeoutNow(raft.ServerID(p.ID), raft.ServerAddress(p.ID), request, &raft.TimeoutNowResponse{})
	if err != nil {
		c.t.Fatalf("elect %s: %v", p.ID, err)
	}
	c.Eventually("elect "+p.ID, func() bool { return c.WaitLeader().Node.Status().Term > before })
}

// ElectAnew elects the running peer that is furthest: after all were restarted,
// that need not wait for the timeout.
func (c *Cluster) ElectAnew() {
	c.t.Helper()
	var best *Peer
	for _, p := range c.Peers() {
		for _, s := range p.Node.Servers() {
			if s.ID == p.ID && s.Voter && (best == nil || p.Node.Status().Last > best.Node.Status().Last) {
				best = p
			}
		}
	}
	if best == nil {
		c.t.Fatal("no voter runs")
	}
	c.Elect(best)
}

// Followers returns the running peers other than the leader.
func (c *Cluster) Followers() []*Peer {
	leader := c.WaitLeader()
	var others []*Peer
	for _, p := range c.Peers() {
		if p != leader {
			others = append(others, p)
		}
	}
	return others
}

// Partition cuts the network between the given peers and all others.
func (c *Cluster) Partition(side ...*Peer) {
	for _, a := range c.peers {
		for _, b := range c.peers {
			if slices.Contains(side, a) != slices.Contains(side, b) {
				c.net.cut(a.ID, b.ID, true)
			}
		}
	}
}

// Cut holds back what one peer sends to another.
func (c *Cluster) Cut(from, to *Peer) { c.net.cut(from.ID, to.ID, true) }

// Reset puts a firewall between two peers that answers in the place of to, which
// so looks dead to from, cut off or not.
func (c *Cluster) Reset(from, to *Peer) { c.net.reset(from.ID, to.ID, true) }

// Mute ends a peer's connections for raft and takes no new ones. Other requests
// pass.
func (c *Cluster) Mute(p *Peer) { p.host.fence(true) }

// Heal undoes all Partition, Cut, Reset and Mute.
func (c *Cluster) Heal() {
	c.net.heal()
	for _, p := range c.Peers() {
		p.host.fence(p.Node.Status().Fenced)
	}
}

// RequireSame waits until all running peers have applied the same entry, and
// fails the test when their states differ at it.
func (c *Cluster) RequireSame() {
	c.t.Helper()
	c.Eventually("apply the same entries", func() bool {
		indexes, states := make(map[uint64]bool), make(map[string][]string)
		for _, p := range c.Peers() {
			index, state := p.state()
			indexes[index] = true
			states[state] = append(states[state], p.ID)
		}
		if len(indexes) == 1 && len(states) > 1 {
			c.t.Fatalf("states differ: %v", states)
		}
		return len(states) == 1 && !indexes[0]
	})
}

// State returns what identifies the peer's state: its index and hash.
func (p *Peer) State() string {
	p.cluster.t.Helper()
	_, state := p.state()
	return state
}

func (p *Peer) state() (index uint64, state string) {
	p.cluster.t.Helper()
	h := fnv.New64a()
	index, err := p.Node.SaveSnapshot(h)
	if err != nil {
		p.cluster.t.Fatal(err)
	}
	return index, fmt.Sprintf("%d:%016x", index, h.Sum64())
}

// Eventually waits until ok returns true.
func (c *Cluster) Eventually(what string, ok func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(Patience)
	for !ok() {
		if time.Now().After(deadline) {
			c.t.Fatalf("peers did not %s within %s:\n%s", what, Patience, c.statuses())
		}
		time.Sleep(time.Millisecond)
	}
}

func (c *Cluster) statuses() string {
	var b strings.Builder
	for _, p := range c.Peers() {
		fmt.Fprintf(&b, "%+v\n", p.Node.Status())
	}
	return b.String()
}
