package main

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"srsx/test/origintest"
	"srsx/test/peertest"
)

// port is a media port that accepts and closes, and counts.
type port struct {
	net.Listener
	accepted atomic.Int64
}

func openPort(t *testing.T, addr string) *port {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	p := &port{Listener: ln}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
			p.accepted.Add(1)
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return p
}

// has returns a condition: a line of the output holds all texts.
func (r *running) has(texts ...string) func() bool {
	return func() bool { return len(r.out.Lines(texts...)) > 0 }
}

// watch follows the peer's events until the test ends.
func (p *peer) watch(t *testing.T, flags ...string) *running {
	t.Helper()
	r := p.start(append([]string{"placement", "watch"}, flags...)...)
	t.Cleanup(func() { r.interrupt(t) })
	p.awaitWatcher(t, r)
	return r
}

// awaitWatcher waits until a watcher has subscribed: it sees what comes after,
// so an origin comes and goes until it does.
func (p *peer) awaitWatcher(t *testing.T, r *running) {
	t.Helper()
	eventually(t, "the subscription", func() bool {
		p.here().call(t, "POST", registerPath, heartbeat("marker", "1", "127.0.0.1", "1"))
		p.here().call(t, "DELETE", "/api/v1/origins/marker", "")
		return r.has("origin-removed", "marker")()
	})
}

// Silence alone brings no origin down: it has to fail a probe as well.
func TestASilentOriginIsProbedBeforeItIsDown(t *testing.T) {
	const ttl = 300 * time.Millisecond
	p := startPeer(t, options{flags: []string{"-origin-ttl", ttl.String()}})
	events := p.watch(t)
	media := openPort(t, "127.0.0.1:"+peertest.FreePort(t))
	began := time.Now()
	if status, body := p.here().call(t, "POST", registerPath, heartbeat("o1", "1", "127.0.0.1", media.Addr().String())); status != http.StatusOK {
		t.Fatalf("register = %d %s", status, body)
	}
	eventually(t, "a second probe of the silent origin", func() bool { return media.accepted.Load() >= 2 })
	if silent := time.Since(began); silent < 2*ttl {
		t.Errorf("two probes within %s; want one after each %s of silence", silent, ttl)
	}
	if got := p.state(t, "o1"); got != "up" {
		t.Errorf("a silent origin that answers probes is %s", got)
	}
	_ = media.Close()
	eventually(t, "the origin is down", func() bool { return p.state(t, "o1") == "down" })
	eventually(t, "the event says why", events.has("origin-down", "o1", "silent for 300ms", "connection refused"))
	openPort(t, media.Addr().String())
	eventually(t, "a probe brings it back", func() bool { return p.state(t, "o1") == "up" })
	eventually(t, "the event says why", events.has("origin-up", "o1", "probe answered"))
}

func TestAHeartbeatBringsAnOriginBack(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-origin-ttl", "300ms"}})
	o := p.originAt(t, origintest.Config{Server: "o1"})
	o.Kill()
	eventually(t, "the origin is down", func() bool { return p.state(t, "o1") == "down" })
	if out := p.must(t, "placement", "explain", "live/one"); !strings.Contains(out, "down") {
		t.Errorf("explain does not say that the origin is down:\n%s", out)
	}
	o.Restart(t)
	eventually(t, "the origin is back", func() bool { return p.state(t, "o1") == "up" })
	if got := p.origins(t)["o1"].Service; got != o.Service() {
		t.Errorf("incarnation = %s; want the new one, %s", got, o.Service())
	}
}

// Origins that send no heartbeat: from the file and from the environment.
func TestStaticOriginsAreProbed(t *testing.T) {
	file, env := origintest.Start(t, origintest.Config{}), origintest.Start(t, origintest.Config{})
	_, rtmp, _ := strings.Cut(env.RTMP(), ":")
	_, web, _ := strings.Cut(env.HTTP(), ":")
	p := startPeer(t, options{
		flags: []string{"-origin-ttl", "300ms"}, config: "origins:\n" + staticOrigin(file, "file", ""),
		env: map[string]string{
			"PROXY_DEFAULT_BACKEND_ENABLED": "on", "PROXY_DEFAULT_BACKEND_IP": "127.0.0.1",
			"PROXY_DEFAULT_BACKEND_RTMP": rtmp, "PROXY_DEFAULT_BACKEND_HTTP": web,
		},
	})
	for id, o := range map[string]*origintest.Origin{"file": file, backendID: env} {
		if got := p.origins(t)[id]; got.State != "up" || !got.Static || got.Endpoints["rtmp"][0] != o.RTMP() || got.Endpoints["http"][0] != o.HTTP() {
			t.Fatalf("%s = %+v; want it up at %s", id, got, o.RTMP())
		}
	}
	for i := range 6 {
		p.publish(t, fmt.Sprint("s", i))
	}
	if file.Streams() == 0 || env.Streams() == 0 {
		t.Errorf("streams: %d and %d; want some on both", file.Streams(), env.Streams())
	}
	file.Kill()
	eventually(t, "the static origin is down", func() bool { return p.state(t, "file") == "down" })
	file.Restart(t)
	eventually(t, "the static origin is back", func() bool { return p.state(t, "file") == "up" })
	if got := p.state(t, backendID); got != "up" {
		t.Errorf("the other one is %s", got)
	}
}

// A dial that is refused keeps new streams away at once, without a word of the
// backend, until a probe finds the port open again.
func TestARefusedDialEjectsForNewStreams(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-origin-ttl", "1h"}})
	closed := "127.0.0.1:" + peertest.FreePort(t)
	o := origintest.Start(t, origintest.Config{Server: "o1"})
	// Its media port answers probes, its HTTP port refuses.
	beat := fmt.Sprintf(`{"ip":"127.0.0.1","server":"o1","service":"1","pid":"1","rtmp":[%q],"http":[%q],"api":[%q]}`, o.RTMP(), closed, o.API())
	if status, body := p.here().call(t, "POST", registerPath, beat); status != http.StatusOK {
		t.Fatalf("register = %d %s", status, body)
	}
	two := origintest.Start(t, origintest.Config{Server: "o2", Register: "http://" + p.system + registerPath})
	p.must(t, "origin", "weight", "o1", "10000")
	eventually(t, "the second origin", func() bool { return p.state(t, "o2") == "up" })
	if status := p.httpStatus(t, "/live/new.flv"); status != http.StatusNotFound {
		t.Errorf("a play that met the closed port = %d; want the other origin's 404", status)
	}
	if seen := len(two.Seen("http")); seen != 1 {
		t.Errorf("the other origin saw %d requests; want 1", seen)
	}
	if got := p.state(t, "o1"); got != "up" {
		t.Errorf("one peer's refused dial made the origin %s", got)
	}
	out := p.must(t, "placement", "explain", "live/another", "-protocol", "http")
	if !strings.Contains(out, "not reached from this peer") {
		t.Errorf("explain does not say so:\n%s", out)
	}
	if got := p.metric(t, "srsx_ejected_origins"); got != 1 {
		t.Errorf("srsx_ejected_origins = %v; want 1", got)
	}
	openPort(t, closed)
	eventually(t, "the origin is taken back", func() bool { return len(p.logged("origin taken back")) == 1 })
	if out = p.must(t, "placement", "explain", "live/another", "-protocol", "http"); strings.Contains(out, "not reached") {
		t.Errorf("explain still passes it over:\n%s", out)
	}
}

// The streams of a restarted origin are gone with its memory.
func TestANewIncarnationLosesTheOldPlacements(t *testing.T) {
	p := startPeer(t, options{})
	events := p.watch(t)
	o := p.originAt(t, origintest.Config{Server: "o1"})
	encoder := p.publish(t, "one")
	before := p.placements(t)["__defaultVhost__/live/one"]
	o.Restart(t)
	<-encoder.ended
	eventually(t, "the placement goes", events.has("released", "live/one", "origin restarted"))
	eventually(t, "the encoder is back", func() bool {
		_, err := p.tryPublish(t, "one")
		return err == nil
	})
	after := p.placements(t)["__defaultVhost__/live/one"]
	if after.Epoch <= before.Epoch || after.Origin != "o1" || !o.Publishing("live/one") {
		t.Errorf("placement = %+v after %+v; want a new one", after, before)
	}
}

// Whoever relies on a placement is not moved by one peer's refused session.
func TestARefusingOriginDoesNotMoveAPlacedStream(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-place-timeout", "2s"}})
	origins := map[string]*origintest.Origin{
		"o1": p.originAt(t, origintest.Config{Server: "o1"}), "o2": p.originAt(t, origintest.Config{Server: "o2"}),
	}
	p.publish(t, "one")
	home := p.homeOf(t, "live/one")
	// One that resets at accept is left out: the reset may come before the probe
	// has seen that it was connected, so that either verdict is right.
	for name, script := range map[string]origintest.Script{
		"resets at handshake": {DieAt: origintest.AtHandshake},
		"answers garbage":     {GarbageAt: origintest.AtHandshake},
		"refuses to play":     {RefusePlay: &origintest.Status{Code: "NetStream.Play.StreamNotFound", Description: "none"}},
	} {
		origins[home].Behave(script)
		client, err := p.connect(t, "")
		if err != nil {
			t.Fatal(err)
		}
		if err = client.Play("one"); refusal(err) == "" {
			t.Errorf("%s: play = %v; want a refusal", name, err)
		}
		client.Close()
		if got := p.homeOf(t, "live/one"); got != home {
			t.Fatalf("%s: the stream is on %s; want it to stay on %s", name, got, home)
		}
		if got := p.state(t, home); got != "up" {
			t.Errorf("%s: the origin is %s; want up, as it answers probes", name, got)
		}
	}
	origins[home].Behave(origintest.Script{})
	requireFrames(t, p.play(t, "one"), "one")
}
