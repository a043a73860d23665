package rtmp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib/pkg/amf0"
	"github.com/bluenviron/gortmplib/pkg/handshake"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/rtmp"
	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

func TestOriginsRefusalReachesTheClient(t *testing.T) {
	connect := &origintest.Status{Code: "NetConnection.Connect.Rejected", Description: "no such vhost"}
	busy := &origintest.Status{Code: "NetStream.Publish.BadName", Description: "stream is busy"}
	missing := &origintest.Status{Code: "NetStream.Play.StreamNotFound", Description: "no such stream"}
	for name, test := range map[string]struct {
		script origintest.Script
		start  func(*mediatest.Client, string) error
		want   *origintest.Status
	}{
		"publish at connect": {origintest.Script{RefuseConnect: connect}, (*mediatest.Client).Publish, connect},
		"play at connect":    {origintest.Script{RefuseConnect: connect}, (*mediatest.Client).Play, connect},
		"publish":            {origintest.Script{RefusePublish: busy}, (*mediatest.Client).Publish, busy},
		"play":               {origintest.Script{RefusePlay: missing}, (*mediatest.Client).Play, missing},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, test.script, nil)
			c := p.dial(t)
			var status *mediatest.StatusError
			if err := test.start(c, "s"); !errors.As(err, &status) {
				t.Fatalf("got %v; want the origin's status", err)
			}
			c.Close() // or the peer would wait a little for it to read
			if status.Code != test.want.Code || status.Description != test.want.Description {
				t.Errorf("got %s; want %s: %s", status, test.want.Code, test.want.Description)
			}
			p.awaitNoSessions(t)
			if log := p.Log.String(); !strings.Contains(log, test.want.Code) || strings.Contains(log, "client done") {
				t.Errorf("the log does not say that the origin refused:\n%s", log)
			}
		})
	}
}

// An encoder may send media before it reads why nobody wants it: closing a
// connection with unread bytes would reset it, and on some systems the status be
// lost.
func TestRefusalIsReadByAnEncoderThatSends(t *testing.T) {
	origin := record(t, func(conn net.Conn, _ string) {
		s := newSession()
		s.command(5, 1, "onStatus", 0.0, nil, amf0.Object{{Key: "level", Value: "error"}, {Key: "code", Value: "NetStream.Publish.BadName"}})
		_, _ = conn.Write(s.Bytes())
		_ = conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // it is what the recorder accepts
	})
	p := within(t, patience, patiently, origin.origin())
	for range 20 {
		conn := p.raw(t)
		if err := shake(conn); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		var sending sync.WaitGroup
		sending.Go(func() { sendPaced(ctx, conn) })
		refused := false
		reader := mediatest.NewChunkReader(conn)
		m, err := reader.Next()
		for ; err == nil; m, err = reader.Next() {
			if command, notOne := m.Command(); notOne == nil {
				code, _ := command.Object(1).GetString("code")
				refused = refused || code == "NetStream.Publish.BadName"
			}
		}
		if !refused || !errors.Is(err, io.EOF) {
			t.Errorf("refusal read: %v, then %v; want it, and an orderly end", refused, err)
		}
		stop()
		sending.Wait()
		tick := time.NewTicker(time.Millisecond)
		for range 20 { // the first after a close would bring the reset
			<-tick.C
			if _, err := conn.Write(make([]byte, 100)); err != nil {
				t.Fatalf("the peer does not wait for the encoder to close: %v", err)
			}
		}
		tick.Stop()
		_ = conn.Close()
	}
}

// sendPaced publishes some megabytes a second until ctx or the connection ends.
func sendPaced(ctx context.Context, conn net.Conn) {
	s, frame := newSession(), newSession()
	s.begin(nil)
	frame.media(0, 0, 6, 9, frame.body(2000, 0x27))
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	_, err := conn.Write(s.Bytes())
	for err == nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_, err = conn.Write(frame.Bytes())
		}
	}
}

func TestBadOriginsGetTheClientAClearRefusal(t *testing.T) {
	reject := func(redirect string) *origintest.Status {
		return &origintest.Status{Code: "NetConnection.Connect.Rejected", Redirect: redirect}
	}
	for name, test := range map[string]struct {
		script origintest.Script
		reason string // what the client reads
	}{
		"dies at accept":       {origintest.Script{DieAt: origintest.AtAccept}, "no origin available"},
		"dies in handshake":    {origintest.Script{DieAt: origintest.AtHandshake}, "no origin available"},
		"silent in handshake":  {origintest.Script{SilentAt: origintest.AtHandshake}, "no origin available"},
		"garbage in handshake": {origintest.Script{GarbageAt: origintest.AtHandshake}, "origin failed"},
		"dies at connect":      {origintest.Script{DieAt: origintest.AtConnect}, "origin failed"},
		"silent at connect":    {origintest.Script{SilentAt: origintest.AtConnect}, "origin failed"},
		"garbage at connect":   {origintest.Script{GarbageAt: origintest.AtConnect}, "origin failed"},
		"silent at stream":     {origintest.Script{SilentAt: origintest.AtStream}, "origin failed"},
		"dies at start":        {origintest.Script{DieAt: origintest.AtStart}, "without a word"},
		"silent at start":      {origintest.Script{SilentAt: origintest.AtStart}, "does not answer"},
		"garbage at start":     {origintest.Script{GarbageAt: origintest.AtStart}, "origin failed"},
		"redirects elsewhere":  {origintest.Script{RefuseConnect: reject("rtmp://127.0.0.1:1/live")}, "no registered origin"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, test.script, nil)
			began := time.Now()
			for verb, start := range map[string]func(*mediatest.Client, string) error{
				"Publish": (*mediatest.Client).Publish, "Play": (*mediatest.Client).Play,
			} {
				c := p.dial(t)
				var status *mediatest.StatusError
				err := start(c, verb)
				c.Close()
				if !errors.As(err, &status) || status.Code != "NetStream.Publish.Rejected" && status.Code != "NetStream.Play.Failed" {
					t.Fatalf("%s = %v; want a refusal", verb, err)
				}
				if !strings.Contains(status.Description, test.reason) {
					t.Errorf("%s: %q; want %q in it", verb, status.Description, test.reason)
				}
				if strings.Contains(status.Error(), p.origin.RTMP()) {
					t.Errorf("%s: %q tells the origin's address", verb, status)
				}
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
			p.awaitNoSessions(t)
		})
	}
}

// hangingUp is an origin that closes in good order once act has returned.
func hangingUp(t *testing.T, act func(net.Conn)) lb.Origin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			act(conn)
			hangUp(conn)
		}
	})
	t.Cleanup(func() { _ = ln.Close(); serving.Wait() })
	return proxytest.StaticOrigin("o", ln.Addr().String(), "")
}

// An origin that hangs up is not a client that was done, and its stream has not
// ended but never begun.
func TestOriginThatHangsUpIsNamed(t *testing.T) {
	accept := func(conn net.Conn) { _, _, _ = handshake.DoServer(conn, false) }
	for name, act := range map[string]func(net.Conn){
		"at accept":    func(net.Conn) {},
		"in handshake": func(conn net.Conn) { _, _ = conn.Write([]byte{3, 0, 0}) },
		"at connect":   accept,
		"at createStream": func(conn net.Conn) {
			accept(conn)
			_ = mediatest.NewConn(conn).WriteCommand(false, "_result", 1.0, amf0.Object{}, amf0.Object{})
		},
		"in a message": func(conn net.Conn) {
			accept(conn)
			_, _ = conn.Write([]byte{4, 0, 0, 0, 0, 0, 9, 20, 0, 0, 0, 0, 2, 0})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := before(t, nil, hangingUp(t, act))
			c := p.dial(t)
			var status *mediatest.StatusError
			if err := c.Play("s"); !errors.As(err, &status) || status.Code != "NetStream.Play.Failed" {
				t.Errorf("Play = %v; want NetStream.Play.Failed", err)
			}
			c.Close()
			p.awaitNoSessions(t)
			if log := p.Log.String(); !strings.Contains(log, "origin closed the connection without a word") {
				t.Errorf("the log does not say that the origin hung up:\n%s", log)
			}
		})
	}
}

// An origin that takes connections and then hangs is as good as dead: a stream
// that was just placed there goes elsewhere.
func TestStreamGoesElsewhereWhenItsOriginHangs(t *testing.T) {
	for _, script := range []origintest.Script{{SilentAt: origintest.AtHandshake}, {DieAt: origintest.AtAccept}} {
		good, bad := origintest.Start(t, origintest.Config{}), origintest.Start(t, origintest.Config{Script: script})
		p := before(t, nil, proxytest.StaticOrigin("a", bad.RTMP(), ""), proxytest.StaticOrigin("b", good.RTMP(), ""))
		for _, name := range []string{"1", "2", "3", "4"} {
			p.publish(t, name)
			if !good.Publishing("live/" + name) {
				t.Errorf("%s is not at the origin that answers", name)
			}
		}
	}
}

func TestRedirectToARegisteredOriginIsFollowed(t *testing.T) {
	first, second := origintest.Start(t, origintest.Config{}), origintest.Start(t, origintest.Config{})
	redirect := func(to *origintest.Origin) origintest.Script {
		return origintest.Script{RefuseConnect: &origintest.Status{Code: "NetConnection.Connect.Rejected", Redirect: "rtmp://" + to.RTMP() + "/live"}}
	}
	first.Behave(redirect(second))
	a, b := proxytest.StaticOrigin("a", first.RTMP(), ""), proxytest.StaticOrigin("b", second.RTMP(), "")
	b.State = lb.Down // nothing is placed there
	p := before(t, nil, a)
	p2 := before(t, func(c *rtmp.Config) {
		c.Opener = p.Router
		c.Registered = func(addr string) (lb.Origin, bool) { return b, addr == second.RTMP() }
		c.TellClient = func(o lb.Origin) bool { return o.ID == "b" }
	})
	p2.publish(t, "s")
	if !second.Publishing("live/s") {
		t.Error("the redirect was not followed")
	}
	if client := second.Seen("publish")[0].Client; client.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("the second origin was told of %v; want the client's address", client)
	}
	if client := first.Seen("connect")[0].Client; client.IsValid() {
		t.Errorf("the first origin was told of %v; want nothing", client)
	}

	second.Behave(redirect(second))
	var status *mediatest.StatusError
	if err := p2.dial(t).Publish("t"); !errors.As(err, &status) || !strings.Contains(status.Description, "circle") {
		t.Errorf("Publish in a circle of redirects = %v; want a refusal that says so", err)
	}
}

func TestClientsAddressIsTakenFromTrustedProxies(t *testing.T) {
	trusted, err := proxy.ParseNetworks("127.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	tell := func(lb.Origin) bool { return true }
	for name, test := range map[string]struct {
		trusted proxy.Networks
		prefix  []byte
		want    string
	}{
		"IPv4":      {trusted, []byte{0xf3, 0, 4, 203, 0, 113, 7}, "203.0.113.7"},
		"IPv6":      {trusted, append([]byte{0xf3, 0, 16}, netip.MustParseAddr("2001:db8::7").AsSlice()...), "2001:db8::7"},
		"untrusted": {nil, []byte{0xf3, 0, 4, 203, 0, 113, 7}, "127.0.0.1"},
		"none":      {trusted, nil, "127.0.0.1"},
	} {
		p := start(t, origintest.Script{}, func(c *rtmp.Config) { c.Trusted, c.TellClient = test.trusted, tell })
		c, err := mediatest.Dial(t.Context(), mediatest.Target{Addr: p.addr, TCURL: "rtmp://h/live", Prefix: test.prefix})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := c.Publish("s"); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := netip.MustParseAddr(test.want)
		if got := p.Router.Sessions()[0].Client.Addr(); got != want {
			t.Errorf("%s: the session's client is %v; want %v", name, got, want)
		}
		if got := p.origin.Seen("publish")[0].Client.Addr(); got != want {
			t.Errorf("%s: the origin was told of %v; want %v", name, got, want)
		}
		c.Close()
	}
}

func TestEndOfTheStreamIsToldToItsPlayers(t *testing.T) {
	for name, script := range map[string]func(*session){
		"by the origin": func(s *session) { s.status("NetStream.Play.UnpublishNotify") },
		"by the peer":   func(*session) {},
	} {
		t.Run(name, func(t *testing.T) {
			origin := record(t, func(conn net.Conn, _ string) {
				s := newSession()
				s.status("NetStream.Play.Start")
				s.media(0, 0, 6, 9, s.body(100, 0x17))
				script(s)
				_, _ = conn.Write(s.Bytes())
				_ = conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // it is what the recorder accepts
			})
			p := before(t, nil, origin.origin())
			c := p.dial(t)
			if err := c.Play("s"); err != nil {
				t.Fatal(err)
			}
			if _, err := c.NextTag(); err != nil {
				t.Fatalf("the frame before the end: %v", err)
			}
			if _, err := c.NextTag(); !errors.Is(err, io.EOF) { // what the client makes of UnpublishNotify
				t.Errorf("the end is %v; want UnpublishNotify", err)
			}
			if m, err := c.ReadMessage(); err == nil {
				t.Errorf("after the end came a message of type %d", m.Type)
			}
			c.Close()
			p.awaitNoSessions(t)
			if log := p.Log.String(); !strings.Contains(log, "origin ended the stream") {
				t.Errorf("the log does not say who ended it:\n%s", log)
			}
		})
	}
}
