package main

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"srsx/proxy"
	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

// withEncoder is a peer with one origin, o1, and an encoder at live/one.
func withEncoder(t *testing.T, o options) (*peer, *publisher) {
	t.Helper()
	p := startPeer(t, o)
	p.originAt(t, origintest.Config{Server: "o1"})
	return p, p.publish(t, "one")
}

func (p *peer) stopWith(t *testing.T, s os.Signal) {
	t.Helper()
	p.signals <- s
	eventually(t, "the peer stops", func() bool { return len(p.logged("stopping")) == 1 })
}

func TestStoppingTakesNothingNewAndLetsSessionsGoOn(t *testing.T) {
	p, encoder := withEncoder(t, options{})
	player := p.play(t, "one")
	p.stopWith(t, syscall.SIGTERM)
	if sessions := p.logged("stopping")[0]["sessions"]; sessions != 2.0 {
		t.Errorf("stopping with %v sessions; want 2", sessions)
	}
	for _, addr := range []string{p.rtmp, p.http} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			t.Errorf("%s still accepts", addr)
		}
	}
	if status, body := p.here().call(t, "GET", "/readyz", ""); status != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
		t.Errorf("readyz = %d %s; want 503 for draining", status, body)
	}
	if status, _ := p.here().call(t, "GET", "/livez", ""); status != http.StatusOK {
		t.Errorf("livez = %d; want 200", status)
	}
	requireFrames(t, player, "one")
	player.Close()
	requireRunning(t, p)
	encoder.end()
	if code := p.awaitEnd(t); code != exitDone {
		t.Errorf("exit code = %d; want %d: nobody was cut", code, exitDone)
	}
	if len(p.logged("grace time is over")) != 0 {
		t.Error("the grace time is said to be over, though the last session ended by itself")
	}
}

func requireRunning(t *testing.T, p *peer) {
	t.Helper()
	select {
	case <-p.ended:
		t.Fatal("the process ended with a session open")
	default:
	}
}

// A keep-alive connection from before gets a refusal, no session.
func TestStoppingRefusesOnOpenConnections(t *testing.T) {
	p, encoder := withEncoder(t, options{})
	early, err := p.connect(t, "")
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	p.stopWith(t, syscall.SIGTERM)
	if err := early.Publish("late"); refusal(err) != "NetStream.Publish.Rejected" {
		t.Errorf("publish while stopping = %v; want it rejected", err)
	}
	encoder.end()
	p.awaitEnd(t)
}

func TestGraceTimeEndsAndSaysWhatRemains(t *testing.T) {
	p, encoder := withEncoder(t, options{env: map[string]string{"PROXY_GRACE_QUIT_TIMEOUT": "200ms"}})
	p.stopWith(t, syscall.SIGINT)
	if code := p.awaitEnd(t); code != exitDone {
		t.Errorf("exit code = %d; want %d", code, exitDone)
	}
	<-encoder.ended
	over := p.logged("grace time is over")
	if len(over) != 1 || over[0]["sessions"] != 1.0 {
		t.Fatalf("log of what remains = %v; want one session", over)
	}
	if by, _ := over[0]["by_origin"].(map[string]any); by["o1"] != 1.0 {
		t.Errorf("by origin = %v; want one on o1", over[0]["by_origin"])
	}
	if ended := p.logged("session ended"); len(ended) != 1 || ended[0]["reason"] != proxy.ErrShutdown.Error() {
		t.Errorf("session ended: %v; want the reason %q", ended, proxy.ErrShutdown)
	}
}

func TestASecondSignalEndsAtOnce(t *testing.T) {
	p, _ := withEncoder(t, options{})
	p.stopWith(t, syscall.SIGTERM)
	p.signals <- syscall.SIGHUP // is no second signal
	eventually(t, "an answer to SIGHUP", func() bool { return len(p.logged("configuration not reloaded")) == 1 })
	requireRunning(t, p)
	p.signals <- syscall.SIGTERM
	code := p.awaitEnd(t)
	if code != exitRefused || !strings.HasSuffix(p.log.String(), "srsx: "+errSecond.Error()+"\n") {
		t.Errorf("exit code = %d; want %d and the reason in the last line", code, exitRefused)
	}
}

func TestTheForceTimeEndsWhatTheGraceTimeDoesNot(t *testing.T) {
	p, _ := withEncoder(t, options{env: map[string]string{
		"PROXY_GRACE_QUIT_TIMEOUT": "300ms", "PROXY_FORCE_QUIT_TIMEOUT": "300ms",
	}})
	p.stopWith(t, syscall.SIGTERM)
	code := p.awaitEnd(t)
	if code != exitRefused || !strings.HasSuffix(p.log.String(), "srsx: "+errOverdue.Error()+"\n") {
		t.Errorf("exit code = %d; want %d and the reason in the last line", code, exitRefused)
	}
}

func TestTwoProcessesDoNotShareADataDirectory(t *testing.T) {
	dir := t.TempDir()
	startPeer(t, options{flags: []string{"-data-dir", dir}})
	code, _, errs := command("agent", "-rtmp", "off", "-http", "off", "-api", "off", "-rtc", "off", "-srt", "off", "-system-api", "off", "-data-dir", dir)
	requireOneLine(t, "second process", code, exitRefused, errs, "-data-dir", "used by another process")
}

func TestTheNodeNameIsKept(t *testing.T) {
	dir := t.TempDir()
	name := func(flags ...string) string {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // it starts and ends at once
		var log proxytest.Log
		run(ctx, process{
			args: append([]string{"srsx", "agent", "-rtmp", "off", "-http", "off", "-api", "off", "-rtc", "off", "-srt", "off", "-system-api", "off", "-data-dir", dir}, flags...),
			env:  noEnv, stdout: &log, stderr: &log,
		})
		kept, err := os.ReadFile(filepath.Join(dir, "node-name"))
		if err != nil {
			t.Fatalf("%v\n%s", err, &log)
		}
		return strings.TrimSpace(string(kept))
	}
	if host, err := os.Hostname(); err == nil && checkNode(host) == nil && name() != host {
		t.Errorf("name = %s; want the host's, %s", name(), host)
	}
	if got := name("-node", "given"); got != "given" {
		t.Errorf("name = %s; want the one given", got)
	}
	if got := name(); got != "given" {
		t.Errorf("name after a start without = %s; want it kept", got)
	}
}

// Half-open clients and their goroutines go with the process: see TestMain.
func TestTheEndTakesSilentConnectionsAlong(t *testing.T) {
	p := startPeer(t, options{})
	var silent []net.Conn
	for _, addr := range []string{p.rtmp, p.http, p.system, p.rtmp} {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		silent = append(silent, conn)
	}
	idle, err := mediatest.Dial(t.Context(), mediatest.Target{Addr: p.rtmp, TCURL: "rtmp://h/live"})
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	p.signals <- syscall.SIGTERM
	if code := p.awaitEnd(t); code != exitDone {
		t.Errorf("exit code = %d; want %d", code, exitDone)
	}
	for _, conn := range silent {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("a silent connection got bytes")
		}
	}
}
