// Package gossip finds out who is there. Peers of one cluster meet over
// memberlist, tell each other what they are and notice who falls silent; who
// leaves for good is told apart from who merely stopped. What they agree on is
// none of its business: that takes Raft.
package gossip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
)

// Errors of a [Gossip].
var (
	// ErrUnknownMember means that no member has this name or id.
	ErrUnknownMember = errors.New("no such member")
	// ErrNotAlive means that a message went to a member that is not alive.
	ErrNotAlive = errors.New("member is not alive")

	errOtherID   = errors.New("description of a peer names another peer")
	errNoAddress = errors.New("peer has no address")
)

// First bytes of the messages between peers.
const (
	messageDepartures = iota + 1
	messagePayload
)

const (
	defaultRejoin = 30 * time.Second
	pruneEvery    = time.Minute
	// metaPatience bounds how long UpdateMeta waits until one peer has heard it;
	// the others hear it from that one.
	metaPatience = 2 * time.Second
)

// Config is what a Gossip needs. Zero values mean the default.
type Config struct {
	Meta    Meta
	Label   string // the cluster's name: peers of another one are not heard at all
	Listen  string // ip:port, or :port for every address; port 0 takes a free one
	Keyring *memberlist.Keyring

	// Advertise is the host by which others reach this peer, a name or an
	// address. Gossip resolves a name when it starts; the default is the address
	// listened on, or the first private one.
	Advertise string

	// Seeds are joined again and again for ever, however long nobody answers:
	// host or host:port, a name meaning all its addresses at that moment. The
	// port of Listen is the default.
	Seeds []string

	// PeersFile remembers the members and their addresses for the next start;
	// empty remembers nothing.
	PeersFile string

	// OnMessage takes what another peer sent by [Gossip.Send]. It must not wait.
	OnMessage func(from string, payload []byte)

	// Rejoin is the shortest time between two rounds of joining those who are
	// missed, default 30 s; a round comes within twice of it.
	Rejoin time.Duration

	Log *slog.Logger

	// lookup resolves a name; the default is the system's resolver.
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// tune lets a test hurry the timers of memberlist and stand between peers.
	tune func(*memberlist.Config)
}

// Gossip is this peer among the others. It is safe for concurrent use.
type Gossip struct {
	id        string
	log       *slog.Logger
	roster    *roster
	list      *memberlist.Memberlist
	changing  sync.Mutex             // held while meta follows the roster
	meta      atomic.Pointer[[]byte] // what NodeMeta hands out
	onMessage func(string, []byte)

	seeds     []string
	port      uint16
	advertise netip.Addr
	lookup    func(context.Context, string) ([]netip.Addr, error)
	rejoin    time.Duration
	peersFile string
	hurry     chan struct{} // a round of joining is due at once
	joins     sync.WaitGroup
	joinError atomic.Pointer[string] // of the last round, while nobody is reached
	tried     chan struct{}          // see Tried

	events chan Event
}

// Open starts to listen and to answer. Nobody is joined before [Gossip.Serve]
// or [Gossip.Join]. ctx bounds the lookup of a name to advertise.
func Open(ctx context.Context, cfg Config) (*Gossip, error) {
	encoded, err := cfg.Meta.encode()
	if err != nil {
		return nil, err
	}
	if cfg.Label == "" || len(cfg.Label) > memberlist.LabelMaxSize {
		return nil, fmt.Errorf("cluster name has %d bytes; it must have 1 to %d", len(cfg.Label), memberlist.LabelMaxSize)
	}
	if cfg.lookup == nil {
		cfg.lookup = lookupHost
	}
	if cfg.Rejoin == 0 {
		cfg.Rejoin = defaultRejoin
	}
	advertise, err := advertised(ctx, cfg)
	if err != nil {
		return nil, err
	}
	self := Member{Meta: cfg.Meta, State: Alive, Since: time.Now()}
	g := &Gossip{
		id:        cfg.Meta.ID,
		log:       cfg.Log,
		roster:    newRoster(self, cfg.Log),
		onMessage: cfg.OnMessage,
		seeds:     cfg.Seeds,
		advertise: advertise,
		lookup:    cfg.lookup,
		rejoin:    cfg.Rejoin,
		peersFile: cfg.PeersFile,
		hurry:     make(chan struct{}, 1),
		tried:     make(chan struct{}),
		events:    make(chan Event),
	}
	g.meta.Store(&encoded)
	g.roster.recall(g.remembered())
	if err := g.start(cfg); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *Gossip) start(cfg Config) error {
	t, err := listen(cfg.Listen, cfg.Label, g.advertise)
	if err != nil {
		return err
	}
	g.port = t.advertise.Port()
	mc := memberlist.DefaultLANConfig()
	mc.Name = g.id
	mc.Label = cfg.Label
	mc.Transport = t
	mc.BindPort = int(g.port) // the default port of messages that name none
	mc.Keyring = cfg.Keyring
	mc.Logger = libraryLog(cfg.Log)
	mc.DeadNodeReclaimTime = time.Millisecond // a failed peer may come back elsewhere at once: its id proves it
	d := delegate{g}
	mc.Delegate, mc.Events, mc.Alive, mc.Merge, mc.Conflict = d, d, d, d, d
	if cfg.tune != nil {
		cfg.tune(mc)
	}
	if g.list, err = memberlist.Create(mc); err != nil {
		_ = t.Shutdown()
		return fmt.Errorf("gossip: %w", err)
	}
	return nil
}

// Serve joins whom it misses, again and again, hands out the events and
// remembers the members, until ctx ends.
func (g *Gossip) Serve(ctx context.Context) error {
	tasks, ctx := errgroup.WithContext(ctx)
	tasks.Go(func() error { g.roster.events.pump(ctx, g.events); return nil })
	tasks.Go(func() error { g.rejoinForEver(ctx); return nil })
	tasks.Go(func() error { g.rememberMembers(ctx); return nil })
	return tasks.Wait()
}

// Close stops to listen and to answer. To the others this peer fails: it stays a
// member unless [Gossip.Leave] was called before. Serve must have ended.
func (g *Gossip) Close() error {
	err := g.list.Shutdown()
	g.joins.Wait()
	return err
}

// Addr returns where others reach the gossip of this peer.
func (g *Gossip) Addr() netip.AddrPort { return netip.AddrPortFrom(g.advertise, g.port) }

// Members returns everyone known, this peer included, ordered by name: alive,
// failed (for 72 h) and left (for an hour).
func (g *Gossip) Members() []Member { return g.roster.members() }

// Events hands out what happened to others, in order, while Serve runs. Whoever
// reads late may miss events, but never what Members returns.
func (g *Gossip) Events() <-chan Event { return g.events }

// Why says in one line what keeps this peer and others apart: a name that is
// taken, another cluster, seeds that do not answer. It is empty when nothing does.
func (g *Gossip) Why() string {
	if reason := g.roster.why(time.Now()); reason != "" {
		return reason
	}
	if text := g.joinError.Load(); text != nil && len(g.live()) == 0 {
		return *text
	}
	return ""
}

// Tried is closed, while Serve runs, after the first round of joining the seeds in
// which nobody turned this peer away: whoever could be met has been met. A seed that
// hangs up, or a name that is taken, is a cluster that this peer belongs to and an
// operator's mistake.
func (g *Gossip) Tried() <-chan struct{} { return g.tried }

// UpdateMeta changes what this peer says of itself; its id and epoch stay. It
// returns when another peer has heard it, or after two seconds: the rest is up
// to gossip.
func (g *Gossip) UpdateMeta(change func(*Meta)) error {
	if err := g.setMeta(change); err != nil {
		return err
	}
	if err := g.list.UpdateNode(metaPatience); err != nil {
		g.log.Debug("no peer has confirmed the new description yet", "err", err)
	}
	return nil
}

func (g *Gossip) setMeta(change func(*Meta)) error {
	g.changing.Lock()
	defer g.changing.Unlock()
	encoded, err := g.roster.update(change)
	if err != nil {
		return err
	}
	g.meta.Store(&encoded)
	return nil
}

// Leave tells the others that this peer is out for good, and returns when they
// know or ctx ends. A peer that merely stops calls Close alone.
func (g *Gossip) Leave(ctx context.Context) error {
	if err := g.UpdateMeta(func(m *Meta) { m.Leaving = true }); err != nil {
		return err
	}
	self := g.roster.own()
	g.roster.depart(map[string]uint64{self.ID: self.Epoch})
	err := g.spreadDepartures(ctx)
	patience := metaPatience
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, max(time.Until(deadline), time.Millisecond))
	}
	if leaveErr := g.list.Leave(patience); err == nil && leaveErr != nil {
		err = fmt.Errorf("leave: %w", leaveErr)
	}
	return err
}

// ForceLeave declares a member gone for good, by name or id, and tells everyone.
// The word holds against all who still think otherwise, and against the peer
// itself while it runs on; started again, it is a member again. Who cannot be
// told, the peer itself above all, hears it from the next exchange of state. It
// returns an error matching [ErrUnknownMember] when there is none.
func (g *Gossip) ForceLeave(ctx context.Context, nameOrID string) error {
	m, ok := g.roster.find(nameOrID)
	if !ok || m.ID == g.id {
		return fmt.Errorf("force-leave %s: %w", nameOrID, ErrUnknownMember)
	}
	g.roster.depart(map[string]uint64{m.ID: m.Epoch})
	if err := g.spreadDepartures(ctx); err != nil {
		g.log.InfoContext(ctx, "not all peers have heard yet that one is gone for good", "peer", m.Name, "err", err)
	}
	return nil
}

// spreadDepartures sends who is out for good to every live peer by stream. Whoever
// is missed hears it from the next exchange of state.
func (g *Gossip) spreadDepartures(ctx context.Context) error {
	message := append([]byte{messageDepartures}, g.roster.departures()...)
	var sends errgroup.Group
	for _, peer := range g.live() {
		sends.Go(func() error {
			return g.within(ctx, func() error { return g.list.SendReliable(peer.node(), message) })
		})
	}
	if err := sends.Wait(); err != nil {
		return fmt.Errorf("tell the other peers: %w", err)
	}
	return nil
}

// Send gives payload to the OnMessage of another peer, by its id. Nil means that
// it has arrived at its host. It returns an error matching [ErrNotAlive] when the
// peer is not alive.
func (g *Gossip) Send(ctx context.Context, to string, payload []byte) error {
	for _, peer := range g.live() {
		if peer.ID != to {
			continue
		}
		message := append(appendUUID(appendUUID([]byte{messagePayload}, g.id), to), payload...)
		return g.within(ctx, func() error { return g.list.SendReliable(peer.node(), message) })
	}
	return fmt.Errorf("send to %s: %w", to, ErrNotAlive)
}

// within runs what memberlist offers without a context, and leaves it behind
// when ctx ends; Close waits for it.
func (g *Gossip) within(ctx context.Context, do func() error) error {
	done := make(chan error, 1)
	g.joins.Go(func() { done <- do() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// live returns the other peers that are reached. memberlist's own list hands out
// what it goes on writing to.
func (g *Gossip) live() []Member { return g.roster.live() }

// node returns a peer as memberlist wants it.
func (m Member) node() *memberlist.Node {
	return &memberlist.Node{Name: m.ID, Addr: m.Gossip.Addr().AsSlice(), Port: m.Gossip.Port()}
}

// jittered returns a time in [d, 2d), so that peers started together do not act
// together for ever.
func jittered(d time.Duration) time.Duration {
	return d + rand.N(d)
}
