package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/proxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var stream = lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "s"}

// fakeBalancer places streams on the first origin that is up and not avoided.
type fakeBalancer struct {
	lb.Balancer // what the router must not call panics

	mu         sync.Mutex
	generation uint64
	origins    []lb.Origin
	placed     map[lb.Stream]lb.Placement
	held       map[lb.Stream]int
	suspected  []lb.OriginID
	history    []lb.Event
	events     []chan lb.Event
	onSuspect  func(lb.OriginID)
}

func newFake(origins ...lb.Origin) *fakeBalancer {
	return &fakeBalancer{origins: origins, placed: map[lb.Stream]lb.Placement{}, held: map[lb.Stream]int{}}
}

func (f *fakeBalancer) origin(id lb.OriginID) (lb.Origin, bool) {
	i := slices.IndexFunc(f.origins, func(o lb.Origin) bool { return o.ID == id })
	if i < 0 {
		return lb.Origin{}, false
	}
	return f.origins[i], true
}

func (f *fakeBalancer) try(w lb.Want) (lb.Lease, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p, ok := f.placed[w.Stream]; ok {
		if o, known := f.origin(p.Origin); known && o.State != lb.Down {
			f.held[w.Stream]++
			return lb.Lease{Placement: p, Origin: o}, true
		}
	}
	for _, o := range f.origins {
		if o.State != lb.Up || slices.Contains(w.Avoid, o.ID) {
			continue
		}
		f.generation++
		p := lb.Placement{Stream: w.Stream, Origin: o.ID, Generation: f.generation}
		f.placed[w.Stream] = p
		f.held[w.Stream]++
		return lb.Lease{Placement: p, Origin: o, Created: true}, true
	}
	return lb.Lease{}, false
}

func (f *fakeBalancer) Acquire(ctx context.Context, w lb.Want) (lb.Lease, error) {
	for {
		if lease, ok := f.try(w); ok {
			return lease, nil
		}
		select {
		case <-ctx.Done():
			return lb.Lease{}, lb.ErrNoOrigin
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (f *fakeBalancer) Release(l lb.Lease) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[l.Placement.Stream]--
}

func (f *fakeBalancer) Abandon(_ context.Context, l lb.Lease) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.held[l.Placement.Stream]--
	if f.held[l.Placement.Stream] == 0 {
		delete(f.placed, l.Placement.Stream)
	}
	return nil
}

func (f *fakeBalancer) Suspect(id lb.OriginID, _ error) {
	f.mu.Lock()
	f.suspected = append(f.suspected, id)
	hook := f.onSuspect
	f.mu.Unlock()
	if hook != nil {
		hook(id)
	}
}

func (f *fakeBalancer) Lookup(s lb.Stream) (lb.Placement, lb.Origin, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.placed[s]
	o, _ := f.origin(p.Origin)
	return p, o, ok
}

func (f *fakeBalancer) Origin(id lb.OriginID) (lb.OriginStatus, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, ok := f.origin(id)
	return lb.OriginStatus{Origin: o}, ok
}

func (f *fakeBalancer) Placements() iter.Seq[lb.PlacementStatus] {
	return func(func(lb.PlacementStatus) bool) {}
}

func (f *fakeBalancer) History(s lb.Stream) []lb.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.history), func(e lb.Event) bool { return e.Stream != s })
}

func (f *fakeBalancer) Events() (<-chan lb.Event, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	ch := make(chan lb.Event, 100)
	f.events = append(f.events, ch)
	return ch, func() {}
}

func (f *fakeBalancer) send(e lb.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ch := range f.events {
		ch <- e
	}
}

func (f *fakeBalancer) setState(id lb.OriginID, state lb.OriginState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.origins {
		if f.origins[i].ID == id {
			f.origins[i].State = state
		}
	}
}

func (f *fakeBalancer) holds() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.held[stream]
}

// until waits for a condition and fails the test when it stays away.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("no %s within 5 s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// run starts the router and waits until it has subscribed.
func run(t *testing.T, f *fakeBalancer, config proxy.RouterConfig) *proxy.Router {
	t.Helper()
	r := proxy.NewRouter(f, config)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v; want nil", err)
		}
	})
	until(t, "subscription", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.events) > 0 })
	return r
}

func request() proxy.Request {
	return proxy.Request{
		Stream: stream, Protocol: lb.RTMP, Kind: "rtmp", Publish: true,
		Client: netip.MustParseAddrPort("192.0.2.1:4000"),
	}
}

func open(t *testing.T, r *proxy.Router) proxy.Session {
	t.Helper()
	s, err := r.Open(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// liveOrigin accepts and closes connections.
func liveOrigin(t *testing.T, id lb.OriginID) lb.Origin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return lb.Origin{ID: id, Endpoints: lb.Endpoints{RTMP: []string{ln.Addr().String()}}}
}

// deadOrigin is one that refuses.
func deadOrigin(t *testing.T, id lb.OriginID) lb.Origin {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	return lb.Origin{ID: id, Endpoints: lb.Endpoints{RTMP: []string{addr}}}
}

func mustDial(t *testing.T, s proxy.Session) {
	t.Helper()
	conn, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

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
	until(t, "return of the origin", func() bool {
		s, err := r.Open(t.Context(), request())
		if err != nil {
			return false
		}
		s.End(nil)
		return true
	})
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
			probe := request() // its end shows that the event was handled
			probe.Stream.Name = "probe"
			marker, err := r.Open(t.Context(), probe)
			if err != nil {
				t.Fatal(err)
			}
			defer marker.End(nil)
			f.send(tc.event)
			f.send(lb.Event{Kind: lb.StreamForgotten, Stream: probe.Stream, Generation: 99})
			select {
			case <-marker.Context().Done():
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
