package rtmp_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/rtmp"
	"srsx/proxy/rtmp/wire"
	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = proxytest.Patience

// peer is a server in front of origins.
type peer struct {
	*proxytest.Fixture
	addr   string
	origin *origintest.Origin // of start only
}

// start runs a peer in front of one scripted origin.
func start(t *testing.T, script origintest.Script, change func(*rtmp.Config)) *peer {
	t.Helper()
	origin := origintest.Start(t, origintest.Config{Script: script})
	p := before(t, change, proxytest.StaticOrigin("o", origin.RTMP(), ""))
	p.origin = origin
	return p
}

// before runs a peer in front of origins, with short deadlines.
func before(t *testing.T, change func(*rtmp.Config), origins ...lb.Origin) *peer {
	t.Helper()
	return within(t, 500*time.Millisecond, change, origins...)
}

// within is before with a time for placing and dialing.
func within(t *testing.T, place time.Duration, change func(*rtmp.Config), origins ...lb.Origin) *peer {
	t.Helper()
	p := &peer{Fixture: proxytest.New(t, proxy.RouterConfig{PlaceTimeout: place}, origins...)}
	config := rtmp.Config{
		Opener: p.Router, Log: p.Logger, NodeID: "n1", StepTimeout: 500 * time.Millisecond, WriteTimeout: time.Second,
		Registered: func(addr string) (lb.Origin, bool) {
			for _, o := range origins {
				if o.Endpoints.RTMP[0] == addr {
					return o, true
				}
			}
			return lb.Origin{}, false
		},
	}
	if change != nil {
		change(&config)
	}
	p.addr = p.Serve(t, proxy.ListenConfig{Name: "rtmp"}, rtmp.NewServer(config).Serve)
	return p
}

// patiently is for tests that take their time and end no peer by a deadline.
func patiently(c *rtmp.Config) { c.StepTimeout, c.WriteTimeout = patience, patience }

// dial connects a client written on another implementation.
func (p *peer) dial(t *testing.T) *mediatest.Client {
	t.Helper()
	c, err := mediatest.Dial(context.Background(), mediatest.Target{Addr: p.addr, TCURL: "rtmp://" + p.addr + "/live"})
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(c.Close)
	return c
}

// publish publishes a pattern until the test ends.
func (p *peer) publish(t *testing.T, name string) (stop func()) {
	t.Helper()
	c := p.dial(t)
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

func (p *peer) awaitNoSessions(t *testing.T) {
	t.Helper()
	proxytest.Eventually(t, "sessions ended", func() bool { return p.Sessions() == 0 })
}

// raw connects and leaves the handshake to the caller.
func (p *peer) raw(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return conn
}

// talk connects a client that says what it is told, in the product's own wire.
func (p *peer) talk(t *testing.T) *wire.Conn {
	t.Helper()
	conn := p.raw(t)
	if err := wire.Connect(conn); err != nil {
		t.Fatalf("handshake: %v", err)
	}
	return wire.NewConn(conn, patience)
}

// say sends commands on chunk stream 3.
func say(t *testing.T, c *wire.Conn, commands ...wire.Command) {
	t.Helper()
	for _, command := range commands {
		if err := c.Send(command.Message(wire.CSIDCommand)); err != nil {
			t.Fatalf("say %s: %v", command.Name, err)
		}
	}
}

// hear returns the next command of a name, with whatever comes before it
// passed over.
func hear(t *testing.T, c *wire.Conn, name string) wire.Command {
	t.Helper()
	for {
		m, err := c.ReadMessage()
		if err != nil {
			t.Fatalf("await %s: %v", name, err)
		}
		if wire.CommandName(m) == name {
			command, err := wire.ParseCommand(m)
			if err != nil {
				t.Fatalf("read %s: %v", name, err)
			}
			return command
		}
	}
}

// hearStatus returns the code of the next status.
func hearStatus(t *testing.T, c *wire.Conn) string {
	t.Helper()
	return hear(t, c, "onStatus").Info(0).Text("code")
}

func connectCommand(more ...wire.Property) wire.Command {
	return wire.Command{Name: "connect", Transaction: 1, Object: wire.Object{Props: append([]wire.Property{
		{Name: "app", Value: "live"}, {Name: "tcUrl", Value: "rtmp://h/live"},
	}, more...)}}
}

func command(name string, transaction float64, stream uint32, args ...any) wire.Command {
	return wire.Command{Name: name, Transaction: transaction, StreamID: stream, Args: args}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
