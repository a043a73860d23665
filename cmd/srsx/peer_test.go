package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"srsx/test/proxytest"
)

// patience is how long anything may take on a busy machine.
const patience = proxytest.Patience

func noEnv(string) (string, bool) { return "", false }

// environment looks names up in a map.
func environment(values map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := values[name]
		return value, ok
	}
}

// command runs one command line and returns its exit code and output.
func command(args ...string) (code int, stdout, stderr string) { return commandIn(nil, args...) }

// commandIn is command with an environment.
func commandIn(env map[string]string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), process{
		args: append([]string{"srsx"}, args...), env: environment(env), stdout: &out, stderr: &errs,
	})
	return code, out.String(), errs.String()
}

// eventually fails the test unless holds becomes true in time.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	proxytest.Eventually(t, what, holds)
}

// options are how a peer differs from one on free loopback ports.
type options struct {
	flags  []string
	env    map[string]string
	config string // YAML
}

// peer is `srsx agent` within this process.
type peer struct {
	rtmp, http, api, system string // host:port; empty: off

	signals     chan os.Signal
	log, stdout *proxytest.Log
	configFile  string
	ended       chan struct{}
	code        int // once ended
}

// startPeer runs a peer until the test ends and waits until it serves.
func startPeer(t *testing.T, o options) *peer {
	t.Helper()
	p := launch(t, o)
	eventually(t, "the peer serves", func() bool {
		select {
		case <-p.ended:
			t.Fatalf("the peer ended with %d:\n%s", p.code, p.log)
		default:
		}
		return len(p.logged("ready")) > 0
	})
	for _, line := range p.logged("listening") {
		addr, _ := line["addr"].(string)
		switch line["for"] {
		case "rtmp":
			p.rtmp = addr
		case "http":
			p.http = addr
		case "api":
			p.api = addr
		case "system-api":
			p.system = addr
		}
	}
	return p
}

// launch runs a peer and does not wait.
func launch(t *testing.T, o options) *peer {
	t.Helper()
	dir := t.TempDir()
	p := &peer{
		signals: make(chan os.Signal, 4), log: &proxytest.Log{}, stdout: &proxytest.Log{},
		ended: make(chan struct{}), configFile: filepath.Join(dir, "srsx.yaml"),
	}
	if o.config != "" {
		p.writeConfig(t, o.config)
		o.flags = append(o.flags, "-config", p.configFile)
	}
	const free = "127.0.0.1:0"
	args := append([]string{
		"srsx", "agent", "-rtmp", free, "-http", free, "-api", free, "-system-api", free, "-rtc", free, "-srt", free,
		"-data-dir", filepath.Join(dir, "data"), "-node", "peer1", "-slow-start", "0",
	}, o.flags...)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(p.ended)
		p.code = run(ctx, process{args: args, env: environment(o.env), stdout: p.stdout, stderr: p.log, signals: p.signals})
	}()
	t.Cleanup(func() {
		cancel()
		<-p.ended
		if t.Failed() {
			t.Logf("log of the peer:\n%s", p.log)
		}
	})
	return p
}

func (p *peer) writeConfig(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(p.configFile, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// logged returns the log lines with a message.
func (p *peer) logged(message string) []map[string]any {
	var found []map[string]any
	for line := range strings.Lines(p.log.String()) {
		var fields map[string]any
		if json.Unmarshal([]byte(line), &fields) == nil && fields["msg"] == message {
			found = append(found, fields)
		}
	}
	return found
}

// awaitEnd waits for the end of the process and returns its exit code.
func (p *peer) awaitEnd(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
		return p.code
	case <-time.After(patience):
		t.Fatalf("still running after %s", patience)
		return 0
	}
}

// cli runs a command against the peer.
func (p *peer) cli(args ...string) (code int, stdout, stderr string) {
	return commandIn(map[string]string{"SRSX_ADDR": "http://" + p.system}, args...)
}

// must runs a command that has to succeed and returns what it prints.
func (p *peer) must(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := p.cli(args...)
	if code != exitDone || errs != "" {
		t.Fatalf("srsx %s = %d, %s", strings.Join(args, " "), code, errs)
	}
	return out
}

// caller is a client of the peer's system API.
type caller struct {
	peer   *peer
	client http.Client
	header http.Header
}

// here calls as any process on this host.
func (p *peer) here() caller {
	return caller{peer: p, client: http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}}
}

// from calls through a load balancer that speaks the PROXY protocol, for a
// client at addr.
func (p *peer) from(addr string) caller {
	family := "TCP4"
	if strings.Contains(addr, ":") {
		family = "TCP6"
	}
	dial := func(ctx context.Context, network, to string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, to)
		if err == nil {
			_, err = fmt.Fprintf(conn, "PROXY %s %s %s 40000 12025\r\n", family, addr, addr)
		}
		return conn, err
	}
	return caller{peer: p, client: http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}, Timeout: patience}}
}

// with adds a header to each request; Host is the host that it asks for.
func (c caller) with(name, value string) caller {
	c.header = c.header.Clone()
	if c.header == nil {
		c.header = make(http.Header)
	}
	c.header.Set(name, value)
	return c
}

// call sends a request, with a body as JSON unless it is empty, and returns the
// status and the bytes of the answer.
func (c caller) call(t *testing.T, method, path, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+c.peer.system+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name := range c.header {
		r.Header.Set(name, c.header.Get(name))
		if name == "Host" {
			r.Host = c.header.Get(name)
		}
	}
	response, err := c.client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return response.StatusCode, string(text)
}

// get reads data of the API of the peer into a value.
func (p *peer) get(t *testing.T, path string, into any) {
	t.Helper()
	status, answer := p.here().call(t, "GET", path, "")
	if status != http.StatusOK {
		t.Fatalf("GET %s = %d %s", path, status, answer)
	}
	if err := json.Unmarshal([]byte(answer), &struct {
		Data any `json:"data"`
	}{into}); err != nil {
		t.Fatalf("GET %s: %v in %s", path, err, answer)
	}
}

// metric returns the sum of the series of a metric whose labels hold all texts.
func (p *peer) metric(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	_, text := p.here().call(t, "GET", "/metrics", "")
	sum, found := 0.0, false
series:
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		at := max(0, strings.LastIndex(line, " ")) // labels may hold spaces
		series, value := line[:at], line[at:]
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(series, label) {
				continue series
			}
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			t.Fatalf("metric %q: %v", line, err)
		}
		sum, found = sum+v, true
	}
	if !found {
		return -1 // there is no such series: unlike zero
	}
	return sum
}
