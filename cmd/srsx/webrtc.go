package main

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"net"
	"strconv"

	"golang.org/x/sync/errgroup"

	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/httpstream"
	"srsx/proxy/webrtc"
)

// listenRTC opens UDP and TCP on the same port: media of WebRTC.
func (a *agent) listenRTC(ctx context.Context, metrics *proxy.Metrics) error {
	if a.config.rtc == "" {
		return nil
	}
	const tries = 10 // for a port that the system chooses, which TCP may not have
	for try := 1; ; try++ {
		err := a.tryListenRTC(ctx, metrics)
		_, port, _ := net.SplitHostPort(a.config.rtc)
		if err == nil || port != "0" || try == tries {
			return err
		}
	}
}

func (a *agent) tryListenRTC(ctx context.Context, metrics *proxy.Metrics) error {
	c, l := &a.config, a.config.sections.Limits
	udp, err := datagram.Listen(ctx, c.rtc, "rtc")
	if err != nil {
		return fmt.Errorf("-rtc: %w", err)
	}
	host, _, _ := net.SplitHostPort(c.rtc)
	tcp, err := proxy.Listen(ctx, net.JoinHostPort(host, strconv.Itoa(int(udp.Addr().Port()))), proxy.ListenConfig{
		Name: "rtc", Trusted: c.trusted, Log: a.log, Metrics: metrics,
		MaxConns: l.Connections, MaxConnsPerAddr: l.ConnectionsPerAddress,
	})
	if err != nil {
		_ = udp.Close()
		return fmt.Errorf("-rtc: %w", err)
	}
	a.rtc, a.media["rtc"] = udp, tcp
	return nil
}

// serveWebRTC serves signalling and media; the port of the HTTP API comes later.
func (a *agent) serveWebRTC(ctx context.Context, serving *errgroup.Group, vhosts proxy.VHosts, secret func() webrtc.Secret) {
	if a.rtc == nil {
		return
	}
	candidates := a.config.rtcCandidates
	if len(candidates) == 0 {
		candidates = []string{a.address()}
	}
	config := webrtc.Config{
		Opener: a.router, Finder: a.balancer, Secret: secret, VHosts: vhosts, Trusted: a.config.trusted, NodeID: a.dir.NodeID(),
		Candidates: candidates, Port: a.rtc.Addr().Port(), PathsOf: a.config.whipPaths, Log: a.log,
	}
	if a.member != nil {
		config.Ask = a.member.AskMedia
	}
	server := webrtc.NewServer(config)
	a.registry.MustRegister(server)
	a.webrtc.Store(server)
	serving.Go(func() error { return server.Run(ctx) })
	serving.Go(func() error { return server.ServeTCP(ctx, a.watch(ctx, "-rtc", a.media["rtc"])) })
	serving.Go(func() error {
		if err := server.ServeUDP(a.rtc); err != nil {
			return fmt.Errorf("-rtc: %w", err)
		}
		return nil
	})
}

// answerMedia answers a question of another peer.
func (a *agent) answerMedia(question []byte) []byte {
	if server := a.webrtc.Load(); server != nil {
		return server.Answer(question)
	}
	return nil
}

// routeSecret returns what WebRTC routes are signed with: the cluster's, or what
// this peer makes of the key that it keeps.
func (a *agent) routeSecret(own httpstream.HintKey) func() webrtc.Secret {
	const purpose = "webrtc routes"
	var alone webrtc.Secret
	if b, err := hkdf.Key(sha256.New, own[:], nil, "srsx "+purpose, len(alone)); err == nil { // lengths that fit
		alone = webrtc.Secret(b)
	}
	return func() webrtc.Secret {
		if a.member == nil {
			return alone
		}
		if known := a.member.routeKey.Load(); known != nil {
			return *known
		}
		secret, ok := a.member.Secret(purpose)
		if !ok {
			return alone // until this peer is let in
		}
		shared := webrtc.Secret(secret)
		a.member.routeKey.Store(&shared)
		return shared
	}
}
