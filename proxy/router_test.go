package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"srsx/lb"
	"srsx/proxy"
	"srsx/test/proxytest"
)

func TestNewStreamGoesElsewhereWhenItsOriginRefuses(t *testing.T) {
	f := newFake(deadOrigin(t, "dead"), liveOrigin(t, "live"))
	r := run(t, f, proxy.RouterConfig{})
	s := open(t, r)
	mustDial(t, s)
	if got := s.Origin().ID; got != "live" {
		t.Errorf("origin = %s; want live", got)
	}
	if !slices.Contains(f.suspected, "dead") {
		t.Error("the backend was not told")
	}
	s.End(nil)
	if f.holds() != 0 {
		t.Errorf("%d holds left; want 0", f.holds())
	}
	// The next new stream avoids it without a dial.
	next := request()
	next.Stream.Name = "next"
	other, err := r.Open(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	defer other.End(nil)
	if got := other.Origin().ID; got != "live" {
		t.Errorf("next stream is on %s; want live", got)
	}
}

func TestPlacedStreamStaysUntilTheBackendSaysDown(t *testing.T) {
	f := newFake(deadOrigin(t, "dead"), liveOrigin(t, "live"))
	r := run(t, f, proxy.RouterConfig{PlaceTimeout: 300 * time.Millisecond})
	first := open(t, r) // somebody else relies on the placement
	defer first.End(nil)

	second := open(t, r)
	_, err := second.Dial(t.Context())
	if !errors.Is(err, proxy.ErrUnreachable) {
		t.Fatalf("Dial = %v; want ErrUnreachable", err)
	}
	if got := second.Origin().ID; got != "dead" {
		t.Errorf("origin = %s; want the stream to stay", got)
	}
	second.End(err)

	f.onSuspect = func(id lb.OriginID) { f.setState(id, lb.Down) }
	third := open(t, r)
	defer third.End(nil)
	mustDial(t, third)
	if got := third.Origin().ID; got != "live" {
		t.Errorf("origin after the verdict = %s; want live", got)
	}
}

func TestUnreachableFollowsTheVerdict(t *testing.T) {
	f := newFake(deadOrigin(t, "dead"), liveOrigin(t, "live"))
	r := run(t, f, proxy.RouterConfig{PlaceTimeout: 300 * time.Millisecond})
	s := open(t, r)
	if err := s.Unreachable(t.Context(), errors.New("refused")); err != nil {
		t.Fatal(err)
	}
	if got := s.Origin().ID; got != "live" {
		t.Errorf("origin = %s; want live", got)
	}
	s.Count(1, 0)
	if err := s.Unreachable(t.Context(), errors.New("refused")); !errors.Is(err, proxy.ErrUnreachable) {
		t.Errorf("Unreachable after media = %v; want ErrUnreachable", err)
	}
	s.End(nil)
}

func TestEjectedOriginComesBackByProbe(t *testing.T) {
	origin := liveOrigin(t, "a")
	f := newFake(origin)
	r := run(t, f, proxy.RouterConfig{PlaceTimeout: 200 * time.Millisecond})
	s := open(t, r)
	// It looked dead for a moment; the only origin is avoided now.
	if err := s.Unreachable(t.Context(), errors.New("timeout")); err == nil {
		t.Fatal("Unreachable found another origin; want none")
	}
	s.End(nil)
	proxytest.Eventually(t, "return of the origin", func() bool {
		s, err := r.Open(t.Context(), request())
		if err != nil {
			return false
		}
		s.End(nil)
		return true
	})
}

// An origin whose UDP port is dead serves TCP as before, and is probed by what
// speaks the protocol.
func TestEjectionByOneProtocolIsNotOneByAnother(t *testing.T) {
	var srtWorks atomic.Bool
	f := newFake(liveOrigin(t, "a"))
	r := run(t, f, proxy.RouterConfig{PlaceTimeout: 100 * time.Millisecond, Probes: map[lb.Protocol]func(context.Context, string) error{
		lb.SRT: func(context.Context, string) error {
			if !srtWorks.Load() {
				return errors.New("silent")
			}
			return nil
		},
	}})
	bySRT := request()
	bySRT.Protocol = lb.SRT
	s, err := r.Open(t.Context(), bySRT)
	if err != nil {
		t.Fatal(err)
	}
	s.End(s.Unreachable(t.Context(), errors.New("silent")))
	if got := r.Ejected(); !slices.Equal(got, []lb.OriginID{"a"}) {
		t.Errorf("Ejected = %v; want a", got)
	}
	if s, err = r.Open(t.Context(), bySRT); err == nil {
		t.Error("a new SRT stream was placed where SRT is dead")
		s.End(nil)
	}
	byRTMP := open(t, r)
	mustDial(t, byRTMP)
	byRTMP.End(nil)
	if len(r.Ejected()) == 0 {
		t.Error("a TCP connection took the origin back for SRT")
	}
	srtWorks.Store(true)
	proxytest.Eventually(t, "return of the origin", func() bool { return len(r.Ejected()) == 0 })
}

func TestEventsEndTheSessionsTheyConcern(t *testing.T) {
	tests := map[string]struct {
		event lb.Event
		want  error // nil: the session goes on
	}{
		"moved":          {lb.Event{Kind: lb.StreamMoved, Stream: stream, From: "a", Origin: "b", Generation: 2}, proxy.ErrMoved},
		"moved earlier":  {lb.Event{Kind: lb.StreamMoved, Stream: stream, From: "b", Origin: "a", Generation: 1}, nil},
		"forgotten":      {lb.Event{Kind: lb.StreamForgotten, Stream: stream, Origin: "a", Generation: 1}, proxy.ErrForgotten},
		"drained":        {lb.Event{Kind: lb.OriginDrained, Origin: "a"}, proxy.ErrDrained},
		"removed":        {lb.Event{Kind: lb.OriginRemoved, Origin: "a"}, proxy.ErrRemoved},
		"other drained":  {lb.Event{Kind: lb.OriginDrained, Origin: "b"}, nil},
		"down":           {lb.Event{Kind: lb.OriginDown, Origin: "a"}, nil},
		"replaced":       {lb.Event{Kind: lb.StreamReplaced, Stream: stream, From: "a", Origin: "b", Generation: 2}, nil},
		"another stream": {lb.Event{Kind: lb.StreamForgotten, Stream: lb.Stream{Name: "x"}, Generation: 9}, nil},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			f := newFake(liveOrigin(t, "a"))
			r := run(t, f, proxy.RouterConfig{})
			s := open(t, r)
			defer s.End(nil)
			probe := request() // its end shows that the event before was handled
			probe.Stream.Name = "probe"
			marker, err := r.Open(t.Context(), probe)
			if err != nil {
				t.Fatal(err)
			}
			defer marker.End(nil)
			f.send(tc.event)
			f.send(lb.Event{Kind: lb.StreamForgotten, Stream: probe.Stream, Generation: 99})
			ended := s.Context()
			if tc.want == nil {
				ended = marker.Context()
			}
			select {
			case <-ended.Done():
			case <-time.After(5 * time.Second):
				t.Fatal("events not handled")
			}
			if got := context.Cause(s.Context()); !errors.Is(got, tc.want) {
				t.Errorf("cause = %v; want %v", got, tc.want)
			}
		})
	}
}

func TestLostEventsAreFoundByReading(t *testing.T) {
	f := newFake(liveOrigin(t, "a"))
	r := run(t, f, proxy.RouterConfig{})
	s := open(t, r)
	defer s.End(nil)
	f.mu.Lock()
	f.history = []lb.Event{{Kind: lb.StreamMoved, Stream: stream, From: "a", Origin: "b", Generation: 2}}
	close(f.events[0])
	f.events = nil
	f.mu.Unlock()
	select {
	case <-s.Context().Done():
	case <-time.After(5 * time.Second):
		t.Fatal("session goes on; want it moved")
	}
	if got := context.Cause(s.Context()); !errors.Is(got, proxy.ErrMoved) {
		t.Errorf("cause = %v; want ErrMoved", got)
	}
}

func TestLimitsNameThemselvesAndGiveBack(t *testing.T) {
	f := newFake(liveOrigin(t, "a"))
	r := run(t, f, proxy.RouterConfig{Limits: proxy.Limits{SessionsPerClient: 1, PlacementRatePerClient: 0.05}})
	s := open(t, r)
	_, err := r.Open(t.Context(), request())
	refusal := proxy.RefusalOf(err)
	if refusal.Status != 429 || !strings.Contains(refusal.Reason, "sessions per address") {
		t.Errorf("refusal = %+v; want 429 sessions per address", refusal)
	}
	s.End(nil)
	open(t, r).End(nil)
	another := request()
	another.Stream.Name = "another"
	if _, err = r.Open(t.Context(), another); !strings.Contains(proxy.RefusalOf(err).Reason, "new streams per address") {
		t.Errorf("Open of a second new stream = %v; want the rate limit", err)
	}
}

func TestOpenWaitsOnlyThePlaceTimeout(t *testing.T) {
	r := run(t, newFake(), proxy.RouterConfig{PlaceTimeout: 50 * time.Millisecond})
	_, err := r.Open(t.Context(), request())
	if refusal := proxy.RefusalOf(err); refusal.Status != 503 || !refusal.Retryable {
		t.Errorf("RefusalOf(%v) = %+v; want a retryable 503", err, refusal)
	}
}

func TestClientWhoWaitsLessIsRefusedEarlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := proxy.NewRouter(newFake(), proxy.RouterConfig{PlaceTimeout: time.Minute})
		hasty := request()
		hasty.MaxWait = 2500 * time.Millisecond
		started := time.Now()
		if _, err := r.Open(t.Context(), hasty); !errors.Is(err, lb.ErrNoOrigin) {
			t.Errorf("Open = %v; want no origin", err)
		}
		if waited := time.Since(started); waited > 3*time.Second {
			t.Errorf("waited %v; want no longer than the client does", waited)
		}
	})
}

func TestShutdownEndsSessionsAndWaits(t *testing.T) {
	r := run(t, newFake(liveOrigin(t, "a")), proxy.RouterConfig{})
	s := open(t, r)
	r.CloseAll(proxy.ErrShutdown)
	if _, err := r.Open(t.Context(), request()); !errors.Is(err, proxy.ErrShutdown) {
		t.Errorf("Open = %v; want ErrShutdown", err)
	}
	if got := context.Cause(s.Context()); !errors.Is(got, proxy.ErrShutdown) {
		t.Errorf("cause = %v; want ErrShutdown", got)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := r.Wait(short); err == nil {
		t.Error("Wait = nil with a session open")
	}
	s.End(nil)
	if err := r.Wait(t.Context()); err != nil {
		t.Errorf("Wait = %v; want nil", err)
	}
}

func TestEndLogsOneLineWithoutSecrets(t *testing.T) {
	var log bytes.Buffer
	r := run(t, newFake(liveOrigin(t, "a")), proxy.RouterConfig{Log: slog.New(slog.NewTextHandler(&log, nil))})
	s := open(t, r)
	s.Count(7, 11)
	s.End(&url.Error{Op: "Get", URL: "http://o/live/s.flv?token=secret", Err: errors.New(`get "http://o/x?token=secret" broke`)})
	s.End(io.EOF)
	line := log.String()
	if strings.Count(line, "session ended") != 1 {
		t.Errorf("log = %q; want one line", line)
	}
	for _, want := range []string{"192.0.2.1:4000", "live/s", "origin=a", "kind=rtmp", "publish=true", "bytes_in=7", "bytes_out=11", "broke"} {
		if !strings.Contains(line, want) {
			t.Errorf("log line lacks %q: %s", want, line)
		}
	}
	if strings.Contains(line, "secret") {
		t.Errorf("log line holds the token: %s", line)
	}
}

func TestSessionsAreListedCountedAndKicked(t *testing.T) {
	registry := prometheus.NewRegistry()
	r := run(t, newFake(liveOrigin(t, "a")), proxy.RouterConfig{Metrics: proxy.NewMetrics(registry)})
	s := open(t, r)
	s.Count(5, 0)
	infos := r.Sessions()
	if len(infos) != 1 || infos[0].Stream != stream || infos[0].Origin != "a" || infos[0].BytesIn != 5 {
		t.Fatalf("Sessions = %+v", infos)
	}
	if got := sum(t, registry, "srsx_sessions"); got != 1 {
		t.Errorf("srsx_sessions = %v; want 1", got)
	}
	if total, by := r.Counts(); total != 1 || by["a"] != 1 || r.StreamSessions(stream) != 1 {
		t.Errorf("Counts = %d %v", total, by)
	}
	if !r.Kick(infos[0].ID) || r.Kick(999) {
		t.Error("Kick hit the wrong session")
	}
	if got := context.Cause(s.Context()); !errors.Is(got, proxy.ErrKicked) {
		t.Errorf("cause = %v; want ErrKicked", got)
	}
	s.End(nil)
	if got := sum(t, registry, "srsx_media_bytes_total"); got != 5 {
		t.Errorf("srsx_media_bytes_total after the end = %v; want 5", got)
	}
	if got := sum(t, registry, "srsx_sessions"); got != 0 {
		t.Errorf("srsx_sessions after the end = %v; want 0", got)
	}
}

// sum adds up all series of one metric.
func sum(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	total := 0.0
	for _, family := range families {
		if family.GetName() == name {
			for _, metric := range family.GetMetric() {
				total += metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
			}
		}
	}
	return total
}

func TestRefusalNamesNoAddress(t *testing.T) {
	f := newFake(deadOrigin(t, "dead"))
	r := run(t, f, proxy.RouterConfig{PlaceTimeout: 100 * time.Millisecond})
	s := open(t, r)
	_, err := s.Dial(t.Context())
	s.End(err)
	refusal := proxy.RefusalOf(err)
	if err == nil || refusal.Status < 500 || strings.Contains(refusal.Reason, "127.0.0.1") {
		t.Errorf("RefusalOf(%v) = %+v", err, refusal)
	}
}

func TestLoopsAreRefused(t *testing.T) {
	mark := proxy.AppendHop(proxy.AppendHop("", "a"), "b")
	if err := proxy.CheckHops(mark, "c"); err != nil || mark != "a,b" {
		t.Errorf("CheckHops(%q, c) = %v; want nil", mark, err)
	}
	for _, bad := range []string{" a , c", "1,2,3,4,5,6,7,8,9", strings.Repeat("x", 5000)} {
		if err := proxy.CheckHops(bad, "c"); proxy.RefusalOf(err).Status != 508 {
			t.Errorf("CheckHops(%.20q) = %v; want a loop", bad, err)
		}
	}
}
