package httpstream_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gohlslib/v2"
	"github.com/bluenviron/gohlslib/v2/pkg/codecs"
	oracle "github.com/bluenviron/gohlslib/v2/pkg/playlist"
	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"

	"srsx/lb"
	"srsx/proxy/httpstream"
	"srsx/test/origintest"
)

const (
	frameTime = 40 * time.Millisecond
	keyFrames = 25 // frames: one second, which is what a segment takes
)

// lowLatency is an origin of LL-HLS with a video and two audio renditions, in
// the folder /live/s/. Each frame carries its number.
func lowLatency(t *testing.T) *origintest.Origin {
	t.Helper()
	sps := []byte{0x67, 0x42, 0xc0, 0x28, 0xd9, 0, 0x78, 0x02, 0x27, 0xe5, 0x84, 0, 0, 3, 0, 4, 0, 0, 3, 0, 0xf0, 0x3c, 0x60, 0xc9, 0x20}
	pps := []byte{8}
	audio := func(name string) *gohlslib.Track {
		config := mpeg4audio.AudioSpecificConfig{Type: mpeg4audio.ObjectTypeAACLC, SampleRate: 48000, ChannelConfig: 2}
		return &gohlslib.Track{Codec: &codecs.MPEG4Audio{Config: config}, ClockRate: 48000, Name: name, Language: name}
	}
	video := &gohlslib.Track{Codec: &codecs.H264{SPS: sps, PPS: pps}, ClockRate: 90000}
	tracks := []*gohlslib.Track{video, audio("en"), audio("de")}
	muxer := &gohlslib.Muxer{Tracks: tracks, Variant: gohlslib.MuxerVariantLowLatency}
	if err := muxer.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var feeding sync.WaitGroup
	feeding.Go(func() {
		pace := time.NewTicker(frameTime)
		defer pace.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-pace.C:
			}
			at := time.Duration(n) * frameTime
			unit := [][]byte{append([]byte{1}, frame(n)...)}
			if n%keyFrames == 0 {
				unit = [][]byte{sps, pps, append([]byte{5}, frame(n)...)}
			}
			err := muxer.WriteH264(video, time.Now(), at.Milliseconds()*90, unit)
			for _, track := range tracks[1:] {
				if err == nil {
					err = muxer.WriteMPEG4Audio(track, time.Now(), at.Milliseconds()*48, [][]byte{frame(n)})
				}
			}
			if err != nil {
				t.Errorf("origin: %v", err)
				return
			}
		}
	})
	// Requests read-lock it while the muxer holds them, which it does for frames:
	// closed under a request, the muxer keeps its lock.
	var held sync.RWMutex
	closed := false
	origin := origintest.Start(t, origintest.Config{Script: answer(func(w http.ResponseWriter, r *http.Request) {
		held.RLock()
		defer held.RUnlock()
		if closed || !strings.HasPrefix(r.URL.Path, "/live/s/") {
			http.NotFound(w, r)
			return
		}
		muxer.Handle(w, r)
	})})
	t.Cleanup(func() {
		held.Lock()
		closed = true
		held.Unlock()
		cancel()
		feeding.Wait()
		muxer.Close()
	})
	awaitContent(t, origin)
	return origin
}

// awaitContent waits for the first segment: the origin holds its playlist so
// long.
func awaitContent(t *testing.T, origin *origintest.Origin) {
	t.Helper()
	response, err := http.Get("http://" + origin.HTTP() + "/live/s/index.m3u8")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("origin: status %d", response.StatusCode)
	}
}

func frame(n int) []byte { return binary.BigEndian.AppendUint32([]byte("frame"), uint32(n)) }

// A whole player of another's making, which skips and preloads, gets every
// frame in order.
func TestLowLatencyPlayerGetsEveryFrame(t *testing.T) {
	origin := lowLatency(t)
	p := startWith(t, setup{origins: []*origintest.Origin{origin}})
	const want = 3 * keyFrames
	frames := make(chan int, 10*want)
	player := &gohlslib.Client{URI: p.url + "/live/s/index.m3u8?token=x", HTTPClient: p.client}
	player.OnDownloadPrimaryPlaylist, player.OnDownloadStreamPlaylist = func(string) {}, func(string) {}
	player.OnDownloadPart, player.OnDownloadSegment = func(string) {}, func(string) {}
	player.OnTracks = func(tracks []*gohlslib.Track) error {
		if len(tracks) != 3 {
			return fmt.Errorf("%d tracks; want a video and two audio renditions", len(tracks))
		}
		for _, track := range tracks {
			if track.Codec.IsVideo() {
				player.OnDataH26x(track, func(_, _ int64, unit [][]byte) {
					last := unit[len(unit)-1]
					frames <- int(binary.BigEndian.Uint32(last[len(last)-4:]))
				})
			}
		}
		return nil
	}
	if err := player.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	var playerErr error
	go func() {
		defer close(ended)
		playerErr = player.Wait2()
	}()
	first := -1
	for got := range want {
		select {
		case n := <-frames:
			if first < 0 {
				first = n
			}
			if n != first+got {
				t.Fatalf("frame %d follows %d", n, first+got-1)
			}
		case <-ended:
			t.Fatalf("player: %v", playerErr)
		case <-time.After(patience):
			t.Fatalf("%d frames in %s; want %d", got, patience, want)
		}
	}
	player.Close()
	<-ended
	skipped := slices.ContainsFunc(origin.Seen("http"), func(s origintest.Seen) bool {
		return s.Request.URL.Query().Get("_HLS_skip") == "YES" && s.Request.URL.Query().Get("token") == "x"
	})
	if !skipped {
		t.Error("the origin saw no _HLS_skip with the player's own token")
	}
	if open := p.Router.Sessions(); len(open) != 1 || open[0].Stream != (lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "s"}) {
		t.Errorf("sessions = %+v; want one of live/s", open)
	}
}

// variant fetches the master playlist of live/s and returns the URL of its
// video, without host.
func (p *peer) variant(t *testing.T) string {
	t.Helper()
	_, body := p.do(t, http.MethodGet, "/live/s/index.m3u8")
	var master oracle.Multivariant
	if err := master.Unmarshal([]byte(body)); err != nil {
		t.Fatalf("master playlist: %v in %s", err, body)
	}
	for _, rendition := range master.Renditions {
		if rendition.URI == nil || !strings.Contains(*rendition.URI, "srsx=") {
			t.Errorf("rendition %+v has no hint", rendition)
		}
	}
	return "/live/s/" + master.Variants[0].URI
}

// reload fetches a media playlist with further parameters.
func (p *peer) reload(t *testing.T, playlist, parameters string) *oracle.Media {
	t.Helper()
	response, body := p.do(t, http.MethodGet, playlist+parameters)
	media := &oracle.Media{}
	if err := media.Unmarshal([]byte(body)); err != nil {
		t.Fatalf("media playlist: %d, %v in %s", response.StatusCode, err, body)
	}
	return media
}

func TestBlockingReloadIsHeldByTheOrigin(t *testing.T) {
	const answerTimeout = 200 * time.Millisecond
	origin, key := lowLatency(t), filepath.Join(t.TempDir(), "key")
	p := startWith(t, setup{origins: []*origintest.Origin{origin}, key: key})
	hasty := startWith(t, setup{origins: []*origintest.Origin{origin}, key: key, change: func(c *httpstream.Config) {
		c.AnswerTimeout, c.HoldTime = answerTimeout, patience
	}})
	playlist := p.variant(t)
	media := p.reload(t, playlist, "")
	for range 2 {
		next := media.MediaSequence + len(media.Segments) + 1 // the segment after the one that is being made
		parameters := "&_HLS_msn=" + strconv.Itoa(next) + "&_HLS_part=2"
		started := time.Now()
		media = hasty.reload(t, playlist, parameters)
		if took := time.Since(started); took < answerTimeout {
			t.Errorf("the reload took %s; want it held for longer than the answer timeout", took)
		}
		if last := media.MediaSequence + len(media.Segments); last < next || last == next && len(media.Parts) < 3 {
			t.Errorf("playlist ends with segment %d and %d parts; want part 2 of %d", last, len(media.Parts), next)
		}
		if seen := origin.Seen("http"); !strings.HasSuffix(seen[len(seen)-1].Request.URL.RawQuery, parameters[1:]) {
			t.Errorf("origin saw %q; want %s", seen[len(seen)-1].Request.URL.RawQuery, parameters)
		}
	}
	// The part that is announced is held as well.
	if response, body := hasty.do(t, http.MethodGet, "/live/s/"+media.PreloadHint.URI); response.StatusCode != http.StatusOK || body == "" {
		t.Errorf("announced part: status %d, %d bytes", response.StatusCode, len(body))
	}
	if response, _ := p.do(t, http.MethodGet, playlist+"&_HLS_msn=100000"); response.StatusCode != http.StatusBadRequest {
		t.Errorf("reload of a far future: status %d; want the origin's 400", response.StatusCode)
	}
}

// Any later peer serves what a playlist names, wherever it thinks that the
// stream is: there is no table.
func TestAnotherPeerServesWhatAPlaylistNames(t *testing.T) {
	origin, other := lowLatency(t), origintest.Start(t, origintest.Config{})
	key := filepath.Join(t.TempDir(), "key")
	first := startWith(t, setup{origins: []*origintest.Origin{origin}, key: key})
	playlist := first.variant(t)
	media := first.reload(t, playlist, "")
	uris := []string{media.Map.URI, media.Segments[len(media.Segments)-1].URI, media.Segments[len(media.Segments)-1].Parts[0].URI}
	bodies := make([]string, len(uris))
	for i, uri := range uris {
		response, body := first.do(t, http.MethodGet, "/live/s/"+uri)
		if response.StatusCode != http.StatusOK || body == "" {
			t.Fatalf("%s: status %d, %d bytes", uri, response.StatusCode, len(body))
		}
		bodies[i] = body
	}
	for name, at := range map[string]*origintest.Origin{"knows nothing of the stream": nil, "has the stream elsewhere": other} {
		second := startWith(t, setup{origins: []*origintest.Origin{origin}, key: key})
		if at != nil {
			second.register(t, at)
			second.place(t, "s")
			if err := second.Balancer.Move(t.Context(), lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "s"}, lb.OriginID(at.Server())); err != nil {
				t.Fatal(err)
			}
		}
		for i, uri := range uris {
			if response, body := second.do(t, http.MethodGet, "/live/s/"+uri); response.StatusCode != http.StatusOK || body != bodies[i] {
				t.Errorf("peer that %s: %s: status %d, %d bytes; want %d", name, uri, response.StatusCode, len(body), len(bodies[i]))
			}
		}
		if at == nil {
			// The player goes on with the variant that it has.
			if again := second.reload(t, playlist, ""); again.MediaSequence < media.MediaSequence {
				t.Errorf("media sequence %d; want %d or later", again.MediaSequence, media.MediaSequence)
			}
		}
	}
}

// Without a valid hint a segment is looked for where its stream is.
func TestHintOfAnotherKeyIsNoHint(t *testing.T) {
	origin := lowLatency(t)
	p := startWith(t, setup{origins: []*origintest.Origin{origin}})
	media := p.reload(t, p.variant(t), "")
	name, query, _ := strings.Cut(media.Map.URI, "?")
	foreign := startWith(t, setup{origins: []*origintest.Origin{origin}})
	if response, _ := foreign.do(t, http.MethodGet, "/live/s/"+media.Map.URI); response.StatusCode != http.StatusNotFound {
		t.Errorf("hint of another key, nothing placed: status %d; want 404", response.StatusCode)
	}
	foreign.place(t, "s")
	for _, query := range []string{"?" + query, "", "?srsx=nonsense", "?srsx=", "?" + url.Values{"srsx": {strings.Repeat("A", 5000)}}.Encode()} {
		if response, body := foreign.do(t, http.MethodGet, "/live/s/"+name+query); response.StatusCode != http.StatusOK || body == "" {
			t.Errorf("query %.40q, stream placed: status %d; want the segment", query, response.StatusCode)
		}
	}
}
