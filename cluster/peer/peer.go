// Package peer is one running member of a cluster: its disk, its port, its
// gossip and its part in consensus, put together.
package peer

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"srsx/cluster"
	"srsx/cluster/founding"
	"srsx/cluster/gossip"
	"srsx/cluster/keyring"
	"srsx/cluster/port"
	"srsx/cluster/quorum"
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
	Advertise    string // host by which others reach both; default: the one of Listen
	SystemAddr   string // of the system API, for others to show; required

	Join        []string      // seeds of which one has to answer, unless this peer is a member already
	JoinTimeout time.Duration // of Join; default 30 s: they may be started at the same time
	RetryJoin   []string      // seeds that are tried for ever
	Expect      int           // found a cluster when so many peers have met; 0: never
	NonVoter    bool

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
	// Media answers a question of another peer's media servers; see AskMedia.
	// Empty for what this peer does not know.
	Media func(question []byte) []byte

	Log *slog.Logger // default: none

	reads uint16 // newest version of commands that this build reads; tests stand for other builds
}

func (c Config) withDefaults() Config {
	if c.JoinTimeout <= 0 {
		c.JoinTimeout = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.OnLeadership == nil {
		c.OnLeadership = func(cluster.Leadership) {}
	}
	if c.Vitals == nil {
		c.Vitals = func() Vitals { return Vitals{} }
	}
	if c.Media == nil {
		c.Media = func([]byte) []byte { return nil }
	}
	if c.reads == 0 {
		c.reads = fsm.BatchVersion
	}
	return c
}

// Peer is one member, or a newcomer that waits to be let in. It has the methods of
// its [cluster.Node], but those that change who is a member are its own: they take
// names and lose no majority. They are safe for concurrent use.
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
	opened chan struct{} // closed when Node is set

	founding   *founding.Participant
	founded    chan fsm.Cluster               // what the state says of the cluster, when it first does
	leadership chan cluster.Leadership        // the newest
	keeper     atomic.Pointer[quorum.Keeper]  // while this peer leads
	versions   atomic.Pointer[versionsLooked] // see commandVersion

	leaving sync.Mutex    // held by Leave
	left    chan struct{} // closed when this peer has left for good
}

// Serve works until ctx ends or a part fails.
func (p *Peer) Serve(ctx context.Context) error {
	working, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{
		p.port.Serve, p.gossip.Serve, p.meet, p.belong, p.reconcile, p.explainWaiting,
	} {
		working.Go(func() error { return part(ctx) })
	}
	return working.Wait()
}

// Left is closed when this peer has left the cluster for good.
func (p *Peer) Left() <-chan struct{} { return p.left }

// Shutdown hands leadership over, if this peer leads, and closes. It stays a
// member. To hand over it needs Serve, which has to end, too.
func (p *Peer) Shutdown(ctx context.Context) error {
	return errors.Join(p.Node.Shutdown(ctx), p.closeParts())
}

// Close ends this peer without a word to the others, who find out by its silence.
func (p *Peer) Close() error { return errors.Join(p.Node.Close(), p.closeParts()) }

// closeParts closes what Open opened before the node.
func (p *Peer) closeParts() error {
	var errs []error
	if p.gossip != nil {
		errs = append(errs, p.gossip.Close())
	}
	if p.calls != nil {
		errs = append(errs, p.calls.Close())
	}
	if p.port != nil {
		errs = append(errs, p.port.Close())
	}
	if p.disk != nil {
		errs = append(errs, p.disk.Close())
	}
	return errors.Join(errs...)
}

// seated reports whether this peer is a member of a cluster by what it knows.
func (p *Peer) seated() bool { return len(p.Servers()) > 0 }

// isServer reports whether a peer is a member of Raft by what this one knows.
func (p *Peer) isServer(id string) bool {
	for _, s := range p.Servers() {
		if s.ID == id {
			return true
		}
	}
	return false
}

// resolve returns where the cluster port of a peer is: by gossip, or as it was
// when it was let in.
func (p *Peer) resolve(id string) string {
	for _, m := range p.gossip.Members() {
		if m.ID == id {
			return m.ClusterAddr
		}
	}
	select {
	case <-p.opened:
	default:
		return ""
	}
	for _, s := range p.Servers() {
		if s.ID == id {
			return s.Addr
		}
	}
	return ""
}
