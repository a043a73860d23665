package httpstream_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"srsx/lb"
	"srsx/proxy/httpstream"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

// says is an origin that answers each request with the same bytes and then
// closes, or stays silent until the peer does.
func says(text string, silent bool) origintest.Script { //nolint:revive // two kinds of end
	return answer(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, text)
		if silent {
			_, _ = io.Copy(io.Discard, conn)
		}
	})
}

func TestBadOriginsBecomeOneClearError(t *testing.T) {
	const ok, broken = 200, -1 // broken: a 200 whose body breaks off
	head := "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
	half := head + "#EXTM3U\n#EXTINF:1,\ns-1.ts\n"
	for name, c := range map[string]struct {
		script                  origintest.Script
		live, segment, playlist int // statuses
	}{
		"never answers":         {says("", true), 504, 504, 504},
		"closes":                {says("", false), 502, 502, 502},
		"half a header, closes": {says("HTTP/1.1 200", false), 502, 502, 502},
		"half a header, silent": {says("HTTP/1.1 200 OK\r\nA: b", true), 504, 504, 504},
		"garbage":               {says("\x00\x01\x02 nonsense\r\n\r\n", false), 502, 502, 502},
		"an endless header":     {says("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<20), true), 502, 502, 502},
		"status 000":            {says("HTTP/1.1 000 No\r\n\r\n", false), 502, 502, 502},
		"status 999":            {says("HTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n", false), 502, 502, 502},
		"other protocols":       {says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", false), 502, 502, 502},
		"only preliminaries":    {says(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 20), false), 502, 502, 502},
		"half a body, closes":   {says(half, false), broken, broken, 502},
		"half a body, silent":   {says(half, true), ok, broken, 504}, // a live stream may be silent
		"half an error page":    {says("HTTP/1.1 404 No\r\nContent-Length: 1000\r\n\r\nhalf", true), 404, 404, 404},
		"bad gzip":              {says("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 7\r\n\r\n#EXTM3U", false), ok, broken, 502},
		"a body byte by byte":   {dribble(head+"#EXTM3U\n", "\n"), ok, broken, 504},
		"a header byte by byte": {dribble("HTTP/1.1 200 OK\r\n", "A: b\r\n"), 504, 504, 504},
	} {
		p := startWith(t, setup{origins: []*origintest.Origin{origintest.Start(t, origintest.Config{Script: c.script})}, change: hasty})
		p.place(t, "s")
		before := proxytest.Measure(t)
		for path, want := range map[string]int{"/live/s.flv": c.live, "/live/s-1.m4s": c.segment, "/live/s.m3u8": c.playlist} {
			if path == "/live/s.flv" && want == ok {
				continue // it has no end
			}
			response, _, err := p.try(t, http.MethodGet, path)
			status := response.StatusCode
			if err != nil && status == ok {
				status = broken
			}
			if status != want {
				t.Errorf("%s, %s: status %d, %v; want %d", name, path, status, err, want)
			}
		}
		p.client.CloseIdleConnections()
		proxytest.Eventually(t, "no session is left", func() bool { return p.Sessions() == 0 })
		before.Require(t)
	}
}

// hasty does not wait long for an origin.
func hasty(c *httpstream.Config) {
	c.AnswerTimeout, c.HoldTime = 500*time.Millisecond, 500*time.Millisecond
}

// dribble is an origin that begins with head and goes on with little by little.
func dribble(head, little string) origintest.Script {
	return answer(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, head)
		for pace := time.NewTicker(10 * time.Millisecond); ; <-pace.C {
			if _, err = io.WriteString(conn, little); err != nil {
				return
			}
		}
	})
}

func TestHostilePlaylistsEnd(t *testing.T) {
	const broken = -1
	for name, c := range map[string]struct {
		playlist string
		length   bool // says how long it is
		want     int
	}{
		"10 MB":                    {strings.Repeat("#\n", 5<<20), false, broken},
		"10 MB, announced":         {strings.Repeat("#\n", 5<<20), true, 502},
		"a million lines":          {strings.Repeat("a\n", 1_000_000), false, 200},
		"a million folders":        {manyFolders(200_000), false, 200},
		"no newline":               {strings.Repeat("a", 1<<20), false, 502},
		"no newline after a while": {strings.Repeat("#\n", 1<<20) + strings.Repeat("a", 1<<20), false, broken},
		"one tag":                  {"#EXT-X-KEY:" + strings.Repeat(`URI="a",`, 100_000), false, 502},
		"zeros":                    {strings.Repeat("\x00", 1<<20), false, 502},
	} {
		body := "#EXTM3U\n" + c.playlist
		p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) {
			if c.length {
				w.Header().Set("Content-Length", strconv.Itoa(len(body)))
			}
			w.Header().Set("Connection", "close") // none is left in the pool
			_, _ = io.WriteString(w, body)
		}))
		before := proxytest.Measure(t)
		response, _, err := p.try(t, http.MethodGet, "/live/s.m3u8")
		status := response.StatusCode
		if err != nil && status == http.StatusOK {
			status = broken
		}
		if status != c.want {
			t.Errorf("%s: status %d, %v; want %d", name, status, err, c.want)
		}
		p.client.CloseIdleConnections()
		proxytest.Eventually(t, "no session is left", func() bool { return p.Sessions() == 0 })
		before.Require(t)
	}
}

func manyFolders(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%x/\n", i)
	}
	return b.String()
}

// Neither the playlists of an origin nor the viewers of them fill the memory: a
// viewer costs two buffers, however long the playlist is and however much
// longer our hints make it.
func TestManyViewersOfAHostilePlaylistTakeLittleMemory(t *testing.T) {
	const viewers, each = 30, 512 << 10 // bytes: sockets and goroutines on both sides included
	hostile := append([]byte("#EXTM3U\n"), bytes.Repeat([]byte("a\n"), (4<<20-100)/2)...)
	origin := origintest.Start(t, origintest.Config{Script: answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(hostile) })})
	p := startWith(t, setup{origins: []*origintest.Origin{origin}})
	before := proxytest.Measure(t)
	var bodies []io.ReadCloser
	for range viewers {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/live/s.m3u8", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := p.client.Do(request) //nolint:bodyclose // below
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, response.Body)
	}
	if now := proxytest.Measure(t); now.Heap > before.Heap+viewers*each {
		t.Errorf("%d viewers take %d MB; want at most %d", viewers, (now.Heap-before.Heap)>>20, viewers*each>>20)
	}
	// Each gets all of it.
	var reading sync.WaitGroup
	for _, body := range bodies {
		reading.Go(func() {
			defer body.Close()
			if n, err := io.CopyN(io.Discard, body, 5<<20); err != nil {
				t.Errorf("after %d bytes: %v", n, err)
			}
		})
	}
	reading.Wait()
}

func TestNoOriginIsRetryable(t *testing.T) {
	p := startWith(t, setup{origins: []*origintest.Origin{origintest.Start(t, origintest.Config{})}, place: 100 * time.Millisecond})
	if err := p.Balancer.Remove(t.Context(), lb.OriginID(p.origin.Server())); err != nil {
		t.Fatal(err)
	}
	response, body := p.do(t, http.MethodGet, "/live/s.flv")
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q, %s; want 503 with Retry-After", response.StatusCode, response.Header.Get("Retry-After"), body)
	}
}
