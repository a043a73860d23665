package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"srsx/test/origintest"
)

// Each metric moves with what it counts.
func TestMetricsMove(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-place-timeout", "2s"}})
	if _, err := p.tryPublish(t, "early"); err == nil {
		t.Fatal("published without an origin")
	}
	o := p.originAt(t, origintest.Config{Server: "o1"})
	encoder := p.publish(t, "one")
	viewer := p.play(t, "one")
	requireFrames(t, viewer, "one")
	missing := p.httpStatus(t, "/live/none.flv")
	if missing != http.StatusNotFound {
		t.Fatalf("play over HTTP = %d; want the origin's 404", missing)
	}
	eventually(t, "the HTTP session ended", func() bool { return p.metric(t, "srsx_sessions_ended_total", `kind="flv"`) == 1 })
	for _, test := range []struct {
		want   float64 // negative: anything above zero
		name   string
		labels []string
	}{
		{1, "srsx_sessions", []string{`kind="rtmp"`, `direction="publish"`}},
		{1, "srsx_sessions", []string{`kind="rtmp"`, `direction="play"`}},
		{2, "srsx_sessions_opened_total", []string{`kind="rtmp"`}},
		{1, "srsx_sessions_opened_total", []string{`kind="flv"`, `direction="play"`}},
		{1, "srsx_refusals_total", []string{`kind="rtmp"`, `direction="publish"`, `reason="no origin available"`}},
		{-1, "srsx_media_bytes_total", []string{`kind="rtmp"`, `direction="in"`}},
		{-1, "srsx_media_bytes_total", []string{`kind="rtmp"`, `direction="out"`}},
		{2, "srsx_dials_total", []string{`protocol="rtmp"`, `result="ok"`}},
		{1, "srsx_dials_total", []string{`protocol="http"`, `result="ok"`}},
		{2, "srsx_dial_seconds_count", []string{`protocol="rtmp"`}},
		{-1, "srsx_dial_seconds_sum", nil},
		{1, "srsx_placements_acquired_total", []string{`protocol="rtmp"`, `result="no_origin"`}},
		{2, "srsx_placements_acquired_total", []string{`protocol="rtmp"`, `result="ok"`}},
		{3, "srsx_placement_acquire_seconds_count", []string{`protocol="rtmp"`}},
		{-1, "srsx_placement_acquire_seconds_sum", nil},
		{2, "srsx_placements", nil},
		{2, "srsx_connections", []string{`listener="rtmp"`}},
		{0, "srsx_ejected_origins", nil},
		{1, "srsx_origin_up", []string{`origin="o1"`}},
		{1, "srsx_origin_state", []string{`origin="o1"`, `state="up"`}},
		{0, "srsx_origin_state", []string{`origin="o1"`, `state="draining"`}},
		{2, "srsx_origin_streams", []string{`origin="o1"`}},
		{100, "srsx_origin_weight", []string{`origin="o1"`}},
		{1, "srsx_build_info", []string{"version="}},
		{-1, "go_goroutines", nil},
		{-1, "process_open_fds", nil},
	} {
		got := p.metric(t, test.name, test.labels...)
		if test.want >= 0 && got != test.want || test.want < 0 && got <= 0 {
			t.Errorf("%s%v = %v; want %v", test.name, test.labels, got, test.want)
		}
	}
	p.must(t, "origin", "drain", "o1")
	if up, draining := p.metric(t, "srsx_origin_up"), p.metric(t, "srsx_origin_state", `state="draining"`); up != 0 || draining != 1 {
		t.Errorf("up %v, draining %v; want 0 and 1", up, draining)
	}
	viewer.Close()
	encoder.end()
	eventually(t, "the ends are counted", func() bool {
		return p.metric(t, "srsx_sessions_ended_total", `kind="rtmp"`, `direction="play"`, `reason="done"`) == 1
	})
	eventually(t, "sessions back to zero", func() bool { return p.metric(t, "srsx_sessions") == 0 })
	if o.Kill(); p.metric(t, "srsx_media_bytes_total", `direction="in"`) <= 0 {
		t.Error("the bytes of ended sessions are forgotten")
	}
	p.must(t, "origin", "remove", "o1")
	if got := p.metric(t, "srsx_origin_up"); got != -1 {
		t.Errorf("a removed origin leaves its series behind: %v", got)
	}
}

// The number of series does not grow with streams, clients or names tried.
func TestNoSeriesForStreamsOrClients(t *testing.T) {
	p := startPeer(t, options{})
	p.originAt(t, origintest.Config{})
	use := func(name, client string) {
		t.Helper()
		requireLimit(t, name, p.playAs(t, client, name), "")
		if status := p.httpStatus(t, "/live/"+name+".flv"); status != http.StatusNotFound {
			t.Fatalf("HTTP play of %s = %d", name, status)
		}
	}
	series := func() (text string, n int) {
		t.Helper()
		_, text = p.here().call(t, "GET", "/metrics", "")
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "srsx_") {
				n++
			}
		}
		return text, n
	}
	use("cam0", "203.0.113.50")
	eventually(t, "the session over HTTP ended", func() bool { return p.metric(t, "srsx_sessions_ended_total", `kind="flv"`) == 1 })
	_, before := series()
	for i := range 20 {
		use(fmt.Sprint("cam", 1+i), fmt.Sprint("203.0.113.", 51+i))
	}
	text, after := series()
	if after != before {
		t.Errorf("%d series after one stream, %d after 21", before, after)
	}
	if strings.Contains(text, "cam1") || strings.Contains(text, "203.0.113") {
		t.Error("a series names a stream or a client")
	}
}
