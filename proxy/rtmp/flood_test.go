package rtmp_test

import (
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"srsx/proxy/rtmp"
	"srsx/proxy/rtmp/wire"
	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

// A client that says the same for ever, in one of these ways, is ended with a
// reason; an ordinary one beside it is served.
func TestFloodingClientsAreEnded(t *testing.T) {
	event := func(kind byte) func(*session) { return func(s *session) { s.event(kind, 0) } }
	for name, test := range map[string]struct {
		begin  func(*session) // before it
		repeat func(*session)
		reads  bool
		log    string
	}{
		"commands": {
			begin:  func(s *session) { s.command(3, 0, "connect", 1.0, connectObject()) },
			repeat: func(s *session) { s.command(3, 0, "_checkbw", 0.0, nil) },
			reads:  true, log: "too many commands",
		},
		"long commands": {
			begin:  func(s *session) { s.command(3, 0, "connect", 1.0, connectObject()) },
			repeat: func(s *session) { s.command(3, 0, "custom", 0.0, nil, strings.Repeat("x", 30_000)) },
			reads:  true, log: "are too long",
		},
		"tiny messages":              {repeat: func(s *session) { s.media(0, 0, 4, wire.TypeAudio, nil) }, log: "too many commands"},
		"chunk sizes":                {repeat: func(s *session) { s.SetChunkSize(128) }, log: "read command: "},
		"pings":                      {repeat: event(wire.EventPing), reads: true, log: "read command: "},
		"pings and no ear for pongs": {repeat: event(wire.EventPing), log: "read command: "},
		"starts of other streams": {
			begin:  func(s *session) { s.begin(nil) },
			repeat: func(s *session) { s.command(3, 1, "publish", 0.0, nil, "other") },
			reads:  true, log: "too many starts",
		},
		"streams": {
			begin:  func(s *session) { s.begin(nil) },
			repeat: func(s *session) { s.command(3, 0, "createStream", 9.0, nil) },
			reads:  true, log: "too many streams",
		},
		"pings of a publisher that does not read": {
			begin: func(s *session) { s.begin(nil) }, repeat: event(wire.EventPing), log: "reads too slowly",
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := before(t, func(c *rtmp.Config) { c.SetupTimeout = time.Second }, record(t, nil).origin())
			baseline := proxytest.Measure(t)
			conn := p.raw(t)
			if err := shake(conn); err != nil {
				t.Fatal(err)
			}
			s, flood := newSession(), newSession()
			if test.begin != nil {
				test.begin(s)
			}
			for flood.Len() < 64<<10 {
				test.repeat(flood)
			}
			var reading sync.WaitGroup
			if test.reads {
				reading.Go(func() { awaitEnd(t, conn) })
			}
			_, err := conn.Write(s.Bytes())
			for err == nil {
				_, err = conn.Write(flood.Bytes())
			}
			if isTimeout(err) {
				t.Errorf("still connected after %s", patience)
			}
			_ = conn.Close()
			reading.Wait()
			p.awaitNoSessions(t)
			proxytest.Eventually(t, "log line", func() bool { return p.Log.String() != "" })
			if log := p.Log.String(); strings.Count(log, "\n") != 1 || !strings.Contains(log, test.log) {
				t.Errorf("log is\n%swant one line with %q", log, test.log)
			}
			baseline.Require(t)
		})
	}
}

// Hundreds of connections that mean nothing do not keep a client from its
// stream, and go when their time is over.
func TestManyBadConnectionsHurtNobody(t *testing.T) {
	const connections = 500
	p := start(t, origintest.Script{}, nil)
	baseline := proxytest.Measure(t)
	kinds := [][]byte{nil, []byte("GET / HTTP/1.1\r\n\r\n"), {3}, append([]byte{3}, make([]byte, 1536)...)}
	conns := make([]net.Conn, connections)
	for i := range conns {
		conns[i] = p.raw(t)
		_, _ = conns[i].Write(kinds[i%len(kinds)])
	}
	began := time.Now()
	c := p.dial(t)
	if err := c.Publish("s"); err != nil {
		t.Fatalf("publish meanwhile: %v", err)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("publishing meanwhile took %s", took)
	}
	c.Close()
	for _, conn := range conns {
		awaitEnd(t, conn)
	}
	p.awaitNoSessions(t)
	if refused := strings.Count(p.Log.String(), "client refused"); refused != connections {
		t.Errorf("%d lines say that a client was refused; want one for each of %d", refused, connections)
	}
	baseline.Require(t)
}

// Two hundred publishers come and go at once: nothing of them is left.
func TestManySessionsLeaveNothing(t *testing.T) {
	origin := origintest.Start(t, origintest.Config{})
	p := within(t, patience, patiently, proxytest.StaticOrigin("o", origin.RTMP(), ""))
	baseline := proxytest.Measure(t)
	for round := range 2 {
		var running sync.WaitGroup
		for i := range 100 {
			running.Go(func() {
				c, err := mediatest.Dial(t.Context(), mediatest.Target{Addr: p.addr, TCURL: "rtmp://h/live"})
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				name := string(rune('a'+i%26)) + strings.Repeat("x", i/26)
				if i%2 == round {
					err = c.Publish(name)
				} else {
					err = c.Play(name)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		running.Wait()
		p.awaitNoSessions(t)
	}
	baseline.Require(t)
}
