package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"srsx/cluster"
	"srsx/lb"
	"srsx/lb/memlb"
	"srsx/proxy"
	"srsx/proxy/admin"
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
	balancer *memlb.Balancer
	router   *proxy.Router
	admin    *admin.Server
	media    map[string]net.Listener // by flag
	control  map[string]net.Listener // by flag: stay open while sessions run out
	closing  atomic.Bool             // the media listeners are being closed
	dead     chan error              // the first listener that stopped by itself

	// reloaded is the configuration in force where it can change, and static
	// the origins of it. Only the goroutine that waits for signals uses them.
	reloaded config
	static   map[lb.OriginID]lb.Registration
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
	if a.node, err = keepNode(a.dir.Path("node-name"), c.node); err != nil {
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
	l := c.sections.Limits
	a.balancer = memlb.New(memlb.Config{ //nolint:contextcheck // it outlives the sessions that release to it: Close ends it
		Peer: a.node, Policy: c.policy(), TTL: c.originTTL, Limits: l.state(),
	})
	defer a.balancer.Close() //nolint:errcheck // there is nothing left to do about it
	a.router = proxy.NewRouter(a.balancer, proxy.RouterConfig{
		Log: a.log, Metrics: metrics, PlaceTimeout: c.placeTimeout, Limits: l.clients(),
	})
	origins, err := c.staticOrigins()
	if err != nil {
		return err
	}
	if err := a.applyStatic(ctx, origins); err != nil {
		return err
	}
	return a.run(ctx, p)
}

// keepNode returns the name of this peer: the one given now, or the one it had
// before, or the host's; and keeps it, since a host may be renamed.
func keepNode(path, given string) (string, error) {
	kept, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read node name: %w", err)
	}
	before := strings.TrimSpace(string(kept))
	name := given
	if name == "" {
		name = before
	}
	if name == "" {
		name, _ = os.Hostname()
	}
	if name == "" || checkNode(name) != nil {
		name = "srsx"
	}
	if name == before {
		return name, nil
	}
	if err := os.WriteFile(path, []byte(name+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("keep node name: %w", err)
	}
	return name, nil
}

func (a *agent) newAdmin() *admin.Server {
	a.registry.MustRegister(admin.NewCollector(a.balancer))
	return admin.NewServer(admin.Config{
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
	return rules
}

// members is this peer: alone it leads itself.
func (a *agent) members() []admin.Member {
	streams := 0
	for _, o := range a.balancer.Origins() {
		streams += o.Streams
	}
	sessions, _ := a.router.Counts()
	return []admin.Member{{
		Name: a.node, Addr: a.address(), State: "alive", Role: "leader", Version: a.version,
		Leader: true, Streams: streams, Sessions: sessions, Insecure: a.insecure(),
	}}
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

// insecure reports whether strangers reach the system API and may register
// origins there.
func (a *agent) insecure() bool {
	ln := a.control["system-api"]
	return ln != nil && a.config.registerToken == "" && !proxy.AddrPortOf(ln.Addr()).Addr().IsLoopback()
}
