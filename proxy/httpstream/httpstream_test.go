package httpstream_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/lb/memlb"
	"srsx/proxy"
	"srsx/proxy/httpstream"
	"srsx/test/mediatest"
	"srsx/test/origintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

type peer struct {
	url      string
	origin   *origintest.Origin
	balancer *memlb.Balancer
	router   *proxy.Router
	client   *http.Client
}

func start(t *testing.T, script origintest.Script) *peer {
	t.Helper()
	p := &peer{origin: origintest.Start(t, origintest.Config{Script: script})}
	p.balancer = memlb.New(memlb.Config{Peer: "p"})
	o := lb.Origin{
		ID: "o", Incarnation: lb.Incarnation{Server: "o"}, Static: true, Weight: lb.DefaultWeight,
		Endpoints: lb.Endpoints{RTMP: []string{p.origin.RTMP()}, HTTP: []string{p.origin.HTTP()}},
	}
	if err := p.balancer.Register(t.Context(), lb.Registration{Origin: o}); err != nil {
		t.Fatal(err)
	}
	p.router = proxy.NewRouter(p.balancer, proxy.RouterConfig{PlaceTimeout: time.Second})
	key, err := httpstream.LoadHintKey(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	server := httpstream.NewServer(httpstream.Config{
		Opener: p.router, Finder: p.balancer, NodeID: "n1", HintKey: key,
		Static:        fstest.MapFS{"index.html": {Data: []byte("hello")}},
		AnswerTimeout: time.Second, WriteTimeout: time.Second, HoldTime: time.Second,
	})
	ln, err := proxy.Listen(t.Context(), "127.0.0.1:0", proxy.ListenConfig{Name: "http"})
	if err != nil {
		t.Fatal(err)
	}
	p.url = "http://" + ln.Addr().String()
	transport := &http.Transport{}
	p.client = &http.Client{Transport: transport, Timeout: patience}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = p.router.Run(ctx) })
	running.Go(func() {
		if err := server.Serve(ctx, ln); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		p.router.CloseAll(proxy.ErrShutdown)
		cancel()
		_ = ln.Close()
		running.Wait()
		_ = p.balancer.Close()
	})
	return p
}

// publish publishes a pattern at the origin itself until the test ends.
func (p *peer) publish(t *testing.T, name string) {
	t.Helper()
	c, err := mediatest.Dial(context.Background(), mediatest.Target{Addr: p.origin.RTMP(), TCURL: "rtmp://h/live"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(name); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var sending sync.WaitGroup
	sending.Go(func() { _ = c.Send(ctx, mediatest.NewPattern(name)) })
	t.Cleanup(func() { cancel(); sending.Wait(); c.Close() })
}

// reply is a response that has been read.
type reply struct {
	StatusCode int
	Header     http.Header
}

func (p *peer) do(t *testing.T, method, path string, header ...string) (reply, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, p.url+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := p.client.Do(request)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{response.StatusCode, response.Header}, string(body)
}

// localAddr is the address that an origin was asked at.
func localAddr(r *http.Request) string {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return "no address"
	}
	return addr.String()
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

func TestLiveFLVPassesTagByTag(t *testing.T) {
	p := start(t, origintest.Script{})
	p.publish(t, "s")
	request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/live/s.flv?token=a%2Bb&x", http.NoBody)
	request.Header.Set("X-Forwarded-For", "1.2.3.4")
	response, err := p.client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "video/x-flv" {
		t.Fatalf("status %d, type %q", response.StatusCode, response.Header.Get("Content-Type"))
	}
	tags, err := mediatest.NewFLVReader(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var last uint32
	for frames := 0; frames < 30; {
		tag, err := tags.Next()
		if err != nil {
			t.Fatal(err)
		}
		if name, n, ok := mediatest.PatternFrame(tag); ok {
			if name != "s" || frames > 0 && n != last+1 {
				t.Fatalf("frame %d of %q follows %d", n, name, last)
			}
			last = n
			frames++
		}
	}
	seen := p.origin.Seen("http")[0].Request
	if seen.URL.RawQuery != "token=a%2Bb&x" {
		t.Errorf("origin saw query %q; want it unchanged", seen.URL.RawQuery)
	}
	if got := seen.Header.Get("X-Forwarded-For"); got != "127.0.0.1" {
		t.Errorf("origin saw X-Forwarded-For %q; want the client's, not what a stranger claims", got)
	}
	if got := seen.Header.Get(proxy.HopHeader); got != "n1" {
		t.Errorf("hop mark = %q; want n1", got)
	}
	if seen.Host != strings.TrimPrefix(p.url, "http://") {
		t.Errorf("origin saw host %q; want the client's own", seen.Host)
	}
}

func TestHLSPlaysThroughItsHints(t *testing.T) {
	p := start(t, origintest.Script{})
	p.publish(t, "s")
	_, master := p.do(t, http.MethodGet, "/live/s.m3u8?token=secret")
	child := lastLine(master)
	if !strings.HasPrefix(child, "/live/s.m3u8?hls_ctx=") || !strings.Contains(child, "&token=secret&srsx=") {
		t.Fatalf("master = %q; want the child with its context, the token and a hint", master)
	}
	_, media := p.do(t, http.MethodGet, child)
	segment := lastLine(media)
	if !strings.HasPrefix(segment, "s-") || !strings.Contains(segment, "&srsx=") {
		t.Fatalf("media = %q; want segments with a hint", media)
	}
	response, body := p.do(t, http.MethodGet, "/live/"+segment)
	if response.StatusCode != http.StatusOK || len(body)%188 != 0 || !strings.Contains(body, "live/s") {
		t.Errorf("segment: status %d, %d bytes", response.StatusCode, len(body))
	}
	if response, part := p.do(t, http.MethodGet, "/live/"+segment, "Range", "bytes=188-375"); response.StatusCode != http.StatusPartialContent || part != body[188:376] {
		t.Errorf("range: status %d, %d bytes; want 206 and 188", response.StatusCode, len(part))
	}
	if _, sessions := p.router.Counts(); sessions["o"] != 1 {
		t.Errorf("%d sessions; want the one viewer", sessions["o"])
	}
	for _, seen := range p.origin.Seen("http") {
		if strings.Contains(seen.Request.URL.RawQuery, "srsx=") {
			t.Errorf("the origin saw our hint in %q", seen.Request.URL.RawQuery)
		}
	}
	eventually(t, "the viewer's session ends after its last request", func() bool {
		total, _ := p.router.Counts()
		return total == 0
	})
	// The hint outlives the session: no table is needed to serve a segment.
	if response, _ := p.do(t, http.MethodGet, "/live/"+segment); response.StatusCode != http.StatusOK {
		t.Errorf("segment after its session: status %d", response.StatusCode)
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func TestOriginsAnswerPassesBack(t *testing.T) {
	p := start(t, origintest.Script{HTTP: func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/live/moved.flv":
			w.Header().Set("Location", "http://"+localAddr(r)+"/live/x.flv")
			w.WriteHeader(http.StatusFound)
		case "/live/denied.m3u8":
			w.WriteHeader(http.StatusForbidden)
		default:
			return false
		}
		return true
	}})
	p.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for path, want := range map[string]int{
		"/live/nothing.flv": 404, "/live/nothing.m3u8": 404, "/live/denied.m3u8": 403, "/live/moved.flv": 302,
	} {
		response, body := p.do(t, http.MethodGet, path)
		if response.StatusCode != want {
			t.Errorf("%s: status %d; want %d", path, response.StatusCode, want)
		}
		if all := body + fmt.Sprint(response.Header); strings.Contains(all, p.origin.HTTP()) {
			t.Errorf("%s tells the origin's address: %s", path, all)
		}
	}
	if total, _ := p.router.Counts(); total != 0 {
		t.Errorf("%d sessions held for what is not there", total)
	}
}

func TestBadOriginsBecomeClearErrors(t *testing.T) {
	hijack := func(text string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return false
			}
			_, _ = io.WriteString(conn, text)
			if text == "" { // stay silent until the peer gives up
				_, _ = io.Copy(io.Discard, conn)
			}
			_ = conn.Close()
			return true
		}
	}
	for name, test := range map[string]struct {
		answer string
		want   int
	}{
		"silent":         {"", 504},
		"garbage":        {"\x00\x01\x02 nonsense\r\n\r\n", 502},
		"closes":         {"HTTP/1.1 200", 502},
		"endless header": {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 1<<20), 502},
	} {
		p := start(t, origintest.Script{HTTP: hijack(test.answer)})
		for _, path := range []string{"/live/s.flv", "/live/s.m3u8"} {
			response, body := p.do(t, http.MethodGet, path)
			if response.StatusCode != test.want {
				t.Errorf("%s, %s: status %d %s; want %d", name, path, response.StatusCode, body, test.want)
			}
		}
	}
	p := start(t, origintest.Script{HTTP: hijack("HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n#EXTM3U\n" + strings.Repeat("#\n", 3<<20))})
	if response, _ := p.do(t, http.MethodGet, "/live/s.m3u8"); response.StatusCode != http.StatusBadGateway {
		t.Errorf("playlist of 6 MB: status %d; want 502", response.StatusCode)
	}
}

func TestNoOriginIsRetryable(t *testing.T) {
	p := start(t, origintest.Script{})
	if err := p.balancer.Remove(t.Context(), "o"); err != nil {
		t.Fatal(err)
	}
	response, body := p.do(t, http.MethodGet, "/live/s.flv")
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q, %s; want 503 with Retry-After", response.StatusCode, response.Header.Get("Retry-After"), body)
	}
}

func TestBrowsersMayAskFromAnySite(t *testing.T) {
	p := start(t, origintest.Script{})
	response, _ := p.do(t, http.MethodOptions, "/live/s.m3u8", "Access-Control-Request-Headers", "range")
	if response.StatusCode != http.StatusNoContent || response.Header.Get("Access-Control-Allow-Headers") != "range" {
		t.Errorf("preflight: status %d, %v", response.StatusCode, response.Header)
	}
	response, _ = p.do(t, http.MethodGet, "/")
	if got := response.Header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "*" {
		t.Errorf("Access-Control-Allow-Origin = %q; want one *", got)
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	p := start(t, origintest.Script{})
	for path, want := range map[string]int{
		"/../../etc/passwd": 404, "/%2e%2e/%2e%2e/etc/passwd": 404, "/live/%00.flv": 404, "/a%00b": 404,
		"/live/..%2f..%2fx.flv": 404, "/no/such.html": 404,
	} {
		response, _ := p.do(t, http.MethodGet, path)
		if response.StatusCode != want && response.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d; want %d", path, response.StatusCode, want)
		}
	}
	if response, _ := p.do(t, http.MethodPost, "/live/s.flv"); response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: status %d; want 405", response.StatusCode)
	}
	runtime.GC()
	p.client.CloseIdleConnections()
	for name, raw := range map[string]string{
		"two lengths":        "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"length and chunked": "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"header of 1 MB":     "GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"folded header":      "GET / HTTP/1.1\r\n Host: h\r\n\r\n",
		"no HTTP":            strings.Repeat("\x00garbage", 1000) + "\r\n\r\n",
		"space before colon": "GET / HTTP/1.1\r\nHost : h\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		go func() { _, _ = io.WriteString(conn, raw) }()
		response, err := http.ReadResponse(bufio.NewReader(conn), nil) //nolint:bodyclose // ends with the connection
		if err != nil {
			t.Errorf("%s: %v; want a status", name, err)
		} else if response.StatusCode < 400 {
			t.Errorf("%s: status %d; want it refused", name, response.StatusCode)
		}
		_ = conn.Close()
	}
}
