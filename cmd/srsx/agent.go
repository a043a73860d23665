package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"srsx/cluster"
	clusterpeer "srsx/cluster/peer"
	"srsx/lb"
	"srsx/lb/memlb"
	"srsx/proxy"
	"srsx/proxy/admin"
	"srsx/proxy/datagram"
	"srsx/proxy/srt"
	"srsx/proxy/webrtc"
)

// agent is one running peer.
type agent struct {
	config   config
	from     source // of the configuration, to read it again
	node     string
	version  string
	level    *slog.LevelVar
	log      *slog.Logger
	dir      *cluster.DataDir
	registry *prometheus.Registry
	balancer backend
	member   *member // nil: this peer is alone
	keyless  bool    // one of a cluster that anybody may join
	router   *proxy.Router
	admin    *admin.Server
	media    map[string]net.Listener // by flag
	control  map[string]net.Listener // by flag: stay open while sessions run out
	srt      *datagram.Socket        // nil: off; its server closes it, since sessions need it until they end
	rtc      *datagram.Socket        // media of WebRTC; nil: off. TCP is in media. Open while sessions run out
	webrtc   atomic.Pointer[webrtc.Server]
	closing  atomic.Bool // the media listeners are being closed
	dead     chan error  // the first listener that stopped by itself

	// reloaded is the configuration in force where it can change. Only the
	// goroutine that waits for signals uses it.
	reloaded config

	staticMu sync.Mutex                      // guards static
	static   map[lb.OriginID]lb.Registration // of the configuration, as registered
}

// runAgent runs a peer until a signal or an error ends it.
func runAgent(ctx context.Context, from source, c config, p process) (err error) {
	level := new(slog.LevelVar)
	level.Set(c.logLevel)
	a := &agent{
		config: c, from: from, reloaded: c, version: buildVersion(version), level: level, log: newLog(p.stderr, level),
		media: make(map[string]net.Listener), control: make(map[string]net.Listener), dead: make(chan error, 1),
		static: make(map[lb.OriginID]lb.Registration),
	}
	if a.dir, err = cluster.OpenDataDir(c.dataDir); err != nil {
		return fmt.Errorf("-data-dir: %w", err)
	}
	defer a.dir.Close() //nolint:errcheck // the lock goes with the process at the latest
	if a.node, err = keepNode(a.dir.Path(nodeNameFile), c.node); err != nil {
		return err
	}
	a.registry = prometheus.NewRegistry()
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	a.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "srsx_build_info", Help: "1, labelled with the version.", ConstLabels: prometheus.Labels{"version": a.version},
	}, func() float64 { return 1 }))
	metrics := proxy.NewMetrics(a.registry)
	// All ports first: a peer that cannot have one of them starts nothing.
	defer a.closeListeners()
	if err = a.listen(ctx, metrics); err != nil {
		return err
	}
	if err = a.listenSRT(ctx); err != nil {
		return err
	}
	defer a.closeSRT()
	if a.rtc != nil || a.srt != nil {
		runtime.GOMAXPROCS(datagram.Processors())
	}
	if err = a.openBackend(ctx); err != nil {
		return err
	}
	defer a.closeBackend(ctx)
	a.router = proxy.NewRouter(a.balancer, proxy.RouterConfig{
		Log: a.log, Metrics: metrics, PlaceTimeout: c.placeTimeout, Limits: c.sections.Limits.clients(),
		Probes: map[lb.Protocol]func(context.Context, string) error{lb.SRT: srt.Probe},
	})
	return a.run(ctx, p)
}

// openBackend opens what decides where streams are.
func (a *agent) openBackend(ctx context.Context) error {
	c := &a.config
	if c.clustered() {
		return a.joinCluster(ctx)
	}
	if clusterpeer.Belongs(a.dir) {
		a.log.WarnContext(ctx, "this peer belongs to a cluster and runs alone: start it with -lb raft", "data_dir", a.config.dataDir)
	}
	a.balancer = memlb.New(memlb.Config{ //nolint:contextcheck // it outlives the sessions that release to it: Close ends it
		Peer: a.node, Policy: c.policy(), TTL: c.originTTL, Limits: c.sections.Limits.state(),
	})
	return nil
}

// closeBackend comes last: a session that ends still says what it releases.
func (a *agent) closeBackend(ctx context.Context) {
	_ = a.balancer.Close()
	if a.member == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTimeout)
	defer cancel()
	if err := a.member.Shutdown(ctx); err != nil {
		a.log.WarnContext(ctx, "cluster left in disorder", "err", err)
	}
}

// knownOrigins returns what registers the origins that send no heartbeat: those
// of the configuration, and the one of -dev, which starts now.
func (a *agent) knownOrigins(ctx context.Context, serving *errgroup.Group) (func() error, error) {
	static, err := a.config.staticOrigins()
	if err != nil {
		return nil, err
	}
	if !a.config.dev {
		return func() error { return a.applyStatic(ctx, static) }, nil
	}
	dev, err := a.startDev(ctx, serving)
	if err != nil {
		return nil, err
	}
	return func() error { return errors.Join(a.applyStatic(ctx, static), a.balancer.Register(ctx, dev)) }, nil
}

const nodeNameFile = "node-name"

// nodeName returns the name of this peer: the one given now, or the one it had
// before, or the host's.
func nodeName(path, given string) (name, before string, err error) {
	kept, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", "", fmt.Errorf("read node name: %w", err)
	}
	before = strings.TrimSpace(string(kept))
	if name = cmp.Or(given, before); name == "" {
		name, _ = os.Hostname()
	}
	if name == "" || checkNode(name) != nil {
		name = "srsx"
	}
	return name, before, nil
}

// keepNode returns the name of this peer and keeps it, since a host may be renamed.
func keepNode(path, given string) (string, error) {
	name, before, err := nodeName(path, given)
	if err != nil || name == before {
		return name, err
	}
	if err := os.WriteFile(path, []byte(name+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep node name: %w", err)
	}
	return name, nil
}

func (a *agent) newAdmin() *admin.Server {
	a.registry.MustRegister(admin.NewCollector(a.balancer))
	var steers admin.Cluster // stays nil for a peer alone
	if a.member != nil {
		steers = steered{a.member}
	}
	return admin.NewServer(admin.Config{
		Cluster:  steers,
		Balancer: a.balancer, Sessions: a.router, Members: a.members, Gatherer: a.registry,
		Access:  admin.Access{Token: a.config.token, RegisterToken: a.config.registerToken, Hosts: []string{a.config.advertise, a.node}},
		Origins: a.originRules(), Version: a.version, Log: a.log, ReadyGrace: a.config.readyGrace,
	})
}

// originRules are those for origins at this peer, whose ports are open.
func (a *agent) originRules() admin.OriginRules {
	rules := admin.OriginRules{
		Allow: a.config.originAllow, Overrides: a.config.overrides(), OwnNames: []string{a.node, a.address()},
	}
	if name, err := os.Hostname(); err == nil {
		rules.OwnNames = append(rules.OwnNames, name)
	}
	for _, listeners := range []map[string]net.Listener{a.media, a.control} {
		for _, ln := range listeners {
			rules.Own = append(rules.Own, proxy.AddrPortOf(ln.Addr()))
		}
	}
	if a.srt != nil {
		rules.Own = append(rules.Own, a.srt.Addr())
	}
	return rules
}

// address is how others reach this peer, as far as it knows.
func (a *agent) address() string {
	if a.config.advertise != "" {
		return a.config.advertise
	}
	known, err := net.InterfaceAddrs()
	if err != nil {
		return ""
	}
	for _, k := range known {
		if prefix, err := netip.ParsePrefix(k.String()); err == nil && prefix.Addr().IsPrivate() {
			return prefix.Addr().String()
		}
	}
	return "127.0.0.1"
}
