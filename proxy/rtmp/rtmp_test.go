package rtmp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/lb/memlb"
	"srsx/proxy"
	"srsx/proxy/rtmp"
	"srsx/proxy/rtmp/wire"
	"srsx/test/mediatest"
	"srsx/test/origintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// peer is a server in front of one scripted origin.
type peer struct {
	addr     string
	origin   *origintest.Origin
	balancer *memlb.Balancer
	router   *proxy.Router
	log      *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, script origintest.Script, change func(*rtmp.Config)) *peer {
	t.Helper()
	p := &peer{origin: origintest.Start(t, origintest.Config{Script: script}), log: &lockedBuffer{}}
	log := slog.New(slog.NewTextHandler(p.log, nil))
	p.balancer = memlb.New(memlb.Config{Peer: "p"})
	o := lb.Origin{
		ID: "o", Incarnation: lb.Incarnation{Server: "o"}, Static: true, Weight: lb.DefaultWeight,
		Endpoints: lb.Endpoints{RTMP: []string{p.origin.RTMP()}},
	}
	if err := p.balancer.Register(t.Context(), lb.Registration{Origin: o}); err != nil {
		t.Fatal(err)
	}
	p.router = proxy.NewRouter(p.balancer, proxy.RouterConfig{Log: log, PlaceTimeout: 500 * time.Millisecond})
	config := rtmp.Config{
		Opener: p.router, Log: log, NodeID: "n1", StepTimeout: 300 * time.Millisecond,
		WriteTimeout: time.Second, Registered: func(addr string) (lb.Origin, bool) { return o, addr == p.origin.RTMP() },
	}
	if change != nil {
		change(&config)
	}
	ln, err := proxy.Listen(t.Context(), "127.0.0.1:0", proxy.ListenConfig{Name: "rtmp"})
	if err != nil {
		t.Fatal(err)
	}
	p.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = p.router.Run(ctx) })
	running.Go(func() {
		if err := rtmp.NewServer(config).Serve(ctx, ln); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		p.router.CloseAll(proxy.ErrShutdown)
		cancel()
		_ = ln.Close()
		running.Wait()
		_ = p.balancer.Close()
	})
	return p
}

func (p *peer) dial(t *testing.T) *mediatest.Client {
	t.Helper()
	c, err := mediatest.Dial(context.Background(), mediatest.Target{Addr: p.addr, TCURL: "rtmp://" + p.addr + "/live"})
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// publish publishes a pattern until the test ends.
func (p *peer) publish(t *testing.T, name string) (stop func()) {
	t.Helper()
	c := p.dial(t)
	if err := c.Publish(name); err != nil {
		t.Fatalf("publish %s: %v", name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var sending sync.WaitGroup
	sending.Go(func() { _ = c.Send(ctx, mediatest.NewPattern(name)) })
	stop = func() { cancel(); sending.Wait() }
	t.Cleanup(stop)
	return stop
}

func TestFramesArriveInOrderAndUnchanged(t *testing.T) {
	p := start(t, origintest.Script{}, nil)
	p.publish(t, "s")
	c := p.dial(t)
	if err := c.Play("s"); err != nil {
		t.Fatal(err)
	}
	var last uint32
	for i := range 40 {
		name, number, err := c.NextFrame()
		if err != nil || name != "s" {
			t.Fatalf("frame %d: %q, %v", i, name, err)
		}
		if i > 0 && number != last+1 {
			t.Fatalf("frame %d follows %d", number, last)
		}
		last = number
	}
}

func TestViewerMayComeFirst(t *testing.T) {
	p := start(t, origintest.Script{}, nil)
	c := p.dial(t)
	if err := c.Play("s"); err != nil {
		t.Fatal(err)
	}
	p.publish(t, "s")
	if name, _, err := c.NextFrame(); err != nil || name != "s" {
		t.Errorf("NextFrame = %q, %v; want a frame of s", name, err)
	}
}

func TestOriginSeesWhatTheClientSaid(t *testing.T) {
	p := start(t, origintest.Script{}, nil)
	stop := p.publish(t, "s?token=secret")
	eventually(t, "publish reached the origin", func() bool { return len(p.origin.Seen("publish")) == 1 })
	seen := p.origin.Seen("publish")[0]
	if seen.Name != "s?token=secret" {
		t.Errorf("origin saw name %q; want it with its query", seen.Name)
	}
	if want := "rtmp://" + p.addr + "/live"; seen.TCURL != want {
		t.Errorf("origin saw tcUrl %q; want %q", seen.TCURL, want)
	}
	if mark, _ := seen.Connect.Get(proxy.HopProperty); mark != "n1" {
		t.Errorf("hop mark = %v; want n1", mark)
	}
	stop()
	eventually(t, "session ended", func() bool { total, _ := p.router.Counts(); return total == 0 })
	if strings.Contains(p.log.String(), "secret") {
		t.Errorf("the log tells a token:\n%s", p.log)
	}
}

func TestOriginsRefusalReachesTheClient(t *testing.T) {
	refusal := &origintest.Status{Code: "NetStream.Publish.BadName", Description: "stream is busy"}
	for name, script := range map[string]origintest.Script{
		"connect": {RefuseConnect: &origintest.Status{Code: "NetConnection.Connect.Rejected", Description: "no such vhost"}},
		"publish": {RefusePublish: refusal},
	} {
		p := start(t, script, nil)
		err := p.dial(t).Publish("s")
		var status *mediatest.StatusError
		if !errors.As(err, &status) {
			t.Fatalf("%s: Publish = %v; want the origin's status", name, err)
		}
		want := refusal.Code
		if script.RefuseConnect != nil {
			want = script.RefuseConnect.Code
		}
		if status.Code != want {
			t.Errorf("%s: code = %s; want %s", name, status.Code, want)
		}
	}
}

func TestBadOriginsGetTheClientAClearRefusal(t *testing.T) {
	for name, script := range map[string]origintest.Script{
		"dies at accept":       {DieAt: origintest.AtAccept},
		"dies in handshake":    {DieAt: origintest.AtHandshake},
		"dies at start":        {DieAt: origintest.AtStart},
		"silent at connect":    {SilentAt: origintest.AtConnect},
		"silent at stream":     {SilentAt: origintest.AtStream},
		"garbage in handshake": {GarbageAt: origintest.AtHandshake},
		"redirects elsewhere":  {RefuseConnect: &origintest.Status{Code: "NetConnection.Connect.Rejected", Redirect: "rtmp://127.0.0.1:1/live"}},
	} {
		p := start(t, script, nil)
		err := p.dial(t).Play("s")
		var status *mediatest.StatusError
		if !errors.As(err, &status) || status.Code != "NetStream.Play.Failed" {
			t.Errorf("%s: Play = %v; want NetStream.Play.Failed", name, err)
			continue
		}
		if strings.Contains(status.Error(), p.origin.RTMP()) {
			t.Errorf("%s: %q tells the origin's address", name, status)
		}
	}
}

func TestMovedStreamEndsItsSessions(t *testing.T) {
	p := start(t, origintest.Script{}, nil)
	p.publish(t, "s")
	c := p.dial(t)
	if err := c.Play("s"); err != nil {
		t.Fatal(err)
	}
	if err := p.balancer.Forget(t.Context(), lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "s"}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := c.NextTag(); err != nil {
			break
		}
	}
	eventually(t, "both sessions ended", func() bool { total, _ := p.router.Counts(); return total == 0 })
	if !strings.Contains(p.log.String(), proxy.ErrForgotten.Error()) {
		t.Errorf("log does not say why:\n%s", p.log)
	}
}

func TestPlayerThatStopsReadingIsCut(t *testing.T) {
	p := start(t, origintest.Script{}, nil)
	pub := p.dial(t)
	if err := pub.Publish("s"); err != nil {
		t.Fatal(err)
	}
	lazy := p.dial(t)
	if err := lazy.Play("s"); err != nil {
		t.Fatal(err)
	}
	frame := mediatest.Tag{Type: mediatest.TypeVideo, Data: append([]byte{0x27, 1, 0, 0, 0}, make([]byte, 1<<20)...)}
	for !strings.Contains(p.log.String(), proxy.ErrSlow.Error()) {
		if err := pub.WriteTag(frame); err != nil {
			t.Fatalf("publisher was hurt: %v", err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestLoopIsRefused(t *testing.T) {
	p := start(t, origintest.Script{}, nil)
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := wire.Connect(conn); err != nil {
		t.Fatal(err)
	}
	c := wire.NewConn(conn, 0)
	connect := wire.Command{Name: "connect", Transaction: 1, Object: wire.Object{Props: []wire.Property{
		{Name: "app", Value: "live"}, {Name: "tcUrl", Value: "rtmp://h/live"}, {Name: proxy.HopProperty, Value: "n0,n1"},
	}}}
	play := wire.Command{Name: "play", Transaction: 2, StreamID: 1, Args: []any{"s"}}
	if err := c.Send(connect.Message(3), play.Message(8)); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := c.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		command, err := wire.ParseCommand(m)
		if err == nil && command.Name == "onStatus" {
			if d := command.Info(0).Text("description"); !strings.Contains(d, "loop") {
				t.Errorf("description = %q; want it to name the loop", d)
			}
			return
		}
	}
}

// Each peer ends by itself, in time, and leaves nothing behind.
func TestBadClientsAreEnded(t *testing.T) {
	p := start(t, origintest.Script{}, nil)
	shaken := func(messages ...*wire.Message) func(net.Conn) {
		return func(conn net.Conn) {
			if wire.Connect(conn) != nil {
				return
			}
			_ = wire.NewConn(conn, time.Second).Send(messages...)
		}
	}
	raw := func(b []byte) func(net.Conn) { return func(conn net.Conn) { _, _ = conn.Write(b) } }
	deep := append(wire.AppendAMF0(nil, "connect", 1.0), bytes.Repeat([]byte{3, 0, 1, 'a'}, 1_000_000)...)
	long := append(wire.AppendAMF0(nil, "connect", 1.0), 12, 0xff, 0xff, 0xff, 0xff)
	connect := wire.Command{Name: "connect", Transaction: 1, Object: wire.Object{Props: []wire.Property{{Name: "app", Value: "live"}}}}
	runtime.GC()
	before := runtime.NumGoroutine()
	for name, act := range map[string]func(net.Conn){
		"silent":               func(net.Conn) {},
		"garbage":              raw(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 1000)),
		"half a handshake":     raw(make([]byte, 1)),
		"half C1":              raw(append([]byte{3}, make([]byte, 700)...)),
		"half F3":              raw([]byte{0xf3, 0}),
		"odd F3":               raw([]byte{0xf3, 0, 5, 1, 2, 3, 4, 5}),
		"silent after C2":      shaken(),
		"deep AMF":             shaken(&wire.Message{Type: wire.TypeCommand, CSID: 3, Body: deep}),
		"string of 4 GB":       shaken(&wire.Message{Type: wire.TypeCommand, CSID: 3, Body: long}),
		"publish unasked":      shaken(wire.Command{Name: "publish", Args: []any{"s"}}.Message(3)),
		"play for nothing":     shaken(connect.Message(3), wire.Command{Name: "play", Transaction: 2, StreamID: 1}.Message(3)),
		"silent after connect": shaken(connect.Message(3)),
		"endless commands":     shaken(repeat(connect.Message(3), 100)...),
	} {
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		act(conn)
		if _, err := io.Copy(io.Discard, conn); err != nil && isTimeout(err) {
			t.Errorf("%s: still connected after %s", name, patience)
		}
		_ = conn.Close()
	}
	eventually(t, "goroutines are back", func() bool { return runtime.NumGoroutine() <= before })
	if total, _ := p.router.Counts(); total != 0 {
		t.Errorf("%d sessions left", total)
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func repeat(m *wire.Message, n int) []*wire.Message {
	list := make([]*wire.Message, n)
	for i := range list {
		list[i] = m
	}
	return list
}

// Bytes that no parser here knows pass as they are.
func TestUnknownCodecsPassUnchanged(t *testing.T) {
	p := start(t, origintest.Script{}, nil)
	pub := p.dial(t)
	if err := pub.Publish("s"); err != nil {
		t.Fatal(err)
	}
	play := p.dial(t)
	if err := play.Play("s"); err != nil {
		t.Fatal(err)
	}
	var sent []mediatest.Tag
	for i, head := range []string{"\x90hvc1", "\x91hvc1", "\xa1av01", "\x96\x10hvc1\x00", "\x95Opus", "\x00"} {
		sent = append(sent, mediatest.Tag{
			Type: mediatest.TypeVideo, Timestamp: uint32(0xfffffff0 + i*8), Data: append([]byte(head), fmt.Sprint("payload", i)...),
		})
	}
	for _, tag := range sent {
		if err := pub.WriteTag(tag); err != nil {
			t.Fatal(err)
		}
	}
	_ = play.SetDeadline(time.Now().Add(patience))
	for _, want := range sent {
		got, err := play.NextTag()
		for err == nil && got.Type == mediatest.TypeData { // the origin's own
			got, err = play.NextTag()
		}
		if err != nil {
			t.Fatal(err)
		}
		if got.Timestamp != want.Timestamp || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("got %d %q; want %d %q", got.Timestamp, got.Data, want.Timestamp, want.Data)
		}
	}
}
