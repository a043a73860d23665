package srt_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/datagram"
	"srsx/proxy/srt"
	"srsx/proxy/srt/wire"
	"srsx/test/proxytest"
)

// requireShutdown checks that the client was told of the end.
func (c *testCaller) requireShutdown() {
	c.tb.Helper()
	if p, _ := c.next(proxytest.Patience); !bytes.Equal(p, wire.AppendShutdown(nil, c.id)) {
		c.tb.Errorf("client got %x; want a shutdown", p)
	}
}

// requireShutdown checks that the origin was told of the end of a flow.
func (o *testOrigin) requireShutdown(of *testCaller) {
	o.tb.Helper()
	if got := o.packet().p; !bytes.Equal(got, wire.AppendShutdown(nil, of.peer)) {
		o.tb.Errorf("origin got %x; want a shutdown for %#x", got, of.peer)
	}
}

func TestShutdownEndsTheFlowAtOnce(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	byClient := call(t, s.addr, 1).connect("live/cam")
	byOrigin := call(t, s.addr, 2).connect("live/cam")
	bystander := call(t, s.addr, 3).connect("live/cam")
	from := o.conclusion().from
	byClient.send(wire.AppendShutdown(nil, byClient.peer))
	o.requireShutdown(byClient)
	proxytest.Eventually(t, "one session has ended", func() bool { return s.Sessions() == 2 })
	o.send(wire.AppendShutdown(nil, byOrigin.id), from)
	byOrigin.requireShutdown()
	proxytest.Eventually(t, "another has ended", func() bool { return s.Sessions() == 1 })
	requirePasses(t, bystander, o)
	// What comes behind goes nowhere.
	byClient.send(data(byClient.peer, 9, 'x'))
	o.send(data(byOrigin.id, 9, 'x'), from)
	byOrigin.requireQuiet("a packet behind the shutdown")
	if len(o.packets) != 0 {
		t.Error("the origin got a packet behind the shutdown")
	}
	for _, want := range []string{`reason="client done"`, `reason="origin ended the connection"`} {
		if !strings.Contains(s.Log.String(), want) {
			t.Errorf("the log does not say %s", want)
		}
	}
}

func TestPeerThatEndsASessionTellsBothEnds(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	kicked := call(t, s.addr, 1).connect("live/cam")
	if !s.Router.Kick(s.Router.Sessions()[0].ID) {
		t.Fatal("no such session")
	}
	kicked.requireShutdown()
	o.requireShutdown(kicked)
	stopped := call(t, s.addr, 2).connect("live/cam")
	s.Router.CloseAll(proxy.ErrShutdown)
	stopped.requireShutdown()
	o.requireShutdown(stopped)
	if err := s.Router.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	for _, want := range []error{proxy.ErrKicked, proxy.ErrShutdown} {
		if !strings.Contains(s.Log.String(), want.Error()) {
			t.Errorf("the log does not say %q", want)
		}
	}
}

func TestServeEndsWhateverIsUnderWay(t *testing.T) {
	o, hung := startOrigin(t, script{}), startOrigin(t, script{hangs: true})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	c := call(t, s.addr, 1).connect("live/cam")
	if err := s.Balancer.Register(t.Context(), lb.Registration{Origin: hung.origin()}); err != nil {
		t.Fatal(err)
	}
	waiting := call(t, s.addr, 2)
	waiting.send(waiting.conclusion(waiting.induce(), "live/other"))
	hung.conclusion()
	s.stop()
	c.requireShutdown()
	o.requireShutdown(c)
	if h, _ := waiting.await(); waiting.rejected(h) != wire.Down {
		t.Errorf("the one that waited was told %+v", h)
	}
	if s.Sessions() != 0 {
		t.Errorf("%d sessions are left", s.Sessions())
	}
}

func TestPortThatIsTakenAwayEndsServe(t *testing.T) {
	f := proxytest.New(t, proxy.RouterConfig{})
	port, err := datagram.Listen(t.Context(), "127.0.0.1:0", "srt")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- srt.NewServer(port, srt.Config{Opener: f.Router}).Serve(context.WithoutCancel(t.Context()))
	}()
	if _, err = datagram.Listen(t.Context(), port.Addr().String(), "srt"); err == nil || !strings.Contains(err.Error(), "listen srt "+port.Addr().String()+": address already in use") {
		t.Errorf("Listen at a port that is taken = %v", err)
	}
	_ = port.Close()
	if err := <-served; err == nil {
		t.Error("Serve = nil; want an error")
	}
}

func TestSilentEndsAreGivenUp(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{IdleTimeout: 500 * time.Millisecond}, o)
	silentClient := call(t, s.addr, 1).connect("live/a")
	silentOrigin := call(t, s.addr, 2).connect("live/b")
	lively := call(t, s.addr, 3).connect("live/c")
	from := o.conclusion().from
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.Sessions() > 1 {
		o.send(data(silentClient.id, 1, 'x'), from)
		silentOrigin.send(data(silentOrigin.peer, 1, 'x'))
		o.send(data(lively.id, 1, 'x'), from)
		lively.send(data(lively.peer, 1, 'x'))
		<-tick.C
	}
	if got := s.Router.Sessions(); len(got) != 1 || got[0].Client != lively.addr() {
		t.Errorf("sessions = %+v; want that of both lively ends", got)
	}
	for _, want := range []string{"client is silent", "origin is silent"} {
		if !strings.Contains(s.Log.String(), want) {
			t.Errorf("the log does not say %q", want)
		}
	}
	silentOrigin.requireShutdown()
}

// One origin is silent, the next hangs after the first answer, a third's port
// is closed: flows at a good one go on, and new streams go there in time.
func TestBadOriginsHoldUpOnlyTheirOwn(t *testing.T) {
	good := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, good)
	c := call(t, s.addr, 1).connect("live/first")
	for _, bad := range []*testOrigin{startOrigin(t, script{silent: true}), closedOrigin(t)} {
		if err := s.Balancer.Register(t.Context(), lb.Registration{Origin: bad.origin()}); err != nil {
			t.Fatal(err)
		}
	}
	started := time.Now()
	var waiting []*testCaller
	for n := range uint32(12) {
		w := call(t, s.addr, 10+n)
		w.send(w.conclusion(w.induce(), "live/s"+string('a'+rune(n))))
		waiting = append(waiting, w)
	}
	requirePasses(t, c, good)
	if took := time.Since(started); took > soon {
		t.Errorf("a packet of another flow took %v", took)
	}
	for _, w := range waiting {
		if h, _ := w.await(); h.Kind != wire.Conclusion {
			t.Errorf("a new stream was refused: %+v", h)
		}
	}
	if took := time.Since(started); took > soon {
		t.Errorf("new streams took %v; callers do not wait", took)
	}
	for _, session := range s.Router.Sessions() {
		if session.Origin != good.id() {
			t.Errorf("%s is at %s", session.Stream, session.Origin)
		}
	}
	if ejected := s.Router.Ejected(); len(ejected) != 2 {
		t.Errorf("ejected = %v; want the bad ones", ejected)
	}
}

// closedOrigin accepts over TCP, and its UDP port is closed.
func closedOrigin(t *testing.T) *testOrigin {
	t.Helper()
	o := startOrigin(t, script{})
	_ = o.conn.Close() // it keeps its address
	return o
}

// The verdict on an origin on which others rely is the backend's: its TCP port
// answers, so that the stream stays and its callers are refused, in time.
func TestPlacedStreamStaysWithItsSilentOrigin(t *testing.T) {
	o := startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
	c := call(t, s.addr, 1).connect("live/cam")
	if err := s.Balancer.Register(t.Context(), lb.Registration{Origin: startOrigin(t, script{}).origin()}); err != nil {
		t.Fatal(err)
	}
	o.behave(script{silent: true})
	late := call(t, s.addr, 2)
	started := time.Now()
	if reason := late.rejected(late.ask("live/cam")); reason != wire.BadGateway {
		t.Errorf("refused for %s; want %s", reason, wire.BadGateway)
	}
	if took := time.Since(started); took > soon {
		t.Errorf("refused after %v", took)
	}
	requirePasses(t, c, o)
}

func TestFlowsOfADeadOriginEndAtOnce(t *testing.T) {
	doomed, other := startOrigin(t, script{}), startOrigin(t, script{})
	s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, doomed, other)
	flows := make(map[lb.OriginID][]*testCaller)
	for n := range uint32(10) {
		c := call(t, s.addr, 1+n).connect("live/s" + string('a'+rune(n)))
		id := s.Router.Sessions()[n].Origin
		flows[id] = append(flows[id], c)
	}
	lost, kept := flows[doomed.id()], flows[other.id()]
	if len(lost) == 0 || len(kept) == 0 {
		t.Fatalf("streams are at %v; want some at each", flows)
	}
	_ = doomed.conn.Close()
	for _, c := range lost {
		c.send(data(c.peer, 1, 'x')) // a client sends something each second
	}
	for _, c := range lost {
		c.requireShutdown()
	}
	proxytest.Eventually(t, "their sessions end", func() bool { return s.Sessions() == len(kept) })
	for _, c := range kept {
		requirePasses(t, c, other)
	}
}

func TestOriginThatAnswersNonsenseIsRefused(t *testing.T) {
	old := (&testCaller{id: 7}).hello(wire.Conclusion, 0)
	old.Version, old.Kind = 4, wire.Induction
	zero := (&testCaller{}).hello(wire.Conclusion, 0)
	for name, garbage := range map[string][]byte{
		"version 4":      old.Append(nil),
		"socket id zero": zero.Append(nil),
		"a conclusion of version 4": func() []byte {
			h := old
			h.Kind = wire.Conclusion
			return h.Append(nil)
		}(),
	} {
		o := startOrigin(t, script{garbage: garbage})
		s := serve(t, "", proxy.RouterConfig{}, srt.Config{}, o)
		c := call(t, s.addr, 7)
		if reason := c.rejected(c.ask("live/cam")); reason != wire.BadGateway {
			t.Errorf("%s: refused for %s; want %s", name, reason, wire.BadGateway)
		}
	}
}

func TestProbeAsksInSRT(t *testing.T) {
	good := startOrigin(t, script{})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := srt.Probe(ctx, "udp://"+good.addr().String()); err != nil {
		t.Errorf("Probe of one that lives = %v", err)
	}
	for name, bad := range map[string]*testOrigin{"silent": startOrigin(t, script{silent: true}), "closed": closedOrigin(t), "garbage": startOrigin(t, script{garbage: []byte("HTTP/1.1 400")})} {
		if err := srt.Probe(ctx, "udp://"+bad.addr().String()); err == nil {
			t.Errorf("Probe of one that is %s = nil", name)
		}
	}
}
