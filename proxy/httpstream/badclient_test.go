package httpstream_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"srsx/proxy"
	"srsx/proxy/httpstream"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

// smuggled follows each malformed request: it must not be served.
const smuggled = "GET /smuggled/x.flv HTTP/1.1\r\nHost: h\r\n\r\n"

func TestMalformedRequestsAreRefusedAndTheConnectionEnds(t *testing.T) {
	p := start(t, origintest.Script{})
	before := proxytest.Measure(t)
	for name, c := range map[string]struct {
		sent string
		want int
	}{
		"no HTTP":                  {strings.Repeat("\x00garbage", 1000) + "\r\n\r\n", 400},
		"HTTP/0.9":                 {"GET /\r\n\r\n", 400},
		"HTTP/2 preface":           {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400},
		"no host":                  {"GET / HTTP/1.1\r\n\r\n", 400},
		"two hosts":                {"GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", 400},
		"space in the target":      {"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400},
		"NUL in a header":          {"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", 400},
		"space before the colon":   {"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400},
		"no colon":                 {"GET / HTTP/1.1\r\nHost: h\r\nX\r\n\r\n", 400},
		"bare LF":                  {"GET / HTTP/1.1\nHost: h\n\n", 400},
		"bare LF in the end":       {"GET / HTTP/1.1\r\nHost: h\r\nX: a\n\n", 400},
		"bare LF, pipelined":       {"GET / HTTP/1.1\r\nHost: h\r\n\n", 400},
		"bare CR":                  {"GET / HTTP/1.1\r\nHost: h\r\nX: a\rY: b\r\n\r\n", 400},
		"folded line":              {"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400},
		"folded first line":        {"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400},
		"folded by a tab":          {"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n\tb\r\n\r\n", 400},
		"a body":                   {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", 400},
		"a body that never comes":  {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n", 400},
		"a body that is chunked":   {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"a body of another method": {"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody", 400},
		"length and chunked":       {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"chunked and length":       {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", 400},
		"two lengths":              {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n", 400},
		"two lengths in one":       {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0, 5\r\n\r\n", 400},
		"length with a sign":       {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\n", 400},
		"length below zero":        {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400},
		"length in hex":            {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\n", 400},
		"length of 30 digits":      {"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: " + strings.Repeat("9", 30) + "\r\n\r\n", 400},
		"unknown coding":           {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501},
		"two codings":              {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501},
		"two lines of codings":     {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 501},
		"coding behind a tab":      {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", 400},
		"coding behind a VT":       {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400},
		"coding before a space":    {"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		"coding in HTTP/1.0":       {"GET / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n", 200},
		"header of 1 MB":           {"GET / HTTP/1.1\r\nHost: h\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 431},
		"a million short headers":  {"GET / HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X:\r\n", 1_000_000) + "\r\n", 431},
		"target of 1 MB":           {"GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: h\r\n\r\n", 431},
	} {
		status, err := p.sendMalformed(t, c.sent+smuggled)
		reset := len(c.sent) > 1<<16 && errors.Is(err, syscall.ECONNRESET) // it may overtake the answer
		if !reset && (err != nil || status != c.want) {
			t.Errorf("%s: status %d, %v; want %d and the end", name, status, err, c.want)
		}
	}
	for _, seen := range p.origin.Seen("http") {
		t.Errorf("the origin was asked for %s", seen.Request.URL)
	}
	if lines := p.Log.Lines("client refused", "malformed"); len(lines) == 0 {
		t.Error("no line in the log tells of malformed requests")
	}
	before.Require(t)
}

// sendMalformed returns the status of the only answer, and an error if another
// follows.
func (p *peer) sendMalformed(t *testing.T, sent string) (status int, err error) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	go func() { _, _ = io.WriteString(conn, sent) }() // the peer need not read all
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
	if err != nil {
		return 0, err
	}
	if _, err = io.Copy(io.Discard, response.Body); err != nil {
		return response.StatusCode, err
	}
	rest, err := io.ReadAll(reader)
	if len(rest) > 0 {
		return response.StatusCode, errors.New("another answer follows: " + string(rest))
	}
	return response.StatusCode, err
}

func TestOtherMethodsAreRefused(t *testing.T) {
	p := start(t, origintest.Script{})
	for _, line := range []string{
		"POST /live/s.flv", "PUT /live/s.flv", "DELETE /live/s.m3u8", "TRACE /", "CONNECT h:443", "get /", "PRI /", "A-B_C /",
	} {
		_, reader := p.raw(t, line+" HTTP/1.1\r\nHost: h\r\n\r\n")
		response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
		if err != nil || response.StatusCode != http.StatusMethodNotAllowed || response.Header.Get("Allow") != "GET, HEAD, OPTIONS" {
			t.Errorf("%s: %+v, %v; want 405 and what is allowed", line, response, err)
		}
	}
	if seen := p.origin.Seen("http"); len(seen) != 0 {
		t.Errorf("the origin saw %d requests", len(seen))
	}
}

func TestPathsThatNameNothingAreNotFound(t *testing.T) {
	p := start(t, origintest.Script{})
	for _, path := range []string{
		"/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", `/..\..\etc\passwd`, "/%5c..%5cetc", "//etc/passwd",
		"/a%00b", "/index.html%00.flv", "/live/%00.flv", "/live/..%2f..%2fx.flv", "/live/../x.flv", "/live/../../x.m3u8", "/live/./x.flv",
		"/live/.flv", "/s.flv", "/%2f/.m3u8", "/no/such.html", "/live/s.flv/", "/live/a%0d%0ab.flv", "/live/%7f.m3u8",
		"/live/" + strings.Repeat("n", 600) + ".flv", "/live/s.flv?" + strings.Repeat("q", 9000),
	} {
		_, reader := p.raw(t, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n")
		response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
		if err != nil || response.StatusCode != http.StatusNotFound {
			t.Errorf("%.40s: %+v, %v; want 404", path, response, err)
		}
	}
	if seen := p.origin.Seen("http"); len(seen) != 0 {
		t.Errorf("the origin was asked for %s", seen[0].Request.URL)
	}
}

func TestLoopOfPeersIsRefused(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, media) }))
	for _, path := range []string{"/live/s.flv", "/live/s.m3u8", "/live/s-1.m4s"} {
		for mark, want := range map[string]int{"n1": 508, "a, n1 ,b": 508, strings.Repeat("a,", 9): 508, strings.Repeat("x", 2000): 508} {
			if response, _ := p.do(t, http.MethodGet, path, proxy.HopHeader, mark); response.StatusCode != want {
				t.Errorf("%s with hop mark %.20q: status %d; want %d", path, mark, response.StatusCode, want)
			}
		}
	}
	if response, _ := p.do(t, http.MethodGet, "/live/s.flv", proxy.HopHeader, "a,b"); response.StatusCode != http.StatusOK {
		t.Errorf("relayed by two others: status %d; want 200", response.StatusCode)
	}
	if seen := p.origin.Seen("http"); len(seen) != 1 || seen[0].Request.Header.Get(proxy.HopHeader) != "a,b,n1" {
		t.Errorf("origin saw %d requests; want the one, with our mark", len(seen))
	}
}

func TestTargetMayBeAWholeURL(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "media") }))
	_, reader := p.raw(t, "GET http://cdn.example.com/live/s.flv?a=b HTTP/1.1\r\nHost: other.example.com\r\n\r\n")
	response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%+v, %v; want 200", response, err)
	}
	seen := p.origin.Seen("http")[0].Request
	if seen.Host != "cdn.example.com" || seen.RequestURI != "/live/s.flv?a=b" {
		t.Errorf("origin saw %s at %s; want the target's own host (RFC 9112 section 3.2.2)", seen.RequestURI, seen.Host)
	}
}

// short has the timeouts that a test can wait for.
func short(c *httpstream.Config) {
	c.HeaderTimeout, c.IdleTimeout = time.Second, time.Second
}

func TestHeaderHasToComeInTime(t *testing.T) {
	p := startWith(t, setup{origins: []*origintest.Origin{origintest.Start(t, origintest.Config{})}, change: short})
	before := proxytest.Measure(t)
	for name, next := range map[string]string{"silence": "", "a byte now and then": "x"} {
		conn, reader := p.raw(t, strings.Repeat("G", len(next)))
		ended := make(chan error, 1)
		go func() {
			_, err := reader.ReadByte()
			ended <- err
		}()
		deadline := time.Now().Add(patience)
		for over := false; !over; {
			_, _ = io.WriteString(conn, next)
			select {
			case err := <-ended:
				over = true
				if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
					t.Errorf("%s: still connected after %s", name, patience)
				}
			case <-time.After(20 * time.Millisecond):
				over = time.Now().After(deadline)
			}
		}
		_ = conn.Close()
	}
	proxytest.Eventually(t, "a line in the log tells of the one that sent something", func() bool {
		return len(p.Log.Lines("client refused", "incomplete request")) == 1
	})
	before.Require(t)
}

func TestIdleConnectionIsClosed(t *testing.T) {
	p := startWith(t, setup{origins: []*origintest.Origin{origintest.Start(t, origintest.Config{})}, change: short})
	_, reader := p.raw(t, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, response.Body)
	if _, err = reader.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("read of an idle connection = %v; want it closed", err)
	}
	if lines := p.Log.Lines("client refused"); len(lines) != 0 {
		t.Errorf("log = %q; want nothing of a client that was served", lines)
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
	conn, reader := p.raw(t, "GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n")
	if _, err := http.ReadResponse(reader, nil); err != nil { //nolint:bodyclose // ends with the connection
		t.Fatal(err)
	}
	_ = conn.Close()
	select {
	case <-gone:
	case <-time.After(patience):
		t.Errorf("upstream still open after %s", patience)
	}
	proxytest.Eventually(t, "the log tells that the client was done", func() bool {
		return len(p.Log.Lines("session ended", "client done")) == 1
	})
}
