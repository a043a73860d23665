package main

import (
	"context"
	"fmt"
	"io"
	"net"

	"golang.org/x/sync/errgroup"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/devorigin"
)

// startDev runs the small origin on loopback and returns what it registers as.
func (a *agent) startDev(ctx context.Context, serving *errgroup.Group) (lb.Registration, error) {
	var listeners [2]net.Listener
	for i := range listeners {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return lb.Registration{}, fmt.Errorf("-dev: %w", err)
		}
		listeners[i] = ln
	}
	origin := devorigin.New(a.log)
	serving.Go(func() error { return origin.Serve(ctx, listeners[0], listeners[1]) })
	return lb.Registration{Replace: true, Origin: lb.Origin{
		ID: "dev", Incarnation: lb.Incarnation{Server: "dev", Service: a.dir.NodeID(), PID: "0"}, IP: "127.0.0.1",
		Endpoints: lb.Endpoints{RTMP: []string{listeners[0].Addr().String()}, HTTP: []string{listeners[1].Addr().String()}},
		Weight:    lb.DefaultWeight, Static: true,
	}}, nil
}

// announceDev says what to open and what to type.
func (a *agent) announceDev(w io.Writer) {
	port := func(flag string) uint16 {
		if ln := a.media[flag]; ln != nil {
			return proxy.AddrPortOf(ln.Addr()).Port()
		}
		return 0
	}
	rtmp, http := port("rtmp"), port("http")
	_, _ = fmt.Fprintf(w, `
srsx is running: one peer, with a small origin inside and a test clip at live/demo.

  watch     http://127.0.0.1:%[2]d/
  RTMP      rtmp://127.0.0.1:%[1]d/live/demo
  HTTP-FLV  http://127.0.0.1:%[2]d/live/demo.flv
  HLS       http://127.0.0.1:%[2]d/live/demo.m3u8
  publish   rtmp://127.0.0.1:%[1]d/live/mine

  ffmpeg -re -f lavfi -i testsrc2=s=640x360:r=25 -f lavfi -i sine=440 -c:v libx264 -g 25 -pix_fmt yuv420p -c:a aac -f flv rtmp://127.0.0.1:%[1]d/live/mine

  srsx origin list        who serves
  srsx placement list     what is where

`, rtmp, http)
}
