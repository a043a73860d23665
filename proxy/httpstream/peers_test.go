package httpstream_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"srsx/lb"
	"srsx/test/origintest"
)

const media = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:1,\ns-1.m4s\n"

func answer(f func(w http.ResponseWriter, r *http.Request)) origintest.Script {
	return origintest.Script{HTTP: func(w http.ResponseWriter, r *http.Request) bool { f(w, r); return true }}
}

// rawConn speaks HTTP by hand.
func (p *peer) rawConn(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn, bufio.NewReader(conn)
}

func TestMovedStreamIsFollowedByPlaylists(t *testing.T) {
	p := start(t, origintest.Script{})
	second := origintest.Start(t, origintest.Config{})
	o := lb.Origin{
		ID: "o2", Incarnation: lb.Incarnation{Server: "o2"}, Static: true, Weight: 1,
		Endpoints: lb.Endpoints{RTMP: []string{second.RTMP()}, HTTP: []string{second.HTTP()}},
	}
	if err := p.balancer.Register(t.Context(), lb.Registration{Origin: o}); err != nil {
		t.Fatal(err)
	}
	p.publish(t, "s")
	response, master := p.do(t, http.MethodGet, "/live/s.m3u8")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("master: %d", response.StatusCode)
	}
	child := lastLine(master)
	if err := p.balancer.Move(t.Context(), lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "s"}, "o2"); err != nil {
		t.Fatal(err)
	}
	_, _ = p.do(t, http.MethodGet, child)
	if len(second.Seen("http")) == 0 {
		t.Error("after a move the child playlist is still asked from the old origin")
	}
}

func TestUnchangedPlaylistKeepsTheSession(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-Modified-Since") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, media)
	}))
	_, _ = p.do(t, http.MethodGet, "/live/s.m3u8")
	before := p.router.Sessions()
	response, _ := p.do(t, http.MethodGet, "/live/s.m3u8", "If-Modified-Since", "Mon, 23 Nov 2026 20:00:00 GMT")
	if response.StatusCode != http.StatusNotModified {
		t.Fatalf("status %d", response.StatusCode)
	}
	after := p.router.Sessions()
	if len(before) != 1 || len(after) != 1 {
		t.Errorf("sessions %d, after a 304 %d; want 1 and 1", len(before), len(after))
	}
}

func TestHeadOfAPlaylistPromisesNoEmptyBody(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, media) }))
	response, _ := p.do(t, http.MethodHead, "/live/s.m3u8")
	if response.Header.Get("Content-Length") == "0" {
		t.Error("HEAD says Content-Length: 0")
	}
}

func TestGzippedPlaylistIsReadable(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, media)
		_ = z.Close()
	}))
	response, body := p.do(t, http.MethodGet, "/live/s.m3u8", "Accept-Encoding", "gzip")
	if response.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(strings.NewReader(body))
		if err != nil {
			t.Fatalf("not gzip: %v", err)
		}
		plain, err := io.ReadAll(z)
		if err != nil {
			t.Fatalf("gzip damaged: %v", err)
		}
		body = string(plain)
	}
	if !strings.Contains(body, "s-1.m4s?srsx=") {
		t.Errorf("no hints in %q", body)
	}
}

func TestSmugglingShapesAreRefused(t *testing.T) {
	p := start(t, origintest.Script{})
	for name, raw := range map[string]string{
		"length and chunked": "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"bare LF":            "GET / HTTP/1.1\nHost: h\n\n",
		"bare LF in the end": "GET / HTTP/1.1\r\nHost: h\r\nX: a\n\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n",
		"bare LF, pipelined": "GET / HTTP/1.1\r\nHost: h\r\n\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n",
		"folded":             "GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n",
	} {
		conn, reader := p.rawConn(t)
		_, _ = io.WriteString(conn, raw)
		response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if response.StatusCode < 400 {
			t.Errorf("%s: status %d; want it refused", name, response.StatusCode)
		}
	}
}

func TestLiveHeaderIsSentBeforeTheFirstByteOfMedia(t *testing.T) {
	release := make(chan struct{})
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "video/x-flv")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-release
	}))
	defer close(release)
	conn, reader := p.rawConn(t)
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.WriteString(conn, "GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n")
	if _, err := http.ReadResponse(reader, nil); err != nil { //nolint:bodyclose // ends with the connection
		t.Errorf("no header while the origin has no media yet: %v", err)
	}
}

func TestHalfALiveBodyIsSeenToBeHalf(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, _ := http.NewResponseController(w).Hijack()
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n100\r\nha")
		_ = conn.Close()
	}))
	conn, reader := p.rawConn(t)
	_, _ = io.WriteString(conn, "GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n")
	response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("body %q ends as if it were whole", body)
	}
}

func TestPlayerThatLeavesIsNoticedEvenIfItAnnouncedABody(t *testing.T) {
	gone := make(chan struct{})
	p := start(t, answer(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "FLV")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	conn, reader := p.rawConn(t)
	_, _ = io.WriteString(conn, "GET /live/s.flv HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
	if response, err := http.ReadResponse(reader, nil); err != nil || response.StatusCode >= 400 { //nolint:bodyclose // ends with the connection
		return // refused: fine as well
	}
	_ = conn.Close()
	select {
	case <-gone:
	case <-time.After(3 * time.Second):
		t.Error("the upstream of a player that left is still open after 3 s")
		p.router.CloseAll(errors.New("test over"))
	}
}

func TestPlayerThatLeavesIsNoticedOnASilentStream(t *testing.T) {
	gone := make(chan struct{})
	p := start(t, answer(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "FLV")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	}))
	ctx, cancel := context.WithCancel(t.Context())
	request, _ := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/live/s.flv", http.NoBody)
	response, err := p.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	_ = response.Body.Close()
	select {
	case <-gone:
	case <-time.After(3 * time.Second):
		t.Error("upstream still open after 3 s")
	}
}

func TestHostilePlaylistTakesNoMoreMemoryThanItsOwnLength(t *testing.T) {
	hostile := append([]byte("#EXTM3U\n"), bytes.Repeat([]byte("a\n"), (4<<20-100)/2)...)
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(hostile) }))
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	runtime.GC()
	before := heap()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/live/s.m3u8", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := p.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	buffer := make([]byte, 1<<20)
	var peak uint64
	var n int
	for err == nil {
		var k int
		k, err = io.ReadFull(response.Body, buffer)
		n += k
		peak = max(peak, heap())
	}
	const most = 64 << 20 // bytes: several times the playlist, a fraction of what comes out
	if n < 100<<20 || peak > before+most {
		t.Errorf("%d bytes of playlist came with %d MB more heap; want all of it with at most %d", n, (peak-before)>>20, most>>20)
	}
}

func TestPageThatIsNoPlaylistPassesUnchanged(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>\nhello\n") }))
	if _, body := p.do(t, http.MethodGet, "/live/s.m3u8"); body != "<html>\nhello\n" {
		t.Errorf("body became %q", body)
	}
}

func TestAddressInAnErrorPageIsNotPassedOn(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Served-By", localAddr(r))
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "nothing at "+localAddr(r))
	}))
	response, body := p.do(t, http.MethodGet, "/live/s.flv")
	if strings.Contains(body+fmt.Sprint(response.Header), p.origin.HTTP()) {
		t.Errorf("the origin's address in %v %s", response.Header, body)
	}
}

func TestSlowReaderOfALiveBodyIsCut(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) {
		b := make([]byte, 64<<10)
		for {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}))
	conn, _ := p.rawConn(t)
	_, _ = io.WriteString(conn, "GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n")
	count := func() int { n, _ := p.router.Counts(); return n }
	eventually(t, "the session is open", func() bool { return count() == 1 })
	eventually(t, "the session of a client that does not read is cut", func() bool { return count() == 0 })
}

func TestPlainShapesAreServed(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "media") }))
	for name, raw := range map[string]string{
		"HTTP/1.0":           "GET /live/s.flv HTTP/1.0\r\n\r\n",
		"length of 0":        "GET /live/s.flv HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
		"parameter unparsed": "GET /live/s.flv?a&&b=%zz HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		conn, reader := p.rawConn(t)
		_, _ = io.WriteString(conn, raw)
		response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil || string(body) != "media" {
			t.Errorf("%s: status %d, body %q, %v", name, response.StatusCode, body, err)
		}
		if name == "HTTP/1.0" && len(response.TransferEncoding) != 0 {
			t.Errorf("HTTP/1.0 client got %v", response.TransferEncoding)
		}
	}
	var queries []string
	for _, seen := range p.origin.Seen("http") {
		queries = append(queries, seen.Request.URL.RawQuery)
	}
	if !slices.Contains(queries, "a&&b=%zz") {
		t.Errorf("origin saw queries %q; want a&&b=%%zz as it was", queries)
	}
}
