// Package port is the one TCP port by which peers of a cluster talk. The first
// byte of a connection chooses what it is for; before any other byte of that
// the two sides have made sure that they belong together: same cluster, same
// protocol, and one key or certificates of one CA.
package port

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"

	"srsx/cluster/keyring"
)

// Kind is the first byte of a connection and says what it is for.
type Kind byte

// The kinds there are. The others are kept for later, and refused.
const (
	KindRaft     Kind = 1
	KindRPC      Kind = 2
	KindLiveness Kind = 3 // says nothing: its end tells that the peer's process has ended
)

// Limits bound what others can make this peer hold. Zero values mean the
// defaults.
type Limits struct {
	Conns             int // accepted and open; default 4096
	ConnsPerAddr      int // of these from one address; default 512
	Handshakes        int // under way; default 256
	HandshakesPerAddr int // of these from one address; default 64
}

// Config says who this peer is and how it knows others. NodeID, NodeName and
// ClusterName are needed.
type Config struct {
	NodeID      string // UUID, see cluster.DataDir
	NodeName    string
	ClusterName string
	ClusterID   string // UUID; empty until this peer has founded or been let in

	Keys  *keyring.Ring // nil or empty: no key
	Certs *Certificates // nil: no certificates

	// Resolve returns the address, host:port, of the cluster port of a node;
	// empty when it is not known. Default: none is known.
	Resolve func(nodeID string) string

	HandshakeTimeout time.Duration // from connecting to the end of it; default 5 s
	Limits           Limits
	Log              *slog.Logger // default: none
}

func (c Config) withDefaults() Config {
	orDefault := func(n *int, value int) {
		if *n <= 0 {
			*n = value
		}
	}
	orDefault(&c.Limits.Conns, 4096)
	orDefault(&c.Limits.ConnsPerAddr, 512)
	orDefault(&c.Limits.Handshakes, 256)
	orDefault(&c.Limits.HandshakesPerAddr, 64)
	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = 5 * time.Second
	}
	if c.Resolve == nil {
		c.Resolve = func(string) string { return "" }
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Port is the cluster port of this peer: it accepts connections from others
// and dials theirs. It is safe for concurrent use.
type Port struct {
	config   Config
	self     hello // but for the cluster's UUID and a nonce
	guards   guards
	listener net.Listener
	gate     *gate
	reports  *reports
	done     chan struct{} // closed by Close

	mu       sync.Mutex
	cluster  uuid.UUID // guarded by mu, as all below; zero for a newcomer
	services map[Kind]func(context.Context, *Conn)
	conns    map[*Conn]struct{}
	fenced   bool // no raft, in or out
	closed   bool // as done
}

// Listen opens the port at addr, host:port. Services come next, by Handle and
// Raft, and then Serve. The error reads "listen cluster 0.0.0.0:12026: address
// already in use".
func Listen(ctx context.Context, addr string, config Config) (*Port, error) {
	config = config.withDefaults()
	p := &Port{
		config:   config,
		gate:     newGate(config.Limits),
		reports:  newReports(config.Log),
		done:     make(chan struct{}),
		services: make(map[Kind]func(context.Context, *Conn)),
		conns:    make(map[*Conn]struct{}),
	}
	if err := p.introduce(config); err != nil {
		return nil, err
	}
	var err error
	if p.guards, err = newGuards(config.Keys, config.Certs); err != nil {
		return nil, err
	}
	if config.Keys != nil {
		config.Keys.OnRemove(func(key keyring.Fingerprint) {
			p.closeWhere(func(c *Conn) bool { return c.key == key })
		})
	}
	p.Handle(KindLiveness, serveLiveness)
	p.listener, err = (&net.ListenConfig{KeepAliveConfig: keepAlive()}).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen cluster %s: %w", addr, bareError(err))
	}
	return p, nil
}

// introduce fills in who this peer is.
func (p *Port) introduce(config Config) error {
	var err error
	if p.self.node, err = uuid.Parse(config.NodeID); err != nil || p.self.node == uuid.Nil {
		return fmt.Errorf("node id %q is not a UUID", config.NodeID)
	}
	if err = checkName(config.NodeName); err != nil {
		return fmt.Errorf("name of this node: %w", err)
	}
	if err = checkName(config.ClusterName); err != nil {
		return fmt.Errorf("name of the cluster: %w", err)
	}
	p.self.nodeName, p.self.clusterName = config.NodeName, config.ClusterName
	if config.ClusterID == "" {
		return nil
	}
	return p.SetClusterID(config.ClusterID)
}

// bareError is the system's own words without "listen tcp ...: bind:".
func bareError(err error) error {
	if opErr := (*net.OpError)(nil); errors.As(err, &opErr) {
		err = opErr.Err
	}
	if callErr := (*os.SyscallError)(nil); errors.As(err, &callErr) {
		err = callErr.Err
	}
	return err
}

// Addr returns the address that the port listens on.
func (p *Port) Addr() net.Addr { return p.listener.Addr() }

// NodeID returns the UUID of this peer.
func (p *Port) NodeID() string { return p.self.node.String() }

// SetClusterID says to which cluster this peer belongs from now on. Connections
// end whose peer did not name this cluster: two newcomers may have met who have
// since been let into two clusters, and raft would merge them.
func (p *Port) SetClusterID(id string) error {
	cluster, err := uuid.Parse(id)
	if err != nil || cluster == uuid.Nil {
		return fmt.Errorf("cluster id %q is not a UUID", id)
	}
	p.mu.Lock()
	changed := p.cluster != cluster
	p.cluster = cluster
	p.mu.Unlock()
	if changed {
		p.closeWhere(func(c *Conn) bool { return c.cluster != cluster })
	}
	return nil
}

// Handle has serve called, in a goroutine of its own, for each connection of a
// kind. serve owns the connection and returns when it is done with it, at the
// latest when ctx ends. Kinds without a service are refused; nil is none.
func (p *Port) Handle(kind Kind, serve func(context.Context, *Conn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.services[kind] = serve
}

// serves reports whether connections of a kind are taken.
func (p *Port) serves(kind Kind) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.services[kind] != nil
}

// maxAcceptPause bounds the pause after an error that will pass, such as being
// out of descriptors.
const maxAcceptPause = time.Second

// Serve accepts connections until ctx ends or Close is called; then it closes
// them all, waits for their services and returns nil.
func (p *Port) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var visits sync.WaitGroup
	defer visits.Wait()
	defer func() { _ = p.Close() }()
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = p.Close() })()
	if p.config.Certs != nil {
		visits.Go(func() { (&renewal{port: p}).watch(ctx) })
	}

	pause := 5 * time.Millisecond
	for {
		conn, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			p.config.Log.WarnContext(ctx, "accept failed", "listener", "cluster", "err", err, "pause", pause)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, maxAcceptPause)
			continue
		}
		pause = 5 * time.Millisecond
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			_ = conn.Close()
			continue
		}
		visitor := p.gate.knock(tcp)
		visits.Go(func() { p.receive(ctx, visitor) })
	}
}
