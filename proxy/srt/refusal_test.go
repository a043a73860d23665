package srt_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"srsx/proxy"
	"srsx/proxy/srt"
	"srsx/proxy/srt/wire"
	"srsx/test/proxytest"
)

func TestCallersLearnWhyTheyAreRefused(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	for name, test := range map[string]struct {
		streamID string
		change   func(p []byte) []byte
		want     wire.Reason
	}{
		"version 4":              {"live/cam", func(p []byte) []byte { p[19] = 4; return p }, wire.OldVersion},
		"no stream id":           {"", nil, wire.BadRequest},
		"no name":                {"#!::m=publish", nil, wire.BadRequest},
		"only slashes":           {"//", nil, wire.BadRequest},
		"dots":                   {"live/../cam", nil, wire.BadRequest},
		"control byte":           {"live/c\nam", nil, wire.BadRequest},
		"zero byte":              {"live/c\x00am", nil, wire.BadRequest},
		"unknown form":           {"#!:{r=live/cam}", nil, wire.BadRequest},
		"mode of both ways":      {"#!::r=live/cam,m=bidirectional", nil, wire.BadMode},
		"extension cut short":    {"live/cam", func(p []byte) []byte { return p[:len(p)-4] }, wire.Rogue},
		"bytes behind":           {"live/cam", func(p []byte) []byte { return append(p, 0) }, wire.Rogue},
		"extension of any size":  {"live/cam", func(p []byte) []byte { return append(p, 0, 5, 0xFF, 0xFF) }, wire.Rogue},
		"two bytes of extension": {"live/cam", func(p []byte) []byte { return append(p, 0, 5) }, wire.Rogue},
		"stream id too long":     {"live/" + strings.Repeat("x", 508), nil, wire.Rogue},
	} {
		t.Run(name, func(t *testing.T) {
			c := call(t, s.addr, 7)
			p := c.conclusion(c.induce(), test.streamID)
			if test.change != nil {
				p = test.change(p)
			}
			c.send(p)
			h, answer := c.await()
			if reason := c.rejected(h); reason != test.want {
				t.Errorf("refused for %s; want %s", reason, test.want)
			}
			if len(answer) > len(p) {
				t.Errorf("%d bytes are answered by %d", len(p), len(answer))
			}
		})
	}
	if len(o.asked) > 0 {
		t.Error("the origin was asked")
	}
	if log := s.Log.String(); !strings.Contains(log, "client refused") || !strings.Contains(log, "kind=srt") {
		t.Error("the log does not tell of refusals")
	}
}

func TestRendezvousIsRefused(t *testing.T) {
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{})
	for _, kind := range []wire.Kind{wire.Wave, wire.Agreement, wire.Done} {
		c := call(t, s.addr, 7)
		c.send(c.hello(kind, 0).Append(nil))
		h, _ := c.await()
		if reason := c.rejected(h); reason != wire.Unimplemented {
			t.Errorf("kind %#x was refused for %s; want %s", uint32(kind), reason, wire.Unimplemented)
		}
	}
}

func TestNoOriginIsSaidWhileTheCallerListens(t *testing.T) {
	s := serve(t, "", proxy.RouterConfig{PlaceTimeout: time.Minute}, srt.Config{})
	c := call(t, s.addr, 7)
	cookie, started := c.induce(), time.Now()
	c.send(c.conclusion(cookie, "live/cam"))
	h, _ := c.await()
	if reason := c.rejected(h); reason != wire.Down {
		t.Errorf("refused for %s; want %s", reason, wire.Down)
	}
	if waited := time.Since(started); waited > soon {
		t.Errorf("refused after %v; callers give up after 3 s", waited)
	}
}

func TestPeerThatShutsDownSaysSo(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	c := call(t, s.addr, 7).connect("live/cam")
	s.Router.Close()
	if reason := c.rejected(call(t, s.addr, 8).ask("live/cam")); reason != wire.Down {
		t.Errorf("refused for %s; want %s", reason, wire.Down)
	}
	requirePasses(t, c, o)
}

func TestLimitOfSessionsIsOverload(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{Limits: proxy.Limits{Sessions: 1}}, srt.Config{}, o)
	call(t, s.addr, 7).connect("live/cam")
	if reason := call(t, s.addr, 8); reason.rejected(reason.ask("live/cam")) != wire.Overload {
		t.Error("the second session was not refused as overload")
	}
}

func TestOriginsReasonReachesTheCaller(t *testing.T) {
	for _, kind := range []wire.Kind{1000, 1002, 1010, 1403, 2409, 3077} {
		o := startOrigin(t, script{reject: kind})
		s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
		c := call(t, s.addr, 7)
		if h := c.ask("live/cam"); h.Kind != kind {
			t.Errorf("caller was told %d; want the origin's %d", h.Kind, kind)
		}
		if s.Sessions() != 0 || len(s.Router.Ejected()) != 0 {
			t.Errorf("%d sessions, %v ejected; want none: the origin lives", s.Sessions(), s.Router.Ejected())
		}
		// A late copy is answered alike, and not by asking again.
		c.send(c.conclusion(c.induce(), "live/cam"))
		if h, _ := c.await(); h.Kind != kind || len(o.asked) != 1 {
			t.Errorf("a copy was told %d, the origin asked %d times; want %d and once", h.Kind, len(o.asked), kind)
		}
	}
}

func TestConclusionWithoutProofIsNotAnswered(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	c := call(t, s.addr, 7)
	cookie := c.induce()
	for name, p := range map[string][]byte{
		"none":              c.conclusion(0, "live/cam"),
		"forged":            c.conclusion(cookie+1, "live/cam"),
		"of another socket": c.other(8).conclusion(cookie, "live/cam"),
	} {
		c.send(p)
		c.requireQuiet("a conclusion with a cookie: " + name)
	}
	stranger := call(t, s.addr, 7)
	stranger.send(stranger.conclusion(cookie, "live/cam"))
	stranger.requireQuiet("a conclusion with the cookie of another address")
	if got := s.dropped(t, "cookie"); got != 4 {
		t.Errorf("%d dropped for their cookie; want 4", got)
	}
	if s.Sessions() != 0 || len(o.asked) != 0 {
		t.Error("one of them got further")
	}
	c.send(c.conclusion(cookie, "live/cam"))
	if h, _ := c.await(); h.Kind != wire.Conclusion {
		t.Errorf("with the right one: %+v", h)
	}
}

func TestHalfOpenHandshakesAreLimitedPerAddressAndInAll(t *testing.T) {
	o := startOrigin(t, script{hangs: true})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{HalfOpen: 5, HalfOpenPerClient: 3, Patience: time.Second}, o)
	second := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), s.addr.Port())
	open := func(from string, n uint32) (reasons int) {
		t.Helper()
		for id := range n {
			conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.ParseIP(from)}, net.UDPAddrFromAddrPort(second))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close() })
			c := &testCaller{udp: udp{t, conn}, id: 1 + id}
			c.send(c.conclusion(c.induce(), "live/cam"))
			if p, _ := c.next(quiet); p != nil {
				if h, err := wire.ParseHandshake(p); err != nil || c.rejected(h) != wire.Backlog {
					t.Errorf("refused by %x; want the backlog for a reason", p)
				}
				reasons++
			}
		}
		return reasons
	}
	if refused := open("127.0.0.1", 5); refused != 2 {
		t.Errorf("one address: %d of 5 refused; want 2", refused)
	}
	if refused := open("127.0.0.2", 3); refused != 1 {
		t.Errorf("in all: %d of 3 more refused; want 1", refused)
	}
	if got := s.count(t, "srsx_srt_half_open", ""); got != 5 {
		t.Errorf("%v are half-open; want 5", got)
	}
	proxytest.Eventually(t, "they end", func() bool { return s.count(t, "srsx_srt_half_open", "") == 0 && s.Sessions() == 0 })
	o.behave(script{})
	call(t, s.addr, 77).connect("live/cam")
}

// What an address that proved nothing sends is answered by no more bytes.
func TestNoAnswerIsLongerThanItsQuestion(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	connected := call(t, s.addr, 7).connect("live/cam")
	c := call(t, s.addr, 8)
	var questions [][]byte
	for _, kind := range []wire.Kind{wire.Wave, wire.Induction, wire.Conclusion, wire.Agreement, wire.Done, 5, 999, 1000, 1004, 2403} {
		whole := c.hello(kind, 1).Append(nil)
		questions = append(questions, whole, append(whole, make([]byte, 400)...), whole[:63], whole[:17], whole[:16])
	}
	questions = append(questions, nil, []byte{0}, make([]byte, 15), make([]byte, 16), make([]byte, 1400),
		wire.AppendShutdown(nil, 0), wire.AppendShutdown(nil, connected.peer), data(connected.peer, 1, make([]byte, 1000)...))
	sent, answered := 0, 0
	for _, q := range questions {
		c.send(q)
		sent += len(q)
		if len(q) < 64 {
			continue // see below
		}
		for p, _ := c.next(20 * time.Millisecond); p != nil; p, _ = c.next(20 * time.Millisecond) {
			answered += len(p)
			if len(p) > len(q) {
				t.Errorf("%x is answered by %x", q, p)
			}
		}
	}
	c.requireQuiet("something shorter than a handshake")
	if answered == 0 || answered > sent {
		t.Errorf("%d bytes were answered by %d; want some, and no more", sent, answered)
	}
	requirePasses(t, connected, o)
}

func TestPacketFromAnotherAddressIsDroppedAndCounted(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	c := call(t, s.addr, 7).connect("live/cam")
	stranger := call(t, s.addr, 8)
	stranger.send(data(c.peer, 1, 'x'))
	stranger.send(wire.AppendShutdown(nil, c.peer))
	stranger.send(data(c.peer+1, 1, 'x'))
	stranger.requireQuiet("a packet for a flow of another address")
	if foreign, unknown := s.dropped(t, "foreign_address"), s.dropped(t, "unknown_id"); foreign != 2 || unknown != 1 {
		t.Errorf("%d dropped for their address, %d for their id; want 2 and 1", foreign, unknown)
	}
	requirePasses(t, c, o)
	// Nor does a stranger get between an origin and a client.
	from := o.conclusion().from
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(from))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if _, err = conn.Write(data(c.id, 1, 'x')); err != nil {
		t.Fatal(err)
	}
	c.requireQuiet("a packet to the socket towards the origin")
}

func TestLateCopiesAreAnsweredAlikeAndStartNothing(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	c := call(t, s.addr, 7)
	p := c.conclusion(c.induce(), "live/cam")
	c.send(p)
	h, first := c.await()
	c.peer = h.SocketID
	time.Sleep(50 * time.Millisecond) // the copy's timestamp has to tell
	c.send(p)
	_, again := c.await()
	before, after := binary.BigEndian.Uint32(first[8:]), binary.BigEndian.Uint32(again[8:])
	if after-before < 50_000 || after-before > 5_000_000 {
		t.Errorf("a later copy has the timestamp %d; want some 50 ms after %d", after, before)
	}
	copy(again[8:12], first[8:12])
	if string(again) != string(first) {
		t.Errorf("copy answered by\n%x; want\n%x", again, first)
	}
	// One with other numbers is another handshake, by somebody who has the cookie.
	other := &testCaller{udp: c.udp, id: c.id, first: c.first + 1}
	other.send(other.conclusion(c.induce(), "live/cam"))
	c.requireQuiet("another handshake of a connected socket")
	if s.Sessions() != 1 || len(o.asked) != 1 {
		t.Errorf("%d sessions, the origin asked %d times; want one each", s.Sessions(), len(o.asked))
	}
	requirePasses(t, c, o)
	c.send(wire.AppendShutdown(nil, c.peer))
	proxytest.Eventually(t, "the session ends", func() bool { return s.Sessions() == 0 })
	c.send(p)
	c.requireQuiet("a copy that comes after the end")
	if len(o.asked) != 1 {
		t.Error("it began anew")
	}
}
