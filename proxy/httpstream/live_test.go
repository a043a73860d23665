package httpstream_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"srsx/proxy"
	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

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

func TestLiveHeaderIsSentBeforeTheFirstByteOfMedia(t *testing.T) {
	release := make(chan struct{})
	p := start(t, answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "video/x-flv")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-release
	}))
	defer close(release)
	_, reader := p.raw(t, "GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n")
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
	_, reader := p.raw(t, "GET /live/s.flv HTTP/1.1\r\nHost: h\r\n\r\n")
	response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(response.Body); err == nil {
		t.Errorf("body %q ends as if it were whole", body)
	}
}

func TestLiveBodiesOfEachKind(t *testing.T) {
	p := start(t, origintest.Script{})
	p.publish(t, "s")
	for ext, kind := range map[string]string{".ts": "video/MP2T", ".mp3": "audio/mp3", ".aac": "audio/x-aac"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/live/s"+ext, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := p.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != kind {
			t.Errorf("%s: status %d, type %q; want 200 and %s", ext, response.StatusCode, response.Header.Get("Content-Type"), kind)
		}
		want := string(origintest.Segment("live/s", 0)[:40*188]) // its packets are numbered as those of a live body
		got := make([]byte, len(want))
		if _, err = io.ReadFull(response.Body, got); err != nil || string(got) != want {
			t.Errorf("%s: read %v; want the origin's bytes", ext, err)
		}
		if open := p.Router.Sessions(); len(open) != 1 || open[0].Kind != ext[1:] {
			t.Errorf("%s: sessions %+v; want one of its kind", ext, open)
		}
		_ = response.Body.Close()
		proxytest.Eventually(t, "the session ends with its player", func() bool { return p.Sessions() == 0 })
	}
}
