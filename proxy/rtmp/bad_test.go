package rtmp_test

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib/pkg/amf0"

	"srsx/proxy"
	"srsx/proxy/rtmp"
	"srsx/proxy/rtmp/wire"
	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

// impatient shortens what the tests of bad peers wait for.
func impatient(c *rtmp.Config) {
	c.SetupTimeout, c.IdleTimeout = 900*time.Millisecond, idleTimeout
}

const idleTimeout = 400 * time.Millisecond // of impatient peers

// await reads and throws away until the other side ends the connection.
func awaitEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
		t.Errorf("still connected after %s", patience)
	}
	_ = conn.Close()
}

// badClients is what clients do that mean no good or cannot do better, and what
// the one log line about each says.
func badClients() map[string]struct {
	act func(*testing.T, net.Conn)
	log string
} {
	const connectFirst = "connect"
	raw := func(b []byte) func(*testing.T, net.Conn) {
		return func(_ *testing.T, conn net.Conn) { _, _ = conn.Write(b) }
	}
	// shaken does the handshake, and when asked publishes, before it sends b.
	shaken := func(first string, b []byte) func(*testing.T, net.Conn) {
		s := newSession()
		switch first {
		case connectFirst:
			s.command(3, 0, "connect", 1.0, connectObject())
		case "publish":
			s.begin(nil)
		}
		s.Write(b)
		return func(t *testing.T, conn net.Conn) {
			t.Helper()
			if err := shake(conn); err != nil {
				t.Fatal(err)
			}
			_, _ = conn.Write(s.Bytes())
		}
	}
	commandOf := func(values []byte) []byte {
		s := newSession()
		s.Send(0, 0, mediatest.Message{CSID: 3, Type: wire.TypeCommand, Body: values})
		return s.Bytes()
	}
	connect := amf("connect", 1.0)
	deep := func(levels int) []byte {
		return commandOf(append(bytes.Clone(connect), bytes.Repeat([]byte{3, 0, 1, 'a'}, levels)...))
	}
	chunkSize := func(n uint32) []byte { s := newSession(); s.SetChunkSize(n); return s.Bytes() }
	announced := []byte{6, 0, 0, 0, 0xff, 0xff, 0xff, wire.TypeVideo, 1, 0, 0, 0, 0x17}
	streams := newSession()
	for csid := uint32(3); csid <= 65599; csid++ {
		streams.Start(0, 0, mediatest.Message{CSID: csid, Type: wire.TypeVideo, StreamID: 1, Body: make([]byte, 129)})
	}
	return map[string]struct {
		act func(*testing.T, net.Conn)
		log string
	}{
		"silence":               {func(*testing.T, net.Conn) {}, "read first byte: "},
		"another protocol":      {raw(bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 1000)), "not RTMP"},
		"silence after C0":      {raw([]byte{3}), "read C1: "},
		"half C1":               {raw(append([]byte{3}, make([]byte, 700)...)), "read C1: "},
		"silence after C1":      {raw(append([]byte{3}, make([]byte, 1536)...)), "read C2: "},
		"half C2":               {raw(append([]byte{3}, make([]byte, 2*1536-100)...)), "read C2: "},
		"half F3":               {raw([]byte{0xf3, 0}), "read client address: "},
		"F3 of an odd length":   {raw([]byte{0xf3, 0, 5, 1, 2, 3, 4, 5}), "not 4 or 16 bytes"},
		"silence after C2":      {shaken("", nil), "read command: "},
		"silence after connect": {shaken(connectFirst, nil), "read command: "},
		"silence after createStream": {
			shaken(connectFirst, commandOf(amf("createStream", 2.0, nil))), "read command: ",
		},
		"silence after publish": {shaken("publish", nil), "publisher sends nothing"},
		"garbage after C2":      {shaken("", bytes.Repeat([]byte{0xa5}, 5000)), "without a full header"},
		"garbage after publish": {shaken("publish", bytes.Repeat([]byte{0xa5}, 5000)), "without a full header"},
		"half a message":        {shaken("publish", announced), "publisher sends nothing"},
		"a command of 16 MB":    {shaken(connectFirst, announced), "too large"},
		"65,597 chunk streams":  {shaken("publish", streams.Bytes()), "too many chunk streams"},
		"a message within one": {
			shaken("publish", append([]byte{4, 0, 0, 0, 0, 1, 0, 9, 1, 0, 0, 0}, append(make([]byte, 128), 4, 0, 0, 0)...)), "before the last one",
		},
		"AMF nested a million deep":    {shaken("", deep(1_000_000)), "too large"},
		"AMF nested ten thousand deep": {shaken("", deep(10_000)), "nested too deeply"},
		"a string of 4 GB":             {shaken("", commandOf(append(bytes.Clone(connect), 12, 0xff, 0xff, 0xff, 0xff))), "cut short"},
		"no AMF":                       {shaken("", commandOf([]byte{0xee, 1, 2})), "marker is not known"},
		"no command at all":            {shaken("", commandOf(nil)), "cut short"},
		"chunks of 0 bytes":            {shaken("", chunkSize(0)), "chunk size out of range: 0"},
		"chunks of 2^31 bytes":         {shaken("publish", chunkSize(1<<31)), "chunk size out of range: 2147483648"},
		"publish before connect":       {shaken("", commandOf(amf("publish", 1.0, nil, "s"))), "before connect"},
		"connect to nothing":           {shaken("", commandOf(amf("connect", 1.0, nil))), "connect names no app"},
		"publish of nothing":           {shaken(connectFirst, commandOf(amf("publish", 2.0, nil))), "not a stream name"},
		"play of nothing":              {shaken(connectFirst, commandOf(amf("play", 2.0, nil, ""))), "not a stream name"},
		"play of a control byte":       {shaken(connectFirst, commandOf(amf("play", 2.0, nil, "a\nb"))), "control byte"},
		"play of a path":               {shaken(connectFirst, commandOf(amf("play", 2.0, nil, "../../etc/passwd"))), "dots"},
		"play of a long name":          {shaken(connectFirst, commandOf(amf("play", 2.0, nil, strings.Repeat("x", 9000)))), "longer than"},
	}
}

// Each ends by itself and in time, with one line that says why, and leaves
// nothing behind.
func TestBadClientsAreEnded(t *testing.T) {
	p := start(t, origintest.Script{}, impatient)
	baseline := proxytest.Measure(t)
	for name, bad := range badClients() {
		t.Run(name, func(t *testing.T) {
			ownBaseline := proxytest.Measure(t)
			before := len(p.Log.String())
			conn := p.raw(t)
			bad.act(t, conn)
			awaitEnd(t, conn)
			p.awaitNoSessions(t)
			var lines []string
			proxytest.Eventually(t, "log line", func() bool {
				lines = strings.Split(strings.TrimSpace(p.Log.String()[before:]), "\n")
				return lines[0] != ""
			})
			if len(lines) != 1 || !strings.Contains(lines[0], bad.log) {
				t.Errorf("log is\n%s\nwant one line with %q", strings.Join(lines, "\n"), bad.log)
			}
			ownBaseline.Require(t)
		})
	}
	baseline.Require(t)
	p.publish(t, "good") // nothing else was touched
}

// trickle sends bytes one by one, each before a deadline for it could pass.
func trickle(conn net.Conn, b []byte) {
	for i := range b {
		if _, err := conn.Write(b[i : i+1]); err != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A deadline is for a step, not for each byte of it.
func TestTricklingClientsAreEnded(t *testing.T) {
	p := start(t, origintest.Script{}, impatient)
	connect := newSession()
	connect.command(3, 0, "connect", 1.0, connectObject())
	for name, act := range map[string]func(net.Conn){
		"handshake": func(conn net.Conn) { trickle(conn, append([]byte{3}, make([]byte, 1536)...)) },
		"command":   func(conn net.Conn) { trickle(conn, connect.Bytes()) },
		"commands": func(conn net.Conn) { // each in time, and never publish
			for {
				if _, err := conn.Write(connect.Bytes()); err != nil {
					return
				}
				time.Sleep(100 * time.Millisecond)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn := p.raw(t)
			if name != "handshake" {
				if err := shake(conn); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			var acting sync.WaitGroup
			acting.Go(func() { act(conn) })
			awaitEnd(t, conn)
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("held for %s", took)
			}
			acting.Wait()
		})
	}
}

func connectObject() amf0.Object {
	return amf0.Object{{Key: "app", Value: "live"}, {Key: "tcUrl", Value: "rtmp://h/live"}}
}

// A player that stops reading gets what the sockets hold and no more, and loses
// its place; nobody else is hurt.
func TestPlayerThatStopsReadingIsCut(t *testing.T) {
	sent := make(chan int, 1)
	origin := record(t, func(conn net.Conn, _ string) {
		s := newSession()
		s.status("NetStream.Play.Start")
		frame := newSession()
		frame.SetChunkSize(1 << 20)
		frame.media(0, 0, 6, wire.TypeVideo, frame.body(1<<20, 0x27))
		total := 0
		_, err := conn.Write(s.Bytes())
		for err == nil {
			var n int
			n, err = conn.Write(frame.Bytes())
			total += n
		}
		sent <- total
	})
	p := within(t, patience, func(c *rtmp.Config) { c.StepTimeout = patience }, origin.origin())
	baseline := proxytest.Measure(t)
	lazy := p.talk(t)
	say(t, lazy, connectCommand(), command("createStream", 2, 0), command("play", 3, 1, "s"))
	proxytest.Eventually(t, "the player was cut", func() bool { return strings.Contains(p.Log.String(), proxy.ErrSlow.Error()) })
	const sockets = 32 << 20 // bytes: four buffers of the kernel, and one frame on its way
	if total := <-sent; total > sockets {
		t.Errorf("the origin got rid of %d bytes; want no more than sockets hold", total)
	}
	_ = lazy.Close()
	p.awaitNoSessions(t)
	baseline.Require(t)
}

// An origin that stops reading is the one to blame, not its publisher.
func TestOriginThatStopsReadingIsNamed(t *testing.T) {
	release := make(chan struct{})
	origin := record(t, func(conn net.Conn, _ string) {
		s := newSession()
		s.status("NetStream.Publish.Start")
		_, _ = conn.Write(s.Bytes())
		<-release
		_ = conn.Close()
	})
	defer close(release)
	p := within(t, patience, func(c *rtmp.Config) { c.StepTimeout = patience }, origin.origin())
	c := p.dial(t)
	if err := c.Publish("s"); err != nil {
		t.Fatal(err)
	}
	frame := mediatest.Tag{Type: mediatest.TypeVideo, Data: append([]byte{0x27}, make([]byte, 1<<20)...)}
	for c.WriteTag(frame) == nil { // until the peer gives up
	}
	c.Close()
	p.awaitNoSessions(t)
	if log := p.Log.String(); !strings.Contains(log, "write to origin: ") {
		t.Errorf("the log does not name the origin:\n%s", log)
	}
}
