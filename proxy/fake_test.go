package proxy_test

import (
	"context"
	"iter"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/proxy"
	"srsx/test/proxytest"
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
	proxytest.Eventually(t, "subscription", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.events) > 0 })
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
