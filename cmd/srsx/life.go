package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"srsx/proxy"
	"srsx/proxy/httpstream"
)

// Why a process that was told to stop ended.
var (
	errStopped = errors.New("stopped") // ends the group, is no failure
	errSecond  = errors.New("ended at once by a second signal")
	errOverdue = errors.New("ended by PROXY_FORCE_QUIT_TIMEOUT")
)

const (
	// goodbyeTimeout is how long clients get to read why their session ends.
	goodbyeTimeout = time.Second
	// forcedTimeout is how long a forced end waits for those who end at once.
	forcedTimeout = 500 * time.Millisecond
)

// run serves until a signal, a dead listener or ctx ends it.
func (a *agent) run(ctx context.Context, p process) error {
	vhosts, err := proxy.NewVHosts(a.config.sections.VHosts...)
	if err != nil {
		return fmt.Errorf("vhosts: %w", err)
	}
	key, err := httpstream.LoadHintKey(a.dir.Path("hls-hint.key"))
	if err != nil {
		return err
	}
	static, err := a.staticFiles()
	if err != nil {
		return err
	}
	forced, force := context.WithCancelCause(context.WithoutCancel(ctx))
	defer force(nil)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	serving, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, a.closeListeners)()
	known, err := a.knownOrigins(ctx, serving)
	if err != nil {
		return err
	}
	if a.member != nil {
		a.startCluster(ctx, serving)
	}
	if err = a.register(ctx, serving, known); err != nil {
		return err
	}
	a.admin = a.newAdmin()
	serving.Go(func() error { return a.awaitDeath(ctx) })
	serving.Go(func() error { return a.router.Run(ctx) })
	a.serveWebRTC(ctx, serving, vhosts, a.routeSecret(key))
	a.serveControl(ctx, serving)
	a.serveMedia(ctx, serving, vhosts, a.hintKey(key), static)
	a.announce(ctx, p.stdout)
	serving.Go(func() error { return a.awaitEnd(ctx, forced, force, p.signals) })

	ended := make(chan error, 1)
	go func() { ended <- serving.Wait() }()
	select {
	case err = <-ended:
	case <-forced.Done(): // whoever hangs does not hold up the end
		select {
		case err = <-ended:
		case <-time.After(forcedTimeout):
		}
	}
	a.router.CloseAll(proxy.ErrShutdown)
	if cause := context.Cause(forced); cause != nil {
		return cause
	}
	if err == nil || errors.Is(err, errStopped) {
		a.log.InfoContext(context.WithoutCancel(ctx), "ended")
		return nil
	}
	return err
}

// awaitEnd waits for the first signal that is no reload, and then lets the
// sessions run out.
func (a *agent) awaitEnd(ctx, forced context.Context, force context.CancelCauseFunc, signals <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-signals:
			if s != syscall.SIGHUP {
				overdue := time.AfterFunc(a.config.forceQuit, func() { force(errOverdue) })
				context.AfterFunc(forced, func() { overdue.Stop() })
				go a.forceOnSecond(forced, force, signals)
				return a.stop(ctx, forced)
			}
			a.reload(ctx)
		}
	}
}

// forceOnSecond forces the end at the next signal, until the process ends.
func (a *agent) forceOnSecond(forced context.Context, force context.CancelCauseFunc, signals <-chan os.Signal) {
	for {
		select {
		case <-forced.Done():
			return
		case s := <-signals:
			if s == syscall.SIGHUP {
				a.log.WarnContext(forced, "configuration not reloaded", "err", "peer is stopping")
				continue
			}
			force(errSecond)
		}
	}
}

// stop takes nothing new first, so that what remains can only become less, and
// ends what is left when the grace time is over. The control listeners stay:
// /readyz has to say that this peer is draining.
func (a *agent) stop(ctx, forced context.Context) error {
	a.admin.Drain()
	a.router.Close()
	if server := a.webrtc.Load(); server != nil {
		server.Drain()
	}
	a.handOver(ctx)
	a.closing.Store(true)
	for _, ln := range a.media {
		_ = ln.Close()
	}
	total, _ := a.router.Counts()
	a.log.InfoContext(ctx, "stopping", "sessions", total, "grace", a.config.graceQuit)

	grace, stop := context.WithTimeout(ctx, a.config.graceQuit)
	defer stop()
	defer context.AfterFunc(forced, stop)()
	if err := a.router.Wait(grace); err != nil && ctx.Err() == nil && forced.Err() == nil {
		left, byOrigin := a.router.Counts()
		a.log.WarnContext(ctx, "grace time is over", "sessions", left, "by_origin", byOrigin)
	}
	a.router.CloseAll(proxy.ErrShutdown)
	goodbye, stop := context.WithTimeout(ctx, goodbyeTimeout)
	defer stop()
	defer context.AfterFunc(forced, stop)()
	_ = a.router.Wait(goodbye)
	return errStopped
}

// announce says where the peer serves, and warns of what strangers may do.
func (a *agent) announce(ctx context.Context, stdout io.Writer) {
	for _, listeners := range []map[string]net.Listener{a.media, a.control} {
		for _, flag := range slices.Sorted(maps.Keys(listeners)) {
			a.log.InfoContext(ctx, "listening", "for", flag, "addr", listeners[flag].Addr().String())
		}
	}
	if a.srt != nil {
		a.log.InfoContext(ctx, "listening", "for", "srt", "addr", a.srt.Addr().String())
	}
	a.log.InfoContext(ctx, "ready", "node", a.node, "version", a.version)
	for _, warning := range a.insecurities() {
		a.log.WarnContext(ctx, "INSECURE", "why", warning)
	}
	if a.config.dev {
		a.announceDev(stdout)
	}
}
