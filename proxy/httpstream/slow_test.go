package httpstream_test

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"srsx/proxy/httpstream"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

// endless is an origin whose bodies have no end. What is received from done
// tells that a request's connection was let go.
func endless(piece string) (script origintest.Script, done chan string) {
	done = make(chan string, 10)
	return answer(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".m4s") {
			w.Header().Set("Content-Length", strconv.Itoa(1<<40))
		}
		_, _ = io.WriteString(w, "#EXTM3U\n")
		for {
			if _, err := io.WriteString(w, piece); err != nil {
				done <- r.URL.Path
				return
			}
		}
	}), done
}

func TestClientThatDoesNotReadIsCutAndLetsTheOriginGo(t *testing.T) {
	for _, path := range []string{"/live/s.flv", "/live/s-1.m4s", "/live/s.m3u8"} {
		piece := strings.Repeat("seg.ts\n", 1000)
		script, done := endless(piece)
		p := startWith(t, setup{
			origins: []*origintest.Origin{origintest.Start(t, origintest.Config{Script: script})},
			change:  func(c *httpstream.Config) { c.WriteTimeout = time.Second },
		})
		p.place(t, "s")
		before := proxytest.Measure(t)
		conn, reader := p.raw(t, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n")
		if _, err := http.ReadResponse(reader, nil); err != nil { //nolint:bodyclose // ends with the connection
			t.Fatal(err)
		}
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("%s: the origin's connection is held for %s", path, patience)
		}
		proxytest.Eventually(t, "the log tells why the session of "+path+" ended", func() bool {
			return len(p.Log.Lines("session ended", "client reads too slowly")) == 1
		})
		_ = conn.Close()
		before.Require(t)
	}
}

// Only who stops is cut: a client may take as long as it needs for all of it.
func TestClientThatReadsSlowlyButSteadilyGetsAll(t *testing.T) {
	const size, step, timeout = 24 << 20, 1 << 20, 1500 * time.Millisecond
	origin := origintest.Start(t, origintest.Config{Script: answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(size))
		_, _ = w.Write(make([]byte, size))
	})})
	p := startWith(t, setup{origins: []*origintest.Origin{origin}, change: func(c *httpstream.Config) { c.WriteTimeout = timeout }})
	p.place(t, "s")
	conn, reader := p.raw(t, "GET /live/s-1.m4s HTTP/1.1\r\nHost: h\r\n\r\n")
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(256 << 10) // what the kernel takes for us is not what we read
	}
	response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	pace := time.NewTicker(150 * time.Millisecond)
	defer pace.Stop()
	for range size / step {
		<-pace.C
		if _, err = io.CopyN(io.Discard, response.Body, step); err != nil {
			t.Fatalf("after %s: %v; want all %d bytes", time.Since(started), err, size)
		}
	}
	if took := time.Since(started); took < 2*timeout {
		t.Errorf("took %s; want several times the time for one piece", took)
	}
}
