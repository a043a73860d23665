package devorigin

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"srsx/proxy/rtmp/wire"
	"srsx/test/mediatest"
	"srsx/test/proxytest"
)

// short makes the tests of bad clients quick.
func short(p *patience) {
	*p = patience{step: 300 * time.Millisecond, idle: 300 * time.Millisecond, write: 500 * time.Millisecond}
}

func (r *running) raw(t *testing.T, addr string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(proxytest.Patience))
	return conn
}

// awaitEnd takes what comes until the origin ends the connection.
func awaitEnd(t *testing.T, conn net.Conn) {
	t.Helper()
	var timeout net.Error
	if _, err := io.Copy(io.Discard, conn); errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("still connected after %s", proxytest.Patience)
	}
	_ = conn.Close()
}

func connect() wire.Command {
	return wire.Command{Name: "connect", Transaction: 1, Object: wire.Object{Props: []wire.Property{{Name: "app", Value: "live"}}}}
}

func TestBadClientsAreEnded(t *testing.T) {
	r := serve(t, short)
	proxytest.Eventually(t, "the clip is published", func() bool { return r.hub.Published(clipName) })
	sends := func(b []byte) func(net.Conn) { return func(conn net.Conn) { _, _ = conn.Write(b) } }
	says := func(commands ...wire.Command) func(net.Conn) {
		return func(conn net.Conn) {
			if wire.Connect(conn) != nil {
				return
			}
			c := wire.NewConn(conn, time.Second)
			for _, command := range commands {
				_ = c.Send(command.Message(wire.CSIDCommand))
			}
		}
	}
	publish := wire.Command{Name: "publish", Transaction: 2, StreamID: 1, Args: []any{"bad"}}
	for name, act := range map[string]func(net.Conn){
		"silence":               func(net.Conn) {},
		"another protocol":      sends([]byte("GET / HTTP/1.1\r\n\r\n")),
		"half a handshake":      sends(append([]byte{3}, make([]byte, 800)...)),
		"silence after C2":      says(),
		"silence after connect": says(connect()),
		"silence after publish": says(connect(), publish),
		"publish twice":         says(connect(), publish, publish),
		"garbage": func(conn net.Conn) {
			says(connect())(conn)
			_, _ = conn.Write(bytes.Repeat([]byte{0xa5}, 10_000))
		},
		"a byte at a time": func(conn net.Conn) {
			for _, err := conn.Write([]byte{3}); err == nil; _, err = conn.Write([]byte{0}) {
				time.Sleep(10 * time.Millisecond)
			}
		},
		"endless commands": func(conn net.Conn) {
			says(connect())(conn)
			c := wire.NewConn(conn, time.Second)
			for c.Send((wire.Command{Name: "anything"}).Message(3)) == nil { // until it is ended
			}
		},
		"a command of 16 MB": func(conn net.Conn) {
			says(connect())(conn)
			_, _ = conn.Write([]byte{4, 0, 0, 0, 0xff, 0xff, 0xff, wire.TypeCommand, 0, 0, 0, 0})
		},
	} {
		t.Run(name, func(t *testing.T) {
			baseline := proxytest.Measure(t)
			conn := r.raw(t, r.rtmp)
			act(conn)
			awaitEnd(t, conn)
			proxytest.Eventually(t, "the stream is free", func() bool { return !r.hub.Published("live/bad") })
			baseline.Require(t)
		})
	}
	r.publish(t, "good")
}

// A viewer that does not read is cut, by RTMP and by HTTP; another reads on.
func TestViewersThatDoNotReadAreCut(t *testing.T) {
	r := serve(t, func(p *patience) { p.write = 500 * time.Millisecond })
	pub := r.dial(t, "live")
	if err := pub.Publish("s"); err != nil {
		t.Fatal(err)
	}
	good := r.dial(t, "live")
	if err := good.Play("s"); err != nil {
		t.Fatal(err)
	}
	baseline := proxytest.Measure(t)
	lazy := r.dial(t, "live")
	if err := lazy.Play("s"); err != nil {
		t.Fatal(err)
	}
	web := r.raw(t, r.http)
	if _, err := io.WriteString(web, "GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	kinds := []byte{0x17, 0x27}
	frames := 0
	proxytest.Eventually(t, "both are cut", func() bool {
		tag := mediatest.Tag{Type: mediatest.TypeVideo, Timestamp: uint32(frames * 40), Data: append([]byte{kinds[frames%2], 1}, make([]byte, 100<<10)...)}
		if err := pub.WriteTag(tag); err != nil {
			t.Fatalf("the publisher was hurt: %v", err)
		}
		frames++
		for {
			got, err := good.NextTag()
			if err != nil {
				t.Fatalf("the viewer that reads was hurt: %v", err)
			}
			if got.Type == mediatest.TypeVideo {
				if got.Timestamp != tag.Timestamp {
					t.Fatalf("it got the frame of %d ms; want that of %d", got.Timestamp, tag.Timestamp)
				}
				break
			}
		}
		return runtime.NumGoroutine() <= baseline.Goroutines
	})
	lazy.Close()
	_ = web.Close()
	baseline.Require(t)
}

// HLS that nobody asks for any more, and clients that hang up, leave nothing.
func TestClientsThatLeaveLeaveNothing(t *testing.T) {
	r := serve(t, nil)
	stop := r.publish(t, "s")
	baseline := proxytest.Measure(t)
	for range 20 {
		for _, path := range []string{"/live/s.flv", "/live/s.ts"} {
			response, err := r.client.Get("http://" + r.http + path)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.CopyN(io.Discard, response.Body, 100)
			_ = response.Body.Close()
		}
		c := r.dial(t, "live")
		if err := c.Play("s"); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	baseline.Require(t)
	if r.text(t, "/live/s.m3u8") == "" {
		t.Error("no playlist")
	}
	stop() // ends the segmenter
	proxytest.Eventually(t, "segmenter gone", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.hls) == 0
	})
}
