package devorigin

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"srsx/proxy/edge"
	"srsx/test/mediatest"
	"srsx/test/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// running is an origin that serves until its test ends.
type running struct {
	*Origin

	rtmp, http string // host:port
	client     *http.Client
	log        *proxytest.Log
}

func serve(t *testing.T, change func(*patience)) *running {
	t.Helper()
	r := &running{log: &proxytest.Log{}, client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: proxytest.Patience}}
	r.Origin = New(slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if change != nil {
		change(&r.patience)
	}
	var listeners [2]net.Listener
	for i := range listeners {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners[i] = ln
	}
	r.rtmp, r.http = listeners[0].Addr().String(), listeners[1].Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := r.Serve(ctx, listeners[0], listeners[1]); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); serving.Wait() })
	return r
}

func (r *running) dial(t *testing.T, app string) *mediatest.Client {
	t.Helper()
	c, err := mediatest.Dial(context.Background(), mediatest.Target{Addr: r.rtmp, TCURL: "rtmp://h/" + app})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	_ = c.SetDeadline(time.Now().Add(proxytest.Patience))
	return c
}

// reply is an answer over HTTP.
type reply struct {
	status int
	kind   string    // content type
	body   io.Reader // until the end of the test
}

func (r *running) get(t *testing.T, path string) reply {
	t.Helper()
	response, err := r.client.Get("http://" + r.http + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = response.Body.Close() })
	return reply{response.StatusCode, response.Header.Get("Content-Type"), response.Body}
}

func (r *running) text(t *testing.T, path string) string {
	t.Helper()
	b, err := io.ReadAll(r.get(t, path).body)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	return string(b)
}

// publish publishes a pattern until stopped, or until the test ends.
func (r *running) publish(t *testing.T, name string) (stop func()) {
	t.Helper()
	c := r.dial(t, "live")
	if err := c.Publish(name); err != nil {
		t.Fatalf("publish %s: %v", name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var sending sync.WaitGroup
	sending.Go(func() { _ = c.Send(ctx, mediatest.NewPattern(name)) })
	stop = func() { cancel(); sending.Wait() }
	t.Cleanup(stop)
	return stop
}

// The clip runs on for ever: its last frame and its first are as far apart as
// any two.
func TestClipLoopsWithoutAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags, err := readFLV(clip)
		if err != nil {
			t.Fatal(err)
		}
		hub := edge.New()
		p, err := hub.Publish("s")
		if err != nil {
			t.Fatal(err)
		}
		v, err := hub.Play("s")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 35*time.Second) // three rounds and a half
		defer cancel()
		var playing sync.WaitGroup
		playing.Go(func() { loop(ctx, p, tags) })
		defer playing.Wait()
		last := map[uint8]uint32{}
		for {
			batch, err := v.Next(ctx)
			if err != nil {
				break
			}
			for _, m := range batch {
				if before, ok := last[m.Type]; ok && (m.Timestamp < before || m.Timestamp-before > 101) {
					t.Errorf("type %d: %d ms follow %d ms", m.Type, m.Timestamp, before)
				}
				if m.Type != mediatest.TypeData {
					last[m.Type] = m.Timestamp
				}
			}
		}
		for kind, at := range last {
			if at < 34_000 || at > 36_000 {
				t.Errorf("type %d: %d ms of stream in 35 s", kind, at)
			}
		}
	})
}

func TestClipHasItsNameFromTheStart(t *testing.T) {
	r := serve(t, nil)
	proxytest.Eventually(t, "the clip is published", func() bool { return r.hub.Published(clipName) })
	if err := r.dial(t, "live").Publish("demo"); err == nil {
		t.Error("somebody else publishes the clip's name")
	}
}

func TestPublishedStreamPlaysByRTMPAndFLV(t *testing.T) {
	r := serve(t, nil)
	r.publish(t, "mine?token=1")
	player := r.dial(t, "live/_definst_")
	if err := player.Play("mine?token=2"); err != nil {
		t.Fatal(err)
	}
	answer := r.get(t, "/live/mine.flv?token=3")
	if answer.kind != "video/x-flv" {
		t.Errorf("content type = %q; want video/x-flv", answer.kind)
	}
	flv, err := mediatest.NewFLVReader(answer.body)
	if err != nil {
		t.Fatal(err)
	}
	want := mediatest.NewPattern("mine?token=1").Head()
	for name, next := range map[string]func() (mediatest.Tag, error){"RTMP": player.NextTag, "FLV": flv.Next} {
		for i, head := range want {
			if tag, err := next(); err != nil || tag.Type != head.Type || string(tag.Data) != string(head.Data) {
				t.Fatalf("%s: header %d is %v, %v; want %v", name, i, tag, err, head)
			}
		}
		last := uint32(0)
		for i := range 30 {
			tag, err := next()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_, number, ok := mediatest.PatternFrame(tag)
			if !ok || i > 0 && number != last+1 {
				t.Fatalf("%s: frame %d follows %d, %v", name, number, last, ok)
			}
			last = number
		}
	}
}

// An encoder may go on on its connection after a break.
func TestStreamIsPublishedAgainOnItsConnection(t *testing.T) {
	r := serve(t, nil)
	c := r.dial(t, "live")
	for range 3 {
		if err := c.Publish("s"); err != nil {
			t.Fatal(err)
		}
		if !r.hub.Published("live/s") {
			t.Fatal("accepted, and not published")
		}
		if err := c.WriteCommand(false, "deleteStream", 9.0, nil, 1.0); err != nil {
			t.Fatal(err)
		}
		proxytest.Eventually(t, "unpublished", func() bool { return !r.hub.Published("live/s") })
	}
}

func TestSecondPublisherIsRefused(t *testing.T) {
	r := serve(t, nil)
	r.publish(t, "s")
	err := r.dial(t, "live").Publish("s")
	if err == nil || !strings.Contains(err.Error(), "NetStream.Publish.BadName") {
		t.Errorf("second Publish = %v; want NetStream.Publish.BadName", err)
	}
}

func TestPlayersAreToldOfTheEnd(t *testing.T) {
	r := serve(t, nil)
	stop := r.publish(t, "s")
	c := r.dial(t, "live")
	if err := c.Play("s"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.NextFrame(); err != nil {
		t.Fatal(err)
	}
	stop()
	for {
		if _, err := c.NextTag(); err != nil {
			if err != io.EOF { //nolint:errorlint // the client's own word for UnpublishNotify
				t.Errorf("the end is %v; want UnpublishNotify", err)
			}
			break
		}
	}
}

func TestWhatIsNotPublishedIsNotFound(t *testing.T) {
	r := serve(t, nil)
	for _, path := range []string{
		"/", "/live", "/live/no.flv", "/live/no.ts", "/live/no.m3u8", "/live/demo.mp4", "/live/demo", "/live/demo-1.ts",
		"/live/demo-x.ts", "/live/demo-99999999999999999999.ts", "/live/demo-.ts", "/../live/no.flv", "/live/%00.flv",
	} {
		if answer := r.get(t, path); answer.status != http.StatusNotFound {
			t.Errorf("GET %s = %d; want 404", path, answer.status)
		}
	}
}
