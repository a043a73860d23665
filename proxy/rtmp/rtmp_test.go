package rtmp_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/rtmp/wire"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

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
	proxytest.Eventually(t, "publish reached the origin", func() bool { return len(p.origin.Seen("publish")) == 1 })
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
	proxytest.Eventually(t, "session ended", func() bool { total, _ := p.Router.Counts(); return total == 0 })
	if strings.Contains(p.Log.String(), "secret") {
		t.Errorf("the log tells a token:\n%s", p.Log)
	}
}

func TestMovedStreamEndsItsSessions(t *testing.T) {
	p := start(t, origintest.Script{}, nil)
	p.publish(t, "s")
	c := p.dial(t)
	if err := c.Play("s"); err != nil {
		t.Fatal(err)
	}
	if err := p.Balancer.Forget(t.Context(), lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "s"}); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := c.NextTag(); err != nil {
			break
		}
	}
	proxytest.Eventually(t, "both sessions ended", func() bool { total, _ := p.Router.Counts(); return total == 0 })
	if !strings.Contains(p.Log.String(), proxy.ErrForgotten.Error()) {
		t.Errorf("log does not say why:\n%s", p.Log)
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
