package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"srsx/test/mediatest"
)

const patience = 30 * time.Second

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func noEnv(string) (string, bool) { return "", false }

// command runs one command line and returns its exit code and output.
func command(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(context.Background(), process{args: append([]string{"srsx"}, args...), env: noEnv, stdout: &out, stderr: &errs})
	return code, out.String(), errs.String()
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// The thin whole path: an encoder publishes at the peer, players play there, a
// signal ends it.
func TestOnePeerCarriesRealStreams(t *testing.T) {
	rtmp, web, system := freePort(t), freePort(t), freePort(t)
	signals := make(chan os.Signal, 2)
	var log lockedBuffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(context.Background(), process{
			args: []string{"srsx", "agent", "-dev", "-rtmp", rtmp, "-http=" + web, "--system-api", system, "-api", "off", "-data-dir", t.TempDir()},
			env:  noEnv, stdout: &log, stderr: &log, signals: signals,
		})
	}()
	for end := time.Now().Add(patience); ; {
		response, err := http.Get("http://" + system + "/readyz")
		if err == nil {
			_ = response.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not ready within %s: %v\n%s", patience, err, &log)
		}
		time.Sleep(10 * time.Millisecond)
	}
	publisher, err := mediatest.Dial(context.Background(), mediatest.Target{Addr: rtmp, TCURL: "rtmp://ingest.example/live"})
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close()
	if err = publisher.Publish("mine?token=secret"); err != nil {
		t.Fatal(err)
	}
	sending, stop := context.WithCancel(context.Background())
	var sender sync.WaitGroup
	sender.Go(func() { _ = publisher.Send(sending, mediatest.NewPattern("mine")) })
	response, err := http.Get("http://" + web + "/live/mine.flv")
	if err != nil {
		t.Fatal(err)
	}
	tags, err := mediatest.NewFLVReader(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for frames := 0; frames < 30; {
		tag, err := tags.Next()
		if err != nil {
			t.Fatal(err)
		}
		if name, _, ok := mediatest.PatternFrame(tag); ok && name == "mine" {
			frames++
		}
	}
	_ = response.Body.Close()
	code, out, errs := command("placement", "get", "live/mine", "-addr", "http://"+system, "-format", "json")
	if code != exitDone || !strings.Contains(out, `"publishing":true`) {
		t.Errorf("placement get = %d, %s%s; want it published", code, out, errs)
	}
	stop()
	sender.Wait()
	signals <- syscall.SIGTERM
	signals <- syscall.SIGTERM
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatalf("still running %s after SIGTERM\n%s", patience, &log)
	}
	if strings.Contains(log.String(), "secret") {
		t.Errorf("the log tells a token:\n%s", &log)
	}
}

func TestMistakesNameThemselves(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := t.TempDir() + "/srsx.yaml"
	if err := os.WriteFile(file, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"agent -no-such-flag":          {exitUsage, "no-such-flag"},
		"agent stray":                  {exitUsage, "stray"},
		"agent -check -rtmp x":         {exitRefused, "rtmp"},
		"agent -check -lb nothing":     {exitRefused, "memory"},
		"agent -check -config " + file: {exitRefused, "nonsense"},
		"placement move live/x":        {exitUsage, "to"},
		"nonsense":                     {exitUsage, "nonsense"},
		"agent -system-api off -http off -api off -data-dir " + t.TempDir() + " -rtmp " + taken.Addr().String(): {exitRefused, "rtmp"},
	} {
		code, _, errs := command(strings.Fields(line)...)
		if code != want.code || !strings.Contains(errs, want.text) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: exit %d, %q; want %d and one line with %q", line, code, errs, want.code, want.text)
		}
	}
	if code, out, errs := command("agent", "-check"); code != exitDone {
		t.Errorf("agent -check = %d, %s", code, fmt.Sprint(out, errs))
	}
}
