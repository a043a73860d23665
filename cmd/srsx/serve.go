package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/pprof"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/httpstream"
	"srsx/proxy/player"
	"srsx/proxy/rtmp"
	"srsx/proxy/srt"
)

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
	if err := a.listenRTC(ctx, metrics); err != nil {
		return err
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

func (a *agent) listenSRT(ctx context.Context) (err error) {
	if a.config.srt == "" {
		return nil
	}
	if a.srt, err = datagram.Listen(ctx, a.config.srt, "srt"); err != nil {
		return fmt.Errorf("-srt: %w", err)
	}
	return nil
}

func (a *agent) closeSRT() {
	if a.srt != nil {
		_ = a.srt.Close()
	}
}

func (a *agent) closeListeners() {
	if a.rtc != nil {
		_ = a.rtc.Close()
	}
	for _, ln := range a.media {
		_ = ln.Close()
	}
	for _, ln := range a.control {
		_ = ln.Close()
	}
}

// watched is a listener that tells when it stops accepting. Serve of some
// protocols returns only when the last session has gone, and until then a
// process that takes nobody would look alive.
type watched struct {
	net.Listener
	name    string // of its setting
	stopped func(error)
}

func (w watched) Accept() (net.Conn, error) {
	conn, err := w.Listener.Accept()
	if err != nil {
		err = fmt.Errorf("%s: listener %s: %w", w.name, w.Addr(), err)
		w.stopped(err)
	}
	return conn, err
}

// watch has the process end when a listener stops before closing is set.
func (a *agent) watch(ctx context.Context, name string, ln net.Listener) net.Listener {
	return watched{Listener: ln, name: name, stopped: func(err error) {
		if ctx.Err() != nil || a.closing.Load() {
			return
		}
		select {
		case a.dead <- err:
		default: // one reason is enough
		}
	}}
}

// awaitDeath returns why a listener stopped, or nil at the end of ctx.
func (a *agent) awaitDeath(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-a.dead:
		return err
	}
}

// serveMedia serves what sessions come through. The servers end with their
// listeners, and when the last session has.
func (a *agent) serveMedia(ctx context.Context, serving *errgroup.Group, vhosts proxy.VHosts, key func() httpstream.HintKey, static fs.FS) {
	if ln := a.media["rtmp"]; ln != nil {
		server := rtmp.NewServer(rtmp.Config{
			Opener: a.router, VHosts: vhosts, Trusted: a.config.trusted, NodeID: a.dir.NodeID(), Log: a.log, Registered: a.registered,
			TellClient: a.config.tellsClient,
		})
		serving.Go(func() error { return server.Serve(ctx, a.watch(ctx, "-rtmp", ln)) })
	}
	if ln := a.media["http"]; ln != nil {
		server := httpstream.NewServer(httpstream.Config{
			Opener: a.router, Finder: a.balancer, VHosts: vhosts, Trusted: a.config.trusted, NodeID: a.dir.NodeID(),
			HintKey: key, Static: static, Versions: a.admin.Versions(), Log: a.log,
		})
		serving.Go(func() error { return server.Serve(ctx, a.watch(ctx, "-http", ln)) })
	}
	if a.srt != nil {
		server := srt.NewServer(a.srt, srt.Config{
			Opener: a.router, VHosts: vhosts, Log: a.log, Metrics: srt.NewMetrics(a.registry),
		})
		serving.Go(func() error {
			if err := server.Serve(ctx); err != nil {
				return fmt.Errorf("-srt: %w", err)
			}
			return nil
		})
	}
}

func (a *agent) staticFiles() (fs.FS, error) {
	if a.config.static != "" {
		return httpstream.StaticFiles(a.config.static)
	}
	return player.FS(), nil
}

// registered finds the origin that serves RTMP at an address.
func (a *agent) registered(addr string) (lb.Origin, bool) {
	for _, o := range a.balancer.Origins() {
		if slices.Contains(o.Endpoints.RTMP, addr) {
			return o.Origin, true
		}
	}
	return lb.Origin{}, false
}

func (a *agent) serveControl(ctx context.Context, serving *errgroup.Group) {
	if ln := a.control["system-api"]; ln != nil {
		serving.Go(func() error { return a.admin.Serve(ctx, a.watch(ctx, "-system-api", ln)) })
	}
	if ln := a.control["api"]; ln != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /api/v1/versions", a.admin.Versions())
		if signalling := a.webrtc.Load(); signalling != nil {
			mux.Handle("/", signalling)
		}
		serving.Go(func() error { return serveHTTP(ctx, a.watch(ctx, "-api", ln), mux) })
	}
	if ln := a.control["pprof"]; ln != nil {
		mux := http.NewServeMux()
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
		serving.Go(func() error { return serveHTTP(ctx, a.watch(ctx, "GO_PPROF", ln), mux) })
	}
}

func serveHTTP(ctx context.Context, ln net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(ln); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
