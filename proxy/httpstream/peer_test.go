package httpstream_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/lb/memlb"
	"srsx/proxy"
	"srsx/proxy/httpstream"
	"srsx/test/mediatest"
	"srsx/test/origintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 20 * time.Second

// setup is how a peer differs from that of most tests.
type setup struct {
	key     string // file of the hint key; empty: a new one
	listen  proxy.ListenConfig
	limits  proxy.Limits
	change  func(*httpstream.Config)
	origins []*origintest.Origin
}

// peer is one Server with what it needs around it, in front of its origins.
type peer struct {
	url      string
	origin   *origintest.Origin // the first
	balancer *memlb.Balancer
	router   *proxy.Router
	client   *http.Client
	log      *logged
	stop     func() // before the end of the test
}

// logged is a log to look at.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// lines returns the lines that hold all texts.
func (l *logged) lines(texts ...string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for line := range strings.Lines(l.text.String()) {
		missing := false
		for _, text := range texts {
			missing = missing || !strings.Contains(line, text)
		}
		if !missing {
			found = append(found, line)
		}
	}
	return found
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
	p := &peer{origin: with.origins[0], balancer: memlb.New(memlb.Config{Peer: "p"}), log: &logged{}}
	for _, o := range with.origins {
		p.register(t, o)
	}
	if with.key == "" {
		with.key = filepath.Join(t.TempDir(), "key")
	}
	key, err := httpstream.LoadHintKey(with.key)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(p.log, nil))
	p.router = proxy.NewRouter(p.balancer, proxy.RouterConfig{PlaceTimeout: time.Second, Limits: with.limits, Log: log})
	config := httpstream.Config{
		Opener: p.router, Finder: p.balancer, NodeID: "n1", HintKey: func() httpstream.HintKey { return key }, Log: log,
		Static:        fstest.MapFS{"index.html": {Data: []byte("hello")}},
		AnswerTimeout: patience, WriteTimeout: patience, HoldTime: time.Second, // a busy machine is no bad peer
	}
	if with.change != nil {
		with.change(&config)
	}
	with.listen.Name = "http"
	ln, err := proxy.Listen(t.Context(), "127.0.0.1:0", with.listen)
	if err != nil {
		t.Fatal(err)
	}
	p.url = "http://" + ln.Addr().String()
	p.serve(t, httpstream.NewServer(config), ln)
	return p
}

// register makes an origin known as its server id.
func (p *peer) register(t *testing.T, o *origintest.Origin) {
	t.Helper()
	if err := p.balancer.Register(t.Context(), lb.Registration{Origin: lb.Origin{
		ID:          lb.OriginID(o.Server()),
		Incarnation: lb.Incarnation{Server: o.Server(), Service: o.Service(), PID: o.PID()},
		Static:      true, Weight: lb.DefaultWeight,
		Endpoints: lb.Endpoints{RTMP: []string{o.RTMP()}, HTTP: []string{o.HTTP()}},
	}}); err != nil {
		t.Fatal(err)
	}
}

// serve runs until stop or the end of the test.
func (p *peer) serve(t *testing.T, server *httpstream.Server, ln net.Listener) {
	t.Helper()
	transport := &http.Transport{}
	p.client = &http.Client{Transport: transport, Timeout: patience}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = p.router.Run(ctx) })
	running.Go(func() {
		if err := server.Serve(ctx, ln); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	p.stop = sync.OnceFunc(func() {
		transport.CloseIdleConnections()
		p.router.CloseAll(proxy.ErrShutdown)
		cancel()
		_ = ln.Close()
		running.Wait()
		_ = p.balancer.Close()
	})
	t.Cleanup(p.stop)
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

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// sessions returns how many are open.
func (p *peer) sessions() int {
	total, _ := p.router.Counts()
	return total
}

// footprint is what this process takes.
type footprint struct {
	goroutines, descriptors int
	heap                    uint64 // bytes
}

func measure(t *testing.T) footprint {
	t.Helper()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return footprint{runtime.NumGoroutine(), len(files), memory.HeapAlloc}
}

// returnsTo waits until this process takes no more than it did before.
func returnsTo(t *testing.T, before footprint) {
	t.Helper()
	const slack, heapSlack = 2, 4 << 20 // what the runtime has of its own; buffers that are kept
	var now footprint
	defer func() {
		if t.Failed() {
			t.Logf("footprint = %+v; before %+v", now, before)
		}
	}()
	eventually(t, "goroutines, descriptors and memory back at the baseline", func() bool {
		now = measure(t)
		return now.goroutines <= before.goroutines+slack && now.descriptors <= before.descriptors+slack && now.heap <= before.heap+heapSlack
	})
}

// place has a stream placed, as one viewer that is gone leaves it.
func (p *peer) place(t *testing.T, name string) {
	t.Helper()
	lease, err := p.balancer.Acquire(t.Context(), lb.Want{
		Stream: lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: name}, Protocol: lb.HTTP,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.balancer.Release(lease) })
}
