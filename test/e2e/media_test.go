package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"srsx/test/mediatest"
	"srsx/test/peertest"
)

// publishing reports whether app/name has a publisher, as the peer knows it.
func publishing(t *testing.T, peer *peertest.Peer, name string) func() bool {
	t.Helper()
	return func() bool { return peer.Placements(t)[name].Publishing }
}

func awaitOK(t *testing.T, url string) {
	t.Helper()
	peertest.Eventually(t, 20*time.Second, url+" is there", func() bool {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		_ = response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

func TestPublishedByRTMPPlaysByEveryProtocol(t *testing.T) {
	peer := startPeer(t, startLAL(t, "lal1"), startLAL(t, "lal2"), startNginx(t, "nginx1"))
	const seconds = 3
	for _, app := range []string{"lal", "hls", "nginx"} {
		encode(t, "rtmp://"+peer.RTMP+"/"+app+"/cam")
	}
	for _, play := range []struct{ name, url, stream string }{
		{"RTMP of lal", "rtmp://" + peer.RTMP + "/lal/cam", "lal/cam"},
		{"HTTP-FLV of lal", "http://" + peer.HTTP + "/lal/cam.flv", "lal/cam"},
		{"HTTP-TS of lal", "http://" + peer.HTTP + "/lal/cam.ts", "lal/cam"},
		{"HLS of lal", "http://" + peer.HTTP + "/hls/cam.m3u8", "hls/cam"},
		{"RTMP of nginx", "rtmp://" + peer.RTMP + "/nginx/cam", "nginx/cam"},
		{"HLS of nginx", "http://" + peer.HTTP + "/nginx/cam.m3u8", "nginx/cam"},
	} {
		t.Run(play.name, func(t *testing.T) {
			peertest.Eventually(t, 20*time.Second, "publisher", publishing(t, peer, play.stream))
			if play.url[len(play.url)-5:] == ".m3u8" {
				awaitOK(t, play.url)
			}
			frames, messages := decode(t, play.url, seconds)
			requireContinuous(t, frames, seconds)
			if messages != "" {
				t.Errorf("ffmpeg says: %s", messages)
			}
		})
	}
}

// readFLV reads tags of a live body until n of them.
func readFLV(t *testing.T, url string, n int) []mediatest.Tag {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	f, err := mediatest.NewFLVReader(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	tags := make([]mediatest.Tag, 0, n)
	for range n {
		tag, err := f.Next()
		if err != nil {
			t.Fatalf("%s after %d tags: %v", url, len(tags), err)
		}
		tags = append(tags, tag)
	}
	return tags
}

func TestMediaBytesAreThoseOfTheOrigin(t *testing.T) {
	lal := startLAL(t, "lal1")
	peer := startPeer(t, lal)
	encode(t, "rtmp://"+peer.RTMP+"/lal/cam")
	peertest.Eventually(t, 20*time.Second, "publisher", publishing(t, peer, "lal/cam"))
	awaitOK(t, "http://"+lal.http+"/lal/cam.flv")
	const tags = 400
	straight := make(chan []mediatest.Tag, 1)
	go func() { straight <- readFLV(t, "http://"+lal.http+"/lal/cam.flv", tags) }()
	through := readFLV(t, "http://"+peer.HTTP+"/lal/cam.flv", tags)
	compareTags(t, <-straight, through)
}

// compareTags requires that both hold the same headers and, from the first
// frame that both have on, the same tags.
func compareTags(t *testing.T, straight, through []mediatest.Tag) {
	t.Helper()
	key := func(tag mediatest.Tag) string { return fmt.Sprint(tag.Type, tag.Timestamp, string(tag.Data)) }
	split := func(tags []mediatest.Tag) (head, media []string) {
		for _, tag := range tags {
			if tag.Type == mediatest.TypeData || tag.Header() {
				head = append(head, key(tag))
			} else {
				media = append(media, key(tag))
			}
		}
		return head, media
	}
	headA, a := split(straight)
	headB, b := split(through)
	if !slices.Equal(headA, headB) {
		t.Errorf("headers through the peer differ from the origin's")
	}
	if from := slices.Index(a, b[0]); from >= 0 {
		a = a[from:]
	} else if from := slices.Index(b, a[0]); from >= 0 {
		b = b[from:]
	} else {
		t.Fatal("no common frame")
	}
	common := min(len(a), len(b))
	if common < 200 {
		t.Fatalf("only %d frames in common", common)
	}
	for i := range common {
		if a[i] != b[i] {
			t.Fatalf("tag %d of %d through the peer differs from the origin's", i, common)
		}
	}
}
