package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"srsx/cluster"
	"srsx/cluster/gossip"
	"srsx/cluster/keyring"
	clusterpeer "srsx/cluster/peer"
	clusterport "srsx/cluster/port"
	"srsx/cluster/quorum"
	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/raftlb"
	"srsx/proxy"
	"srsx/proxy/admin"
	"srsx/proxy/httpstream"
	"srsx/proxy/webrtc"
)

// backend is a balancer as this command steers it.
type backend interface {
	lb.Balancer
	SetPolicy(p fsm.Policy)
}

// member is this peer's part in a cluster.
type member struct {
	*clusterpeer.Peer

	balancer *raftlb.Balancer
	hintKey  atomic.Pointer[httpstream.HintKey]
	routeKey atomic.Pointer[webrtc.Secret]
}

// joinCluster opens this peer's part in the cluster; startCluster follows.
func (a *agent) joinCluster(ctx context.Context) error {
	c := &a.config
	a.keyless = a.withoutKey()
	epoch := uint64(time.Now().UnixMilli())
	b := raftlb.New(raftlb.Config{
		Holder: fsm.Holder{Peer: a.dir.NodeID(), Epoch: epoch}, Policy: c.policy(), TTL: c.originTTL,
	})
	opened, err := clusterpeer.Open(ctx, clusterpeer.Config{
		Dir: a.dir, Name: a.node, ClusterName: c.clusterName, Version: a.version, Epoch: epoch,
		Listen: c.cluster, GossipListen: c.gossip, Advertise: a.address(), SystemAddr: a.systemAddress(),
		Join: c.join, RetryJoin: c.retryJoin, Expect: c.bootstrapExpect, NonVoter: c.nonVoter,
		Key: c.encrypt, Certificates: c.clusterCertificates(), Multiplier: c.raftMultiplier, Limits: c.sections.Limits.state(),
		Observer: b, Answer: b.Answer, Witness: b.Witness, OnLeadership: func(l cluster.Leadership) { b.Lead(l.Established) },
		Vitals: a.vitals, Media: a.answerMedia, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.member = &member{Peer: opened, balancer: b}
	a.balancer = b
	return nil
}

// startCluster works for the cluster until ctx ends.
func (a *agent) startCluster(ctx context.Context, serving *errgroup.Group) {
	serving.Go(func() error { return a.member.Serve(ctx) })
	serving.Go(func() error {
		a.member.balancer.Run(ctx, a.member.Node)
		return nil
	})
	serving.Go(func() error {
		select {
		case <-a.member.Left():
			return errStopped
		case <-ctx.Done():
			return nil
		}
	})
}

// handOver has another peer lead, so that nobody has to miss this one first.
func (a *agent) handOver(ctx context.Context) {
	if a.member == nil || !a.member.Status().Established || len(a.member.Servers()) < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, goodbyeTimeout)
	defer cancel()
	if err := a.member.TransferLeadership(ctx, ""); err != nil {
		a.log.InfoContext(ctx, "leadership not handed over", "err", err)
	}
}

// hintKey returns the key of the HLS hints: the cluster's, or this peer's own.
func (a *agent) hintKey(own httpstream.HintKey) func() httpstream.HintKey {
	return func() httpstream.HintKey {
		if a.member == nil {
			return own
		}
		return a.member.hints(own)
	}
}

// register registers the origins that are known without a heartbeat. In a
// cluster that waits for a leader, and happens beside the rest.
func (a *agent) register(ctx context.Context, serving *errgroup.Group, known func() error) error {
	if a.member == nil {
		return known()
	}
	serving.Go(func() error {
		const pause = 500 * time.Millisecond
		for {
			err := known()
			if !errors.Is(err, lb.ErrUndecided) {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
		}
	})
	return nil
}

// systemAddress is where others reach the system API of this peer.
func (a *agent) systemAddress() string {
	ln := a.control["system-api"]
	if ln == nil {
		return ""
	}
	return net.JoinHostPort(a.address(), strconv.Itoa(int(proxy.AddrPortOf(ln.Addr()).Port())))
}

func (c *config) clusterCertificates() clusterport.CertificateFiles {
	return clusterport.CertificateFiles{CA: c.tlsCA, Cert: c.tlsCert, Key: c.tlsKey}
}

// vitals are what this peer says of itself to the others.
func (a *agent) vitals() clusterpeer.Vitals {
	streams := 0
	for _, o := range a.balancer.Origins() {
		streams += o.Streams
	}
	sessions := 0
	if a.router != nil {
		sessions, _ = a.router.Counts()
	}
	return clusterpeer.Vitals{Streams: streams, Sessions: sessions, Insecure: len(a.insecurities()) > 0}
}

// members are all peers of the cluster, or this one alone.
func (a *agent) members() []admin.Member {
	if a.member == nil {
		v := a.vitals()
		return []admin.Member{{
			Name: a.node, Addr: a.address(), State: "alive", Role: "leader", Version: a.version,
			Leader: true, Streams: v.Streams, Sessions: v.Sessions, Insecure: v.Insecure,
		}}
	}
	return a.member.members()
}

func (m *member) members() []admin.Member {
	leader := m.Status().Leader
	servers := m.Servers()
	var members []admin.Member
	for _, known := range m.Members(context.Background()) {
		view := admin.Member{
			Name: known.Name, Addr: known.ClusterAddr, State: known.State.String(), Version: known.Version,
			Streams: known.Streams, Sessions: known.Sessions, Insecure: known.Insecure,
		}
		i := slices.IndexFunc(servers, func(s cluster.Server) bool { return s.ID == known.ID })
		switch {
		case known.ID == leader:
			view.Role, view.Leader = "leader", true
		case i < 0:
			view.Role = "none"
		case servers[i].Voter:
			view.Role = "voter"
		default:
			view.Role = "non-voter"
		}
		members = append(members, view)
	}
	return members
}

// hints is the key of the HLS hints that all peers of the cluster share.
func (m *member) hints(own httpstream.HintKey) httpstream.HintKey {
	if key := m.hintKey.Load(); key != nil {
		return *key
	}
	secret, ok := m.Secret("hls hints")
	if !ok {
		return own // until this peer is let in
	}
	key := httpstream.HintKey(secret)
	m.hintKey.Store(&key)
	return key
}

// steered is a cluster as the system API steers it.
type steered struct{ *member }

var _ admin.Cluster = steered{}

// wordsOf puts an error of the cluster into the words of a balancer.
func wordsOf(err error) error {
	switch {
	case errors.Is(err, cluster.ErrUnknownMember), errors.Is(err, gossip.ErrUnknownMember), errors.Is(err, keyring.ErrUnknownKey):
		return fmt.Errorf("%w: %w", lb.ErrNotFound, err)
	case errors.Is(err, cluster.ErrNoLeader), errors.Is(err, cluster.ErrUnknownOutcome), errors.Is(err, cluster.ErrFenced),
		errors.Is(err, cluster.ErrNotLeader), errors.Is(err, cluster.ErrClosed):
		return fmt.Errorf("%w: %w", lb.ErrUndecided, err)
	case errors.Is(err, cluster.ErrNotFresh), errors.Is(err, keyring.ErrPrimaryKey), errors.Is(err, keyring.ErrNoKeys),
		errors.Is(err, clusterpeer.ErrItself), errors.Is(err, clusterpeer.ErrNoMember), errors.Is(err, clusterpeer.ErrLeaving),
		errors.As(err, new(*quorum.NeededError)):
		return fmt.Errorf("%w: %w", lb.ErrConflict, err)
	default:
		return err
	}
}

func (s steered) Join(ctx context.Context, addrs ...string) error {
	return wordsOf(s.member.Join(ctx, addrs...))
}

func (s steered) Leave(ctx context.Context) error { return wordsOf(s.member.Leave(ctx)) }

func (s steered) ForceLeave(ctx context.Context, name string) error {
	return wordsOf(s.member.ForceLeave(ctx, name))
}

func (s steered) Servers() []admin.RaftServer {
	leader := s.Status().Leader
	var views []admin.RaftServer
	for _, server := range s.Node.Servers() {
		views = append(views, admin.RaftServer{
			Name: s.NameOf(server.ID), ID: server.ID, Addr: server.Addr, Voter: server.Voter, Leader: server.ID == leader,
		})
	}
	return views
}

func (s steered) RemoveServer(ctx context.Context, name string) error {
	return wordsOf(s.Remove(ctx, name))
}

func (s steered) TransferLeadership(ctx context.Context, name string) error {
	return wordsOf(s.member.TransferLeadership(ctx, name))
}

// SaveSnapshot waits first for what was agreed before, where there is a leader.
func (s steered) SaveSnapshot(ctx context.Context, w io.Writer) error {
	if s.Decisive() == nil {
		if err := s.Barrier(ctx); err != nil {
			return err
		}
	}
	_, err := s.Node.SaveSnapshot(w)
	return err
}

func (s steered) RestoreSnapshot(ctx context.Context, r io.Reader) error {
	return wordsOf(s.Node.RestoreSnapshot(ctx, r))
}

func (s steered) Keys(ctx context.Context) ([]admin.KeyStatus, error) {
	rings, err := s.member.Keys(ctx)
	if err != nil && len(rings) == 0 {
		return nil, wordsOf(err)
	}
	byKey := make(map[keyring.Fingerprint]*admin.KeyStatus)
	for _, ring := range rings {
		for i, name := range ring {
			if byKey[name] == nil {
				byKey[name] = &admin.KeyStatus{Fingerprint: string(name), Total: len(rings)}
			}
			byKey[name].Peers++
			if i == 0 {
				byKey[name].Primary++
			}
		}
	}
	keys := make([]admin.KeyStatus, 0, len(byKey))
	for _, status := range byKey {
		keys = append(keys, *status)
	}
	slices.SortFunc(keys, func(a, b admin.KeyStatus) int { return b.Primary - a.Primary })
	return keys, nil
}

func (s steered) InstallKey(ctx context.Context, key string) error {
	return wordsOf(s.member.InstallKey(ctx, key))
}

func (s steered) UseKey(ctx context.Context, fingerprint string) error {
	return wordsOf(s.member.UseKey(ctx, keyring.Fingerprint(fingerprint)))
}

func (s steered) RemoveKey(ctx context.Context, fingerprint string) error {
	return wordsOf(s.member.RemoveKey(ctx, keyring.Fingerprint(fingerprint)))
}

func (s steered) Barrier(ctx context.Context) error {
	err := s.Node.Barrier(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", lb.ErrUndecided, err)
	}
	return wordsOf(err)
}

func (s steered) Freshness() admin.Freshness {
	status := s.Status()
	f := admin.Freshness{Applied: status.Applied, Stale: status.Leader == "" || status.Fenced || status.Halted != nil}
	if !status.LastContact.IsZero() {
		f.LastContact = time.Since(status.LastContact)
	}
	return f
}
