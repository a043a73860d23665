package httpstream_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"srsx/lb"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

// media is a media playlist that names all that a segment needs.
const media = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:1,\ns-1.m4s\n"

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
	if open := p.Sessions(); open != 1 {
		t.Errorf("%d sessions; want the one viewer", open)
	}
	for _, seen := range p.origin.Seen("http") {
		if strings.Contains(seen.Request.URL.RawQuery, "srsx=") {
			t.Errorf("the origin saw our hint in %q", seen.Request.URL.RawQuery)
		}
	}
	proxytest.Eventually(t, "the viewer's session ends after its last request", func() bool { return p.Sessions() == 0 })
	// The hint outlives the session: no table is needed to serve a segment.
	if response, _ := p.do(t, http.MethodGet, "/live/"+segment); response.StatusCode != http.StatusOK {
		t.Errorf("segment after its session: status %d", response.StatusCode)
	}
}

func TestMovedStreamIsFollowedByPlaylists(t *testing.T) {
	p := start(t, origintest.Script{})
	p.publish(t, "s")
	response, master := p.do(t, http.MethodGet, "/live/s.m3u8")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("master: %d", response.StatusCode)
	}
	child := lastLine(master)
	second := origintest.Start(t, origintest.Config{})
	p.register(t, second)
	if err := p.Balancer.Move(t.Context(), lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "s"}, lb.OriginID(second.Server())); err != nil {
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
	before := p.Router.Sessions()
	response, _ := p.do(t, http.MethodGet, "/live/s.m3u8", "If-Modified-Since", "Mon, 23 Nov 2026 20:00:00 GMT")
	if response.StatusCode != http.StatusNotModified {
		t.Fatalf("status %d", response.StatusCode)
	}
	after := p.Router.Sessions()
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

func TestPageThatIsNoPlaylistPassesUnchanged(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>\nhello\n") }))
	if _, body := p.do(t, http.MethodGet, "/live/s.m3u8"); body != "<html>\nhello\n" {
		t.Errorf("body became %q", body)
	}
}

// Whatever a playlist names is the origin's, whether we know its extension or
// not: new ones come, and keys have none.
func TestWhatHasAHintNeedsNoExtension(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/live/s.m3u8" {
			_, _ = io.WriteString(w, "#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI=\"/keys/get?id=7\"\n#EXTINF:1,\ns-1.new\n")
			return
		}
		_, _ = io.WriteString(w, r.URL.RequestURI())
	}))
	_, playlist := p.do(t, http.MethodGet, "/live/s.m3u8")
	_, key, _ := strings.Cut(playlist, `URI="`)
	key, _, _ = strings.Cut(key, `"`)
	for path, want := range map[string]string{key: "/keys/get?id=7", "/live/" + lastLine(playlist): "/live/s-1.new"} {
		if response, body := p.do(t, http.MethodGet, path); response.StatusCode != http.StatusOK || body != want {
			t.Errorf("%s: status %d, %q; want %s from the origin", path, response.StatusCode, body, want)
		}
	}
	if response, _ := p.do(t, http.MethodGet, "/keys/get?id=7"); response.StatusCode != http.StatusNotFound {
		t.Errorf("the same without a hint: status %d; want 404", response.StatusCode)
	}
	if open := p.Sessions(); open != 1 {
		t.Errorf("%d sessions; want the one viewer", open)
	}
}

// MediaMTX and others call the playlists of all streams alike, in a folder each.
func TestFolderOfAPlaylistNamesTheStream(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, media) }))
	stream := func(app, name string) lb.Stream { return lb.Stream{VHost: lb.DefaultVHost, App: app, Name: name} }
	for _, c := range []struct {
		path string
		want lb.Stream
	}{
		{"/live/s/index.m3u8", stream("live", "s")},
		{"/a/b/s/master.m3u8", stream("a/b", "s")},
		{"/live/playlist.m3u8", stream("live", "playlist")},
		{"/live/s/other.m3u8", stream("live/s", "other")},
	} {
		before := len(p.Router.Sessions())
		_, _ = p.do(t, http.MethodGet, c.path)
		if open := p.Router.Sessions(); len(open) != before+1 || open[before].Stream != c.want {
			t.Errorf("%s: sessions %+v; want one more, of %v", c.path, open, c.want)
		}
	}
	lease, err := p.Balancer.Acquire(t.Context(), lb.Want{Stream: stream("live/t", "index"), Protocol: lb.HTTP})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Balancer.Release(lease)
	_, _ = p.do(t, http.MethodGet, "/live/t/index.m3u8")
	if open := p.Router.Sessions(); open[len(open)-1].Stream != stream("live/t", "index") {
		t.Errorf("sessions %+v; want one of the stream that is placed under the whole name", open)
	}
}

func TestManifestPassesUnchanged(t *testing.T) {
	const manifest = `<?xml version="1.0"?><MPD><BaseURL>s/</BaseURL></MPD>`
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/dash+xml")
		_, _ = io.WriteString(w, manifest)
	}))
	response, body := p.do(t, http.MethodGet, "/live/s.mpd")
	if response.StatusCode != http.StatusOK || body != manifest || response.Header.Get("Content-Type") != "application/dash+xml" {
		t.Errorf("status %d, %v, %q; want the origin's manifest", response.StatusCode, response.Header, body)
	}
	if response, _ = p.do(t, http.MethodGet, "/live/s-1.m4s"); response.StatusCode != http.StatusOK {
		t.Errorf("its segment: status %d", response.StatusCode)
	}
}

// A player asks for several playlists at once when it starts.
func TestViewerIsOneSession(t *testing.T) {
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, media) }))
	var asking sync.WaitGroup
	for range 20 {
		asking.Go(func() {
			if _, _, err := p.try(t, http.MethodGet, "/live/s.m3u8"); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	if open := p.Router.Sessions(); len(open) != 1 || open[0].Kind != "hls" || open[0].BytesOut == 0 {
		t.Errorf("sessions = %+v; want the one viewer", open)
	}
	if ended := p.Log.Lines("session ended"); len(ended) != 0 {
		t.Errorf("log = %q; want none ended", ended)
	}
}
