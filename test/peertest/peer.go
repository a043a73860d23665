// Package peertest runs the real srsx binary for the tests: on free ports,
// with a data folder of its own, and gone when the test is over.
package peertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// startTimeout is long: two cores build, encode and play at the same time.
const startTimeout = 30 * time.Second

// binary is the path of the built srsx, set by Main.
var binary string //nolint:gochecknoglobals // one build for all tests of a package

// Main builds the binary, runs the tests of a package and cleans up: for
// TestMain.
func Main(m *testing.M) {
	dir, err := os.MkdirTemp("", "srsx-test-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "srsx")
	build := exec.Command("go", "build", "-o", binary, "srsx/cmd/srsx") //nolint:noctx // a build ends
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	code := 1
	if build.Run() == nil {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// Root returns the folder of the checkout.
func Root(tb testing.TB) string {
	tb.Helper()
	dir, err := filepath.Abs(".")
	if err != nil {
		tb.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
	}
	tb.Fatal("no go.mod above the working folder")
	return ""
}

// ports are handed out once per process.
var ports struct { //nolint:gochecknoglobals // shared by all tests of a process
	sync.Mutex
	used map[string]bool
}

// FreePort returns a loopback port that nobody listens on, over TCP or UDP,
// below the range from which the system takes ports for outgoing connections.
func FreePort(tb testing.TB) string {
	tb.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.used == nil {
		ports.used = make(map[string]bool)
	}
	for range 1000 {
		port := strconv.Itoa(10000 + rand.IntN(22000))
		if !ports.used[port] && isFree(":"+port) {
			ports.used[port] = true
			return port
		}
	}
	tb.Fatal("no free port")
	return ""
}

func isFree(addr string) bool {
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return false
	}
	defer ln.Close()
	packets, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", addr)
	if err != nil {
		return false
	}
	return packets.Close() == nil
}

// Options are how a peer differs from the default.
type Options struct {
	Flags  []string
	Env    []string
	Config string // YAML, written to a file
	// NotReady: do not wait for /readyz.
	NotReady bool
	DataDir  string // empty: a temporary folder
	Node     string // name; empty: peer1
	Ports    *Ports // empty: free ones, or at a Host the default ones
	Host     Host   // nil: this machine
}

// Ports are the listeners of a peer as host:port, to be had again after a
// restart.
type Ports struct{ RTMP, HTTP, API, RTC, SRT, System, Pprof, Cluster, Gossip string }

// FreePorts returns ports that nobody listens on.
func FreePorts(tb testing.TB) *Ports {
	tb.Helper()
	addr := func() string { return "127.0.0.1:" + FreePort(tb) }
	return &Ports{RTMP: addr(), HTTP: addr(), API: addr(), RTC: addr(), SRT: addr(), System: addr(), Pprof: addr(), Cluster: addr(), Gossip: addr()}
}

// Peer is a running srsx.
type Peer struct {
	*Process
	*Ports

	Node    string
	DataDir string
	Host    Host // nil: this machine
}

// Start runs `srsx agent` and waits until it is ready.
func Start(tb testing.TB, o Options) *Peer {
	tb.Helper()
	p := &Peer{Ports: o.Ports, Node: o.Node, DataDir: o.DataDir, Host: o.Host}
	if p.Ports == nil && p.Host != nil {
		p.Ports = portsAt(p.Host)
	} else if p.Ports == nil {
		p.Ports = FreePorts(tb)
	}
	if p.Node == "" {
		p.Node = "peer1"
	}
	if p.DataDir == "" {
		p.DataDir = filepath.Join(tb.TempDir(), "data")
	}
	args := []string{"agent", "-data-dir", p.DataDir, "-node", p.Node, "-slow-start", "0"}
	if p.Host == nil {
		args = append(args, "-rtmp", p.RTMP, "-http", p.HTTP, "-api", p.API, "-rtc", p.RTC, "-srt", p.SRT, "-system-api", p.System,
			"-cluster", p.Cluster, "-gossip", p.Gossip, "-advertise", "127.0.0.1")
	}
	if o.Config != "" {
		file := filepath.Join(tb.TempDir(), "srsx.yaml")
		if err := os.WriteFile(file, []byte(o.Config), 0o600); err != nil {
			tb.Fatal(err)
		}
		args = append(args, "-config", file)
	}
	p.Process = Run(tb, Command{
		Path: binary, Args: append(args, o.Flags...),
		Env: append([]string{"GO_PPROF=" + p.Pprof}, o.Env...), Host: p.Host,
	})
	if !o.NotReady {
		p.AwaitReady(tb)
	}
	return p
}

// AwaitReady waits for /readyz.
func (p *Peer) AwaitReady(tb testing.TB) {
	tb.Helper()
	deadline := time.Now().Add(startTimeout)
	for {
		if status, _, err := p.try(context.Background(), http.MethodGet, "/readyz", nil); err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-p.Done():
			tb.Fatalf("srsx ended before it was ready:\n%s", p.Output())
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			tb.Fatalf("srsx not ready after %v:\n%s", startTimeout, tail(p.Output()))
		}
	}
}

// Register returns the URL to which origins send their heartbeats.
func (p *Peer) Register() string { return "http://" + p.System + "/api/v1/srs/register" }

func (p *Peer) try(ctx context.Context, method, path string, body any) (status int, answer []byte, err error) {
	var content io.Reader
	if body != nil {
		b, marshalErr := json.Marshal(body)
		if marshalErr != nil {
			return 0, nil, marshalErr
		}
		content = bytes.NewReader(b)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+p.system()+path, content)
	if err != nil {
		return 0, nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := p.client().Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(response.Body)
	return response.StatusCode, answer, err
}

// Call makes a call to the system API; body may be nil.
func (p *Peer) Call(tb testing.TB, method, path string, body any) (status int, answer string) {
	tb.Helper()
	status, b, err := p.try(context.Background(), method, path, body)
	if err != nil {
		tb.Fatalf("%s %s: %v", method, path, err)
	}
	return status, string(b)
}

// OriginState is an origin in the API.
type OriginState struct {
	ID        string              `json:"id"`
	State     string              `json:"state"`
	Service   string              `json:"service"`
	PID       string              `json:"pid"`
	Streams   int                 `json:"streams"`
	Weight    int                 `json:"weight"`
	Endpoints map[string][]string `json:"endpoints"`
}

// Origins returns the origins by id.
func (p *Peer) Origins(tb testing.TB) map[string]OriginState {
	tb.Helper()
	var reply struct {
		Data struct {
			Origins []OriginState `json:"origins"`
		} `json:"data"`
	}
	p.read(tb, "/api/v1/origins", &reply)
	byID := make(map[string]OriginState)
	for _, o := range reply.Data.Origins {
		byID[o.ID] = o
	}
	return byID
}

// PlacementState is a placement in the API.
type PlacementState struct {
	Stream     string `json:"stream"`
	VHost      string `json:"vhost"`
	App        string `json:"app"`
	Name       string `json:"name"`
	Origin     string `json:"origin"`
	Epoch      uint64 `json:"epoch"`
	Publishing bool   `json:"publishing"`
	Sessions   int    `json:"sessions"`
}

// Placements returns the placements by app/name.
func (p *Peer) Placements(tb testing.TB) map[string]PlacementState {
	tb.Helper()
	var reply struct {
		Data struct {
			Placements []PlacementState `json:"placements"`
		} `json:"data"`
	}
	p.read(tb, "/api/v1/placements", &reply)
	byName := make(map[string]PlacementState)
	for _, s := range reply.Data.Placements {
		byName[s.App+"/"+s.Name] = s
	}
	return byName
}

func (p *Peer) read(tb testing.TB, path string, into any) {
	tb.Helper()
	status, body := p.Call(tb, http.MethodGet, path, nil)
	if status != http.StatusOK {
		tb.Fatalf("GET %s = %d %s", path, status, body)
	}
	if err := json.Unmarshal([]byte(body), into); err != nil {
		tb.Fatalf("GET %s: %v in %s", path, err, body)
	}
}

// AwaitOrigins waits until n origins are up.
func (p *Peer) AwaitOrigins(tb testing.TB, n int) {
	tb.Helper()
	Eventually(tb, startTimeout, fmt.Sprintf("%d origins up", n), func() bool {
		up := 0
		for _, o := range p.Origins(tb) {
			if o.State == "up" {
				up++
			}
		}
		return up == n
	})
}

// Metric returns the sum of the series of a metric whose labels hold text.
func (p *Peer) Metric(tb testing.TB, name, labels string) float64 {
	tb.Helper()
	_, body := p.Call(tb, http.MethodGet, "/metrics", nil)
	sum := 0.0
	for line := range strings.Lines(body) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || (series != name && !strings.HasPrefix(series, name+"{")) || !strings.Contains(series, labels) {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			tb.Fatalf("metric %q: %v", line, err)
		}
		sum += v
	}
	return sum
}

// CLI runs a command of srsx against the peer.
func (p *Peer) CLI(tb testing.TB, args ...string) (stdout, stderr string, code int) {
	tb.Helper()
	return runCLI(tb, p.Host, []string{"SRSX_ADDR=http://" + p.system()}, args...)
}

// StartCLI starts a command of srsx that goes on for ever against the peer.
func (p *Peer) StartCLI(tb testing.TB, args ...string) *Process {
	tb.Helper()
	return Run(tb, Command{Path: binary, Args: args, Env: []string{"SRSX_ADDR=http://" + p.system()}, Host: p.Host})
}

// CLI runs srsx with args to its end.
func CLI(tb testing.TB, env []string, args ...string) (stdout, stderr string, code int) {
	tb.Helper()
	return runCLI(tb, nil, env, args...)
}

func runCLI(tb testing.TB, at Host, env []string, args ...string) (stdout, stderr string, code int) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(environment(), env...)
	cmd.Dir = tb.TempDir()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := start(at, cmd)
	if err == nil {
		err = cmd.Wait()
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		tb.Fatalf("srsx %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
