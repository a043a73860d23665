package origintest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib/pkg/amf0"

	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

func publish(t *testing.T, o *origintest.Origin, name string) {
	t.Helper()
	c, err := mediatest.Dial(t.Context(), mediatest.Target{Addr: o.RTMP(), App: "live"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(name); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.Send(ctx, mediatest.NewPattern(name))
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func get(t *testing.T, url string) (status int, content string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func TestViewerWhoComesFirstGetsTheStream(t *testing.T) {
	o := origintest.Start(t, origintest.Config{})
	viewer, err := mediatest.Dial(t.Context(), mediatest.Target{Addr: o.RTMP(), App: "live"})
	if err != nil {
		t.Fatal(err)
	}
	defer viewer.Close()
	if err := viewer.Play("a?token=x"); err != nil {
		t.Fatal(err)
	}
	publish(t, o, "a")
	for want := range uint32(5) {
		name, n, err := viewer.NextFrame()
		if err != nil || name != "a" || n != want {
			t.Fatalf("frame = %q %d, %v; want a %d", name, n, err, want)
		}
	}
	if seen := o.Seen("play"); len(seen) != 1 || seen[0].Name != "a?token=x" {
		t.Errorf("play seen = %+v; want a?token=x", seen)
	}
}

func TestRefusalsAreSaidInSRSsWords(t *testing.T) {
	o := origintest.Start(t, origintest.Config{Script: origintest.Script{
		RefusePublish: &origintest.Status{Code: "NetStream.Publish.BadName", Description: "no"},
		RefuseConnect: nil,
	}})
	c, err := mediatest.Dial(t.Context(), mediatest.Target{Addr: o.RTMP(), App: "live"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var refused *mediatest.StatusError
	if err = c.Publish("a"); !errors.As(err, &refused) || refused.Code != "NetStream.Publish.BadName" {
		t.Errorf("Publish = %v; want NetStream.Publish.BadName", err)
	}
	o.Behave(origintest.Script{RefuseConnect: &origintest.Status{
		Code: "NetConnection.Connect.Rejected", Redirect: "rtmp://other/live",
	}})
	_, err = mediatest.Dial(t.Context(), mediatest.Target{Addr: o.RTMP(), App: "live"})
	if !errors.As(err, &refused) {
		t.Fatalf("Dial = %v; want a refusal", err)
	}
	ex, _ := refused.Info.Get("ex")
	object, _ := ex.(amf0.Object)
	if to, _ := object.GetString("redirect"); to != "rtmp://other/live" {
		t.Errorf("refusal = %+v; want a redirect", refused.Info)
	}
}

func TestFLVCarriesThePublishedFrames(t *testing.T) {
	o := origintest.Start(t, origintest.Config{})
	publish(t, o, "a")
	proxytest.Eventually(t, "publisher", func() bool { return o.Publishing("live/a") })
	r, err := http.Get("http://" + o.HTTP() + "/live/a.flv")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	f, err := mediatest.NewFLVReader(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for frames := 0; frames < 5; {
		tag, err := f.Next()
		if err != nil {
			t.Fatal(err)
		}
		if name, _, ok := mediatest.PatternFrame(tag); ok {
			if name != "a" {
				t.Fatalf("frame of %q; want a", name)
			}
			frames++
		}
	}
}

func TestHLSStartsWithAMasterAndAnUnknownContextGetsOneAgain(t *testing.T) {
	o := origintest.Start(t, origintest.Config{})
	publish(t, o, "h1")
	proxytest.Eventually(t, "publisher", func() bool { return o.Publishing("live/h1") })
	_, master := get(t, "http://"+o.HTTP()+"/live/h1.m3u8?token=p4")
	if !strings.Contains(master, "/live/h1.m3u8?hls_ctx=") || !strings.Contains(master, "&token=p4") {
		t.Fatalf("master = %q", master)
	}
	var child string
	for s := bufio.NewScanner(strings.NewReader(master)); s.Scan(); {
		if !strings.HasPrefix(s.Text(), "#") {
			child = s.Text()
		}
	}
	_, media := get(t, "http://"+o.HTTP()+child)
	if !strings.Contains(media, "#EXTINF") || !strings.Contains(media, "h1-") {
		t.Errorf("media playlist = %q", media)
	}
	if _, again := get(t, "http://"+o.HTTP()+"/live/h1.m3u8?hls_ctx=zzz"); !strings.Contains(again, "hls_ctx=zzz") || !strings.Contains(again, "STREAM-INF") {
		t.Errorf("unknown context = %q; want a master that adopts it", again)
	}
	if status, body := get(t, "http://"+o.HTTP()+"/live/h1-7.ts"); status != http.StatusOK || body != string(origintest.Segment("live/h1", 7)) {
		t.Errorf("segment = %d, %d bytes", status, len(body))
	}
}

func TestHeartbeatIsSRSsAndARestartChangesTheIncarnation(t *testing.T) {
	beats := make(chan map[string]any, 100)
	register := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(w, `{"code":0,"pid":"1"}`)
		beats <- body
	}))
	defer register.Close()
	o := origintest.Start(t, origintest.Config{
		Register: register.URL + "/api/v1/srs/register", Interval: 20 * time.Millisecond, DeviceID: "d",
	})
	first := <-beats
	for _, field := range []string{"ip", "server", "service", "pid", "device_id"} {
		if s, ok := first[field].(string); !ok || s == "" {
			t.Errorf("%s = %v; want a text", field, first[field])
		}
	}
	o.Restart(t)
	proxytest.Eventually(t, "heartbeat of the new incarnation", func() bool {
		second := <-beats
		return second["server"] == first["server"] && second["pid"] != first["pid"] && second["service"] != first["service"]
	})
}
