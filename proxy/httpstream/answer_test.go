package httpstream_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"srsx/test/origintest"
	"srsx/test/proxytest"
)

func TestOriginsStatusPassesBack(t *testing.T) {
	p := start(t, origintest.Script{HTTP: func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/live/denied.") {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "not you", http.StatusForbidden)
			return true
		}
		return false
	}})
	for path, want := range map[string]int{
		"/live/nothing.flv": 404, "/live/nothing.m3u8": 404, "/live/denied.m3u8": 403, "/live/denied.flv": 403,
	} {
		response, body := p.do(t, http.MethodGet, path)
		if response.StatusCode != want {
			t.Errorf("%s: status %d; want %d", path, response.StatusCode, want)
		}
		if want == 403 && (body != "not you\n" || response.Header.Get("WWW-Authenticate") != "Bearer") {
			t.Errorf("%s: %q, %v; want the origin's own page", path, body, response.Header)
		}
	}
	proxytest.Eventually(t, "no session is held for what is not there", func() bool { return p.Sessions() == 0 })
	if lines := p.Log.Lines("session ended", "origin answers 404"); len(lines) != 2 {
		t.Errorf("log = %q; want a line for each stream that is not there", lines)
	}
}

func TestWhereTheOriginIsIsNotTold(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, r *http.Request) {
		own := localAddr(r)
		h := w.Header()
		for _, name := range []string{"X-Served-By", "Link", "Alt-Svc", "X-Host", "Refresh"} {
			h.Set(name, `<http://`+own+`/x>; rel="y"`)
		}
		h.Set("Server", "SRS/7.0.18")
		h.Set("Via", "1.1 "+own)
		h.Set("Content-Location", "http://"+own+"/live/other")
		if to := r.URL.Query().Get("to"); to != "" {
			h.Set("Location", strings.ReplaceAll(to, "OWN", own))
			w.WriteHeader(http.StatusFound)
			return
		}
		if strings.Contains(r.URL.Path, "missing") {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, "nothing at "+own)
			return
		}
		_, _ = io.WriteString(w, "#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"https://keys.example/k\"\n#EXTINF:1,\nhttp://"+own+"/live/s-1.ts\n")
	}))
	p.place(t, "s")
	p.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for path, location := range map[string]string{
		"/live/s.m3u8": "", "/live/missing.m3u8": "", "/live/missing.flv": "", "/live/missing.ts": "", "/live/s-1.m4s?to=/x": "/x",
		"/live/s.flv?to=http://OWN/live/x.flv":       "/live/x.flv",
		"/live/s.flv?to=//OWN/live/x.flv%3Fa%3Db":    "/live/x.flv?a=b",
		"/live/s.m3u8?to=http://user@OWN/x":          "/x",
		"/live/s.flv?to=https://cdn.example/x":       "https://cdn.example/x",
		"/live/s.flv?to=https://cdn.example/%3FOWN":  "",
		"/live/s.flv?to=http://" + p.url[7:] + "/x1": "/x1",
	} {
		response, body := p.do(t, http.MethodGet, path)
		if all := body + fmt.Sprint(response.Header); strings.Contains(all, p.origin.HTTP()) || strings.Contains(all, "SRS/") {
			t.Errorf("%s tells of the origin: %s", path, all)
		}
		if got := response.Header.Get("Location"); got != location {
			t.Errorf("%s: Location %q; want %q", path, got, location)
		}
	}
	if _, body := p.do(t, http.MethodGet, "/live/s.m3u8"); !strings.Contains(body, "\n/live/s-1.ts?srsx=") || !strings.Contains(body, `URI="https://keys.example/k"`) {
		t.Errorf("playlist = %s; want the path of the origin's URI and the other host's as it is", body)
	}
}

func TestRequestTargetReachesTheOriginByteForByte(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, media) }))
	for sent, want := range map[string]string{
		"/live/s.flv?token=a%2Bb&x&y=":         "",
		"/live/s.flv?a&&b=%zz":                 "",
		"/live/s.flv?a=+%20;b=c&&&":            "",
		"/live/s.flv?a#b":                      "",
		"/live/s.flv??vhost=x?y":               "",
		"/live/s.flv?url=http://h/a?b=c":       "",
		"/live/%73%2D.flv?A=%e4&B=%E4":         "",
		"/live/s.m3u8?_HLS_msn=1&_HLS_part=2":  "",
		"/live/s.m3u8?srsx=x&a&&b":             "/live/s.m3u8?a&&b",
		"/live/s.m3u8?a=b&srsx=x":              "/live/s.m3u8?a=b",
		"/live/s.m3u8?a=b&srsx=x&_HLS_skip=v2": "/live/s.m3u8?a=b&_HLS_skip=v2",
		"/live/s.m3u8?mysrsx=x":                "",
	} {
		if want == "" {
			want = sent
		}
		if status := p.status(t, "GET "+sent+" HTTP/1.1\r\nHost: cdn.example.com:8080\r\n\r\n"); status != http.StatusOK {
			t.Errorf("%s: status %d", sent, status)
		}
		seen := p.origin.Seen("http")
		if last := seen[len(seen)-1].Request; last.RequestURI != want || last.Host != "cdn.example.com:8080" {
			t.Errorf("origin saw %s of %s; want %s", last.RequestURI, last.Host, want)
		}
	}
}

// file is an origin that serves one segment as a file server does.
func file(content string) origintest.Script {
	return answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"tag"`)
		w.Header().Set("Content-Type", "video/iso.segment")
		http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(content))
	})
}

func TestRangesAndConditionsPass(t *testing.T) {
	content := strings.Repeat("0123456789", 1000)
	p := start(t, file(content))
	p.place(t, "s")
	past, future := time.Unix(1e9-1000, 0).UTC().Format(http.TimeFormat), time.Unix(1e9+1000, 0).UTC().Format(http.TimeFormat)
	for name, c := range map[string]struct {
		method string
		header []string
		status int
		body   string
		want   []string // headers of the answer
	}{
		"whole":             {"GET", nil, 200, content, []string{"Content-Length", "10000", "Etag", `"tag"`, "Accept-Ranges", "bytes", "Content-Type", "video/iso.segment"}},
		"head":              {"HEAD", nil, 200, "", []string{"Content-Length", "10000", "Etag", `"tag"`}},
		"range":             {"GET", []string{"Range", "bytes=15-24"}, 206, "5678901234", []string{"Content-Range", "bytes 15-24/10000", "Content-Length", "10"}},
		"end":               {"GET", []string{"Range", "bytes=-3"}, 206, "789", []string{"Content-Range", "bytes 9997-9999/10000"}},
		"head of a range":   {"HEAD", []string{"Range", "bytes=0-4"}, 206, "", []string{"Content-Length", "5"}},
		"beyond the end":    {"GET", []string{"Range", "bytes=10000-"}, 416, "invalid range: failed to overlap\n", []string{"Content-Range", "bytes */10000"}},
		"same tag":          {"GET", []string{"If-None-Match", `"tag"`}, 304, "", []string{"Etag", `"tag"`}},
		"another tag":       {"GET", []string{"If-None-Match", `"old"`}, 200, content, nil},
		"not changed":       {"GET", []string{"If-Modified-Since", future}, 304, "", nil},
		"changed":           {"GET", []string{"If-Modified-Since", past}, 200, content, nil},
		"must not change":   {"GET", []string{"If-Match", `"old"`}, 412, "", nil},
		"range of same tag": {"GET", []string{"Range", "bytes=0-4", "If-Range", `"tag"`}, 206, "01234", nil},
		"range of another":  {"GET", []string{"Range", "bytes=0-4", "If-Range", `"old"`}, 200, content, nil},
	} {
		response, body := p.do(t, c.method, "/live/s-1.m4s", c.header...)
		if response.StatusCode != c.status || body != c.body {
			t.Errorf("%s: status %d, %d bytes; want %d and %d", name, response.StatusCode, len(body), c.status, len(c.body))
		}
		for i := 0; i < len(c.want); i += 2 {
			if got := response.Header.Get(c.want[i]); got != c.want[i+1] {
				t.Errorf("%s: %s: %q; want %q", name, c.want[i], got, c.want[i+1])
			}
		}
	}
	if response, body := p.do(t, http.MethodGet, "/live/s-1.m4s", "Range", "bytes=0-1,4-5"); response.StatusCode != http.StatusPartialContent ||
		!strings.HasPrefix(response.Header.Get("Content-Type"), "multipart/byteranges") || !strings.Contains(body, "Content-Range: bytes 4-5/10000") {
		t.Errorf("two ranges: status %d, %v", response.StatusCode, response.Header)
	}
}

// A playlist is not what the origin sent, so bytes and strong tags of that are
// of no use; that it did not change still is.
func TestPlaylistsAreComparedButNotCut(t *testing.T) {
	p := start(t, file(media))
	response, whole := p.do(t, http.MethodGet, "/live/s.m3u8", "Range", "bytes=0-4", "If-Range", `"tag"`)
	if response.StatusCode != http.StatusOK || !strings.Contains(whole, "srsx=") || response.Header.Get("Accept-Ranges") != "" {
		t.Errorf("range of a playlist: status %d, %v, %q; want all of it", response.StatusCode, response.Header, whole)
	}
	tag := response.Header.Get("Etag")
	if tag != `W/"tag"` || response.Header.Get("Content-Length") != strconv.Itoa(len(whole)) {
		t.Errorf("header %v; want a weak tag and the length of what is sent", response.Header)
	}
	if response, body := p.do(t, http.MethodGet, "/live/s.m3u8", "If-None-Match", tag); response.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("same tag: status %d; want 304", response.StatusCode)
	}
}

// connections returns on how many connections requests came.
func connections(seen []origintest.Seen) int {
	var remotes []string
	for _, one := range seen {
		if !slices.Contains(remotes, one.Remote) {
			remotes = append(remotes, one.Remote)
		}
	}
	return len(remotes)
}

func TestConnectionsAreKeptOnBothSides(t *testing.T) {
	const requests = 50
	for name, c := range map[string]struct {
		script  origintest.Script
		origins int // connections to the origin
	}{
		"an origin that keeps them":    {file("segment"), 1},
		"an origin that does not, SRS": {origintest.Script{}, requests},
	} {
		p := start(t, c.script)
		p.publish(t, "s")
		p.place(t, "s")
		dialed := 0
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
			if !info.Reused {
				dialed++
			}
		}}
		for n := range requests {
			request, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet,
				fmt.Sprintf("%s/live/s-%d.ts?hls_ctx=x", p.url, n), http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			response, err := p.client.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			if _, err = io.Copy(io.Discard, response.Body); err != nil || response.StatusCode != http.StatusOK {
				t.Fatalf("segment %d: status %d, %v", n, response.StatusCode, err)
			}
			_ = response.Body.Close()
		}
		if n := connections(p.origin.Seen("http")); n != c.origins || dialed != 1 {
			t.Errorf("%s: %d requests took %d connections of the client and %d to the origin; want 1 and %d", name, requests, dialed, n, c.origins)
		}
	}
}

func TestBodiesPassAsTheyCome(t *testing.T) {
	release := make(chan struct{})
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-release
	}))
	defer close(release)
	p.place(t, "s")
	for _, path := range []string{"/live/s.flv", "/live/s-1.m4s"} {
		_, reader := p.raw(t, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n")
		response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 5)
		if _, err = io.ReadFull(response.Body, got); err != nil || string(got) != "first" {
			t.Errorf("%s: %q, %v before the rest has come; want what there is", path, got, err)
		}
	}
}

// An HTTP/1.0 client cannot take chunks, and knows the end by the close.
func TestOldClientsGetPlainBodies(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, r *http.Request) {
		for range 3 {
			_, _ = io.WriteString(w, "#EXTM3U "+r.URL.Path)
			_ = http.NewResponseController(w).Flush()
		}
	}))
	p.place(t, "s")
	for _, path := range []string{"/live/s.flv", "/live/s-1.m4s", "/live/s.m3u8"} {
		_, reader := p.raw(t, "GET "+path+" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
		all, err := io.ReadAll(reader)
		head, body, _ := bytes.Cut(all, []byte("\r\n\r\n"))
		if err != nil || string(body) != strings.Repeat("#EXTM3U "+path, 3) || bytes.Contains(bytes.ToLower(head), []byte("chunked")) {
			t.Errorf("%s: %s, %v; want the bytes alone and then the end", path, all, err)
		}
	}
}

func TestPagesOfAnySiteMayPlay(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://only.example")
		w.Header().Set("Access-Control-Allow-Credentials", "true")
		if strings.Contains(r.URL.Path, "missing") {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, media)
	}))
	p.place(t, "s")
	for _, path := range []string{"/live/s.flv", "/live/s.m3u8", "/live/s-1.m4s", "/live/missing.m3u8", "/", "/no/such.file", "/s.flv"} {
		response, _ := p.do(t, http.MethodGet, path, "Origin", "https://page.example")
		if got := response.Header.Values("Access-Control-Allow-Origin"); len(got) != 1 || got[0] != "*" || response.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %v; want ours and not the origin's", path, response.Header)
		}
		before := len(p.origin.Seen("http"))
		response, _ = p.do(t, http.MethodOptions, path, "Origin", "https://page.example",
			"Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "range, x-token")
		h := response.Header
		if response.StatusCode != http.StatusNoContent || h.Get("Access-Control-Allow-Origin") != "*" ||
			h.Get("Access-Control-Allow-Headers") != "range, x-token" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "GET") {
			t.Errorf("preflight of %s: status %d, %v", path, response.StatusCode, h)
		}
		if len(p.origin.Seen("http")) != before {
			t.Errorf("preflight of %s reached the origin", path)
		}
	}
}
