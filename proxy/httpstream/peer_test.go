package httpstream_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/httpstream"
	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = proxytest.Patience

// setup is how a peer differs from that of most tests.
type setup struct {
	key     string        // file of the hint key; empty: a new one
	place   time.Duration // timeout; 0: none that a test could wait for
	listen  proxy.ListenConfig
	limits  proxy.Limits
	change  func(*httpstream.Config)
	origins []*origintest.Origin
}

// peer is one Server in front of its origins.
type peer struct {
	*proxytest.Fixture
	url    string
	origin *origintest.Origin // the first
	client *http.Client
}

// start runs a peer before one origin that behaves as script says.
func start(t *testing.T, script origintest.Script) *peer {
	t.Helper()
	return startWith(t, setup{origins: []*origintest.Origin{origintest.Start(t, origintest.Config{Script: script})}})
}

// answer is a script that answers every request of HTTP.
func answer(f func(w http.ResponseWriter, r *http.Request)) origintest.Script {
	return origintest.Script{HTTP: func(w http.ResponseWriter, r *http.Request) bool { f(w, r); return true }}
}

func startWith(t *testing.T, with setup) *peer {
	t.Helper()
	origins := make([]lb.Origin, len(with.origins))
	for i, o := range with.origins {
		origins[i] = static(o)
	}
	if with.key == "" {
		with.key = filepath.Join(t.TempDir(), "key")
	}
	key, err := httpstream.LoadHintKey(with.key)
	if err != nil {
		t.Fatal(err)
	}
	if with.place == 0 {
		with.place = patience
	}
	p := &peer{
		Fixture: proxytest.New(t, proxy.RouterConfig{PlaceTimeout: with.place, Limits: with.limits}, origins...),
		origin:  with.origins[0], client: &http.Client{Transport: &http.Transport{}, Timeout: patience},
	}
	config := httpstream.Config{
		Opener: p.Router, Finder: p.Balancer, NodeID: "n1", HintKey: func() httpstream.HintKey { return key }, Log: p.Logger,
		Static:        fstest.MapFS{"index.html": {Data: []byte("hello")}},
		AnswerTimeout: patience, WriteTimeout: patience, HoldTime: time.Second, // a busy machine is no bad peer
	}
	if with.change != nil {
		with.change(&config)
	}
	with.listen.Name = "http"
	p.url = "http://" + p.Serve(t, with.listen, httpstream.NewServer(config).Serve)
	t.Cleanup(p.client.CloseIdleConnections)
	return p
}

// static is an origin known by its server id.
func static(o *origintest.Origin) lb.Origin {
	return proxytest.StaticOrigin(lb.OriginID(o.Server()), o.RTMP(), o.HTTP())
}

// register makes one more origin known.
func (p *peer) register(t *testing.T, o *origintest.Origin) {
	t.Helper()
	if err := p.Balancer.Register(t.Context(), lb.Registration{Origin: static(o)}); err != nil {
		t.Fatal(err)
	}
}

// publish publishes a pattern at the origin itself until the test ends.
func (p *peer) publish(t *testing.T, name string) {
	t.Helper()
	c, err := mediatest.Dial(context.Background(), mediatest.Target{Addr: p.origin.RTMP(), TCURL: "rtmp://h/live"})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Publish(name); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var sending sync.WaitGroup
	sending.Go(func() { _ = c.Send(ctx, mediatest.NewPattern(name)) })
	t.Cleanup(func() { cancel(); sending.Wait(); c.Close() })
}

// reply is a response that has been read.
type reply struct {
	StatusCode int
	Header     http.Header
}

func (p *peer) do(t *testing.T, method, path string, header ...string) (reply, string) {
	t.Helper()
	response, body, err := p.try(t, method, path, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return response, body
}

// try is do for what may break off.
func (p *peer) try(t *testing.T, method, path string, header ...string) (reply, string, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, p.url+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Add(header[i], header[i+1])
	}
	response, err := p.client.Do(request)
	if err != nil {
		return reply{}, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header}, string(body), err
}

// raw sends bytes and returns the connection, to read the answer from.
func (p *peer) raw(t *testing.T, sent string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err = io.WriteString(conn, sent); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// localAddr is the address that an origin was asked at.
func localAddr(r *http.Request) string {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return "no address"
	}
	return addr.String()
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// place has a stream placed, as one viewer that is gone leaves it.
func (p *peer) place(t *testing.T, name string) {
	t.Helper()
	lease, err := p.Balancer.Acquire(t.Context(), lb.Want{
		Stream: lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: name}, Protocol: lb.HTTP,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Balancer.Release(lease) })
}
