package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"os"
	"syscall"
	"time"

	"github.com/lmittmann/tint"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"srsx/cluster"
	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/memlb"
	"srsx/proxy"
	"srsx/proxy/admin"
	"srsx/proxy/devorigin"
	"srsx/proxy/httpstream"
	"srsx/proxy/player"
	"srsx/proxy/rtmp"
)

// agent is one running peer.
type agent struct {
	config   config
	log      *slog.Logger
	dir      *cluster.DataDir
	registry *prometheus.Registry
	balancer *memlb.Balancer
	router   *proxy.Router
	admin    *admin.Server
	media    map[string]net.Listener // by flag
	control  map[string]net.Listener // by flag: stay open while sessions run out
	dev      *devorigin.Origin
}

// errForced means that the process was told to end at once.
var errForced = errors.New("ended at once by a second signal")

// runAgent runs a peer until a signal or an error ends it.
func runAgent(ctx context.Context, c config, p process) (err error) {
	a := &agent{config: c, log: newLog(p.stderr, c.logLevel), media: make(map[string]net.Listener), control: make(map[string]net.Listener)}
	if a.dir, err = cluster.OpenDataDir(c.dataDir); err != nil {
		return fmt.Errorf("-data-dir: %w", err)
	}
	defer a.dir.Close()
	a.registry = prometheus.NewRegistry()
	a.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics := proxy.NewMetrics(a.registry)
	// All ports first: a peer that cannot have one of them starts nothing.
	defer a.closeListeners()
	if err := a.listen(ctx, metrics); err != nil {
		return err
	}
	a.balancer = memlb.New(memlb.Config{
		Peer: c.nodeName(), Policy: c.policy(), TTL: c.originTTL,
		Limits: fsm.Limits{
			Origins:            orDefault(c.sections.Limits.Origins, maxOrigins),
			Placements:         orDefault(c.sections.Limits.Placements, maxPlacements),
			PlacementsPerVHost: c.sections.Limits.PlacementsPerVHost,
		},
	})
	defer a.balancer.Close()
	l := c.sections.Limits
	a.router = proxy.NewRouter(a.balancer, proxy.RouterConfig{
		Log: a.log, Metrics: metrics, PlaceTimeout: c.placeTimeout,
		Limits: proxy.Limits{
			Sessions: l.Sessions, SessionsPerClient: l.SessionsPerClient, SessionRate: l.SessionRate,
			SessionRatePerClient: l.SessionRatePerClient, PlacementRate: l.PlacementRate, PlacementRatePerClient: l.PlacementRatePerClient,
		},
	})
	if err := a.registerStatic(ctx); err != nil {
		return err
	}
	return a.run(ctx, p)
}

func orDefault(n, standard int) int {
	if n == 0 {
		return standard
	}
	return n
}

func (c *config) nodeName() string {
	if c.node != "" {
		return c.node
	}
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "srsx"
}

func newLog(w io.Writer, level string) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // validated with the configuration
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return slog.New(tint.NewHandler(w, &tint.Options{Level: l, TimeFormat: time.TimeOnly}))
		}
	}
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l}))
}

// listen opens every listener, or says which flag's port is taken.
func (a *agent) listen(ctx context.Context, metrics *proxy.Metrics) error {
	c, l := &a.config, a.config.sections.Limits
	for _, one := range []struct {
		flag, addr string
		into       map[string]net.Listener
	}{
		{"rtmp", c.rtmp, a.media}, {"http", c.http, a.media}, {"api", c.api, a.control}, {"system-api", c.systemAPI, a.control},
	} {
		if one.addr == "" {
			continue
		}
		ln, err := proxy.Listen(ctx, one.addr, proxy.ListenConfig{
			Name: one.flag, Trusted: c.trusted, Log: a.log, Metrics: metrics,
			MaxConns: l.Connections, MaxConnsPerAddr: l.ConnectionsPerAddress,
		})
		if err != nil {
			return fmt.Errorf("-%s: %w", one.flag, err)
		}
		one.into[one.flag] = ln
	}
	if c.pprof != "" {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.pprof)
		if err != nil {
			return fmt.Errorf("GO_PPROF: %w", err)
		}
		a.control["pprof"] = ln
	}
	return nil
}

func (a *agent) closeListeners() {
	for _, ln := range a.media {
		_ = ln.Close()
	}
	for _, ln := range a.control {
		_ = ln.Close()
	}
}

// registerStatic hands the configured origins to the balancer.
func (a *agent) registerStatic(ctx context.Context) error {
	list, err := a.config.staticOrigins()
	if err != nil {
		return err
	}
	rules := admin.OriginRules{Overrides: a.config.overrides()}
	for _, h := range list {
		r, err := rules.Registration(h)
		if err != nil {
			return fmt.Errorf("origin %q: %w", h.Server, err)
		}
		r.Origin.Static, r.Replace = true, true
		if err := a.balancer.Register(ctx, r); err != nil {
			return fmt.Errorf("origin %q: %w", h.Server, err)
		}
	}
	return nil
}

// run serves until a signal, a dead listener or ctx ends it.
func (a *agent) run(ctx context.Context, p process) error {
	vhosts, err := proxy.NewVHosts(a.config.sections.VHosts...)
	if err != nil {
		return fmt.Errorf("vhosts: %w", err)
	}
	key, err := httpstream.LoadHintKey(a.dir.Path("hls-hint.key"))
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	serving, ctx := errgroup.WithContext(ctx)
	if a.config.dev {
		if err := a.startDev(ctx, serving); err != nil {
			return err
		}
	}
	a.admin = a.newAdmin()
	serving.Go(func() error { return a.router.Run(ctx) })
	a.serveControl(ctx, serving)
	var media errgroup.Group
	a.serveMedia(ctx, &media, vhosts, key)
	serving.Go(func() error { // the first that dies ends all
		err := media.Wait()
		if err == nil && ctx.Err() == nil {
			<-ctx.Done() // closed by the shutdown, which is not over yet
		}
		return err
	})
	a.announce(p.stdout)
	serving.Go(func() error { return a.awaitEnd(ctx, cancel, p.signals) })
	err = serving.Wait()
	a.router.CloseAll(proxy.ErrShutdown)
	if errors.Is(err, errStopped) || errors.Is(err, context.Canceled) {
		a.log.InfoContext(context.WithoutCancel(ctx), "ended")
		return nil
	}
	return err //nolint:wrapcheck // each names itself
}

func (a *agent) serveMedia(ctx context.Context, media *errgroup.Group, vhosts proxy.VHosts, key httpstream.HintKey) {
	if ln := a.media["rtmp"]; ln != nil {
		server := rtmp.NewServer(rtmp.Config{
			Opener: a.router, VHosts: vhosts, Trusted: a.config.trusted, NodeID: a.dir.NodeID(), Log: a.log, Registered: a.registered,
		})
		media.Go(func() error { return server.Serve(ctx, ln) })
	}
	if ln := a.media["http"]; ln != nil {
		server := httpstream.NewServer(httpstream.Config{
			Opener: a.router, Finder: a.balancer, VHosts: vhosts, Trusted: a.config.trusted, NodeID: a.dir.NodeID(),
			HintKey: key, Static: a.staticFiles(), Versions: a.admin.Versions(), Log: a.log,
		})
		media.Go(func() error { return server.Serve(ctx, ln) })
	}
}

func (a *agent) staticFiles() fs.FS {
	if a.config.static != "" {
		return os.DirFS(a.config.static)
	}
	return player.FS()
}

// registered finds the origin that serves RTMP at an address.
func (a *agent) registered(addr string) (lb.OriginID, bool) {
	for _, o := range a.balancer.Origins() {
		for _, endpoint := range o.Endpoints.RTMP {
			if endpoint == addr {
				return o.ID, true
			}
		}
	}
	return "", false
}

func (a *agent) newAdmin() *admin.Server {
	a.registry.MustRegister(admin.NewCollector(a.balancer))
	var own []netip.AddrPort
	for _, listeners := range []map[string]net.Listener{a.media, a.control} {
		for _, ln := range listeners {
			own = append(own, proxy.AddrPortOf(ln.Addr()))
		}
	}
	return admin.NewServer(admin.Config{
		Balancer: a.balancer, Sessions: a.router, Members: a.members, Gatherer: a.registry,
		Access:  admin.Access{Token: a.config.token, RegisterToken: a.config.registerToken, Hosts: []string{a.config.advertise, a.config.nodeName()}},
		Origins: admin.OriginRules{Allow: a.config.originAllow, Own: own, Overrides: a.config.overrides()},
		Version: version, Log: a.log, ReadyGrace: a.config.readyGrace,
	})
}

// members is this peer: alone it leads itself.
func (a *agent) members() []admin.Member {
	streams := 0
	for _, o := range a.balancer.Origins() {
		streams += o.Streams
	}
	sessions, _ := a.router.Counts()
	return []admin.Member{{
		Name: a.config.nodeName(), Addr: a.address(), State: "alive", Role: "leader", Version: version,
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

// insecure reports whether strangers reach the system API and no token is set.
func (a *agent) insecure() bool {
	ln := a.control["system-api"]
	return ln != nil && a.config.token == "" && a.config.registerToken == "" && !proxy.AddrPortOf(ln.Addr()).Addr().IsLoopback()
}

func (a *agent) serveControl(ctx context.Context, serving *errgroup.Group) {
	if ln := a.control["system-api"]; ln != nil {
		serving.Go(func() error { return a.admin.Serve(ctx, ln) })
	}
	if ln := a.control["api"]; ln != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /api/v1/versions", a.admin.Versions())
		serving.Go(func() error { return serveHTTP(ctx, ln, mux) })
	}
	if ln := a.control["pprof"]; ln != nil {
		mux := http.NewServeMux()
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		serving.Go(func() error { return serveHTTP(ctx, ln, mux) })
	}
}

func serveHTTP(ctx context.Context, ln net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	return nil
}

// errStopped ends the group without being a failure.
var errStopped = errors.New("stopped")

// awaitEnd waits for the first signal and then lets sessions run out: first
// nothing new is taken, so that what remains can only become less.
func (a *agent) awaitEnd(ctx context.Context, cancel context.CancelCauseFunc, signals <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-signals:
			if s == syscall.SIGHUP {
				a.log.InfoContext(ctx, "a restart is needed for a changed configuration")
				continue
			}
		}
		break
	}
	a.admin.Drain()
	a.router.Close()
	for _, ln := range a.media {
		_ = ln.Close()
	}
	total, _ := a.router.Counts()
	a.log.InfoContext(ctx, "stopping", "sessions", total, "grace", a.config.graceQuit)
	force := time.AfterFunc(a.config.forceQuit, func() { cancel(errForced) })
	defer force.Stop()
	err := a.awaitSessions(ctx, signals)
	a.router.CloseAll(proxy.ErrShutdown)
	if err != nil {
		return err
	}
	closing, stop := context.WithTimeout(ctx, time.Second) // players get to read why
	defer stop()
	_ = a.router.Wait(closing)
	return errStopped
}

// awaitSessions returns nil when the sessions are over or the grace is.
func (a *agent) awaitSessions(ctx context.Context, signals <-chan os.Signal) error {
	grace, stop := context.WithTimeout(ctx, a.config.graceQuit)
	defer stop()
	over := make(chan error, 1)
	go func() { over <- a.router.Wait(grace) }()
	for {
		select {
		case err := <-over:
			if err != nil && ctx.Err() == nil {
				total, _ := a.router.Counts()
				a.log.WarnContext(ctx, "grace time is over", "sessions", total)
			}
			return nil
		case s := <-signals:
			if s != syscall.SIGHUP {
				return errForced
			}
		}
	}
}

// announce says where the peer serves, and warns of what strangers may do.
func (a *agent) announce(stdout io.Writer) {
	ctx := context.Background()
	for flag, ln := range a.media {
		a.log.InfoContext(ctx, "listening", "for", flag, "addr", ln.Addr().String())
	}
	for flag, ln := range a.control {
		a.log.InfoContext(ctx, "listening", "for", flag, "addr", ln.Addr().String())
	}
	if a.insecure() {
		a.log.WarnContext(ctx, "INSECURE: the system API listens beyond this host and neither -token nor -register-token is set: anybody who reaches it may register an origin in -origin-allow")
	}
	if a.config.dev {
		a.announceDev(stdout)
	}
}
