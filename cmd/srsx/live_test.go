package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"srsx/test/origintest"
	"srsx/test/proxytest"
)

// running is a command that goes on until it is told to end.
type running struct {
	out, errs *proxytest.Log
	signals   chan os.Signal
	ended     chan int
}

func (p *peer) start(args ...string) *running {
	r := &running{out: &proxytest.Log{}, errs: &proxytest.Log{}, signals: make(chan os.Signal, 1), ended: make(chan int, 1)}
	go func() {
		r.ended <- run(context.Background(), process{
			args: append([]string{"srsx"}, args...), env: environment(map[string]string{"SRSX_ADDR": p.system}),
			stdout: r.out, stderr: r.errs, signals: r.signals,
		})
	}()
	return r
}

// interrupt ends the command, which has to call that a success.
func (r *running) interrupt(t *testing.T) {
	t.Helper()
	r.signals <- syscall.SIGINT
	select {
	case code := <-r.ended:
		if code != exitDone || r.errs.String() != "" {
			t.Errorf("exit code after an interrupt = %d, %s; want %d", code, r.errs, exitDone)
		}
	case <-time.After(patience):
		t.Fatal("still running after an interrupt")
	}
}

func TestWatchFollowsLive(t *testing.T) {
	p := startPeer(t, options{})
	table := p.watch(t)
	asJSON := p.watch(t, "-format", "json")
	p.originAt(t, origintest.Config{Server: "o1", Interval: time.Minute})
	p.publish(t, "one").end()
	home := p.homeOf(t, "live/one")
	eventually(t, "the publisher's end is known", func() bool { return !p.placements(t)["__defaultVhost__/live/one"].Publishing })
	p.must(t, "placement", "forget", "live/one")
	for _, want := range []string{
		"origin-up", "placed         __defaultVhost__/live/one " + home, "published", "unpublished",
		"forgotten      __defaultVhost__/live/one " + home + "  (by operator)",
	} {
		eventually(t, "watch shows "+want, func() bool { return strings.Contains(table.out.String(), want) })
	}
	eventually(t, "watch -format json shows the same", func() bool { return strings.Contains(asJSON.out.String(), `"kind":"forgotten"`) })
	var kinds []string
	for line := range strings.Lines(asJSON.out.String()) {
		var event struct{ Kind string }
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("line %q is no JSON: %v", line, err)
		}
		kinds = append(kinds, event.Kind)
	}
	if at := slices.Index(kinds, "placed"); at < 0 || !slices.Equal(kinds[at:], []string{"placed", "published", "unpublished", "forgotten"}) {
		t.Errorf("kinds = %v", kinds)
	}
}

// Watch says so when there is nothing more to follow.
func TestWatchEndsWithThePeer(t *testing.T) {
	p := startPeer(t, options{})
	r := p.start("placement", "watch")
	p.awaitWatcher(t, r)
	p.signals <- syscall.SIGTERM
	p.awaitEnd(t)
	if code := <-r.ended; code != exitRefused || strings.Count(r.errs.String(), "\n") != 1 {
		t.Errorf("watch after the end of the peer = %d, %q; want %d and one line", code, r.errs, exitRefused)
	}
}

// A peer that does not answer holds nobody up who wants to end.
func TestAnInterruptEndsACommandThatWaits(t *testing.T) {
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	p := &peer{system: hanging.Addr().String()}
	wait := func(args ...string) *running {
		t.Helper()
		r := p.start(args...)
		conn, err := hanging.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return r
	}
	wait("monitor").interrupt(t)
	r := wait("members")
	r.signals <- syscall.SIGINT
	if code := <-r.ended; code != exitRefused || r.errs.String() != "srsx: interrupted\n" {
		t.Errorf("members after an interrupt = %d, %q; want it said", code, r.errs)
	}
}

func TestMonitorRefreshesUntilInterrupted(t *testing.T) {
	p := startPeer(t, options{})
	r := p.start("monitor", "-interval", "10ms")
	eventually(t, "a look", func() bool { return strings.Contains(r.out.String(), "peer1") })
	p.originAt(t, origintest.Config{Server: "late"})
	eventually(t, "a look with the origin", func() bool { return strings.Contains(r.out.String(), "late") })
	r.interrupt(t)
	if out := r.out.String(); strings.Contains(out, "\x1b") || strings.Count(out, "peer1") < 2 {
		t.Errorf("monitor prints %q into a pipe; want plain looks, one after the other", out)
	}
	if out := p.must(t, "monitor", "-interval", "1ms", "-count", "2"); strings.Count(out, "WEIGHT") != 2 {
		t.Errorf("monitor -count 2 prints %q; want two looks", out)
	}
}

func TestCompletionScriptsAreValid(t *testing.T) {
	for shell, want := range map[string]string{"bash": "complete -F _srsx srsx", "zsh": "#compdef srsx", "fish": "complete -c srsx"} {
		code, out, errs := command("completion", shell)
		if code != exitDone || errs != "" || !strings.Contains(out, want) {
			t.Errorf("completion %s = %d, %s%s; want %q in it", shell, code, out, errs, want)
		}
		if path, err := exec.LookPath(shell); err == nil { // bash is always there
			check := exec.Command(path, "-n")
			check.Stdin = strings.NewReader(out)
			if text, err := check.CombinedOutput(); err != nil {
				t.Errorf("%s -n: %v: %s", shell, err, text)
			}
		}
	}
}

// A real bash completes what a user has typed, with this test binary as srsx.
func TestBashCompletesCommandsAndFlags(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	stand := fmt.Sprintf("#!/bin/sh\n%s=1 exec %q \"$@\"\n", asCommand, self)
	if err := os.WriteFile(filepath.Join(dir, "srsx"), []byte(stand), 0o700); err != nil { // to be executed
		t.Fatal(err)
	}
	_, script, _ := command("completion", "bash")
	for typed, want := range map[string][]string{
		"srsx ":            {"agent", "placement", "origin", "session", "completion", "monitor", "tls"},
		"srsx tls ":        {"ca", "cert", "inspect"},
		"srsx tls cert ":   {"create"},
		"srsx pl":          {"placement"},
		"srsx placement ":  {"list", "get", "explain", "move", "forget", "history", "watch"},
		"srsx placement m": {"move"},
		"srsx agent -sys":  {"-system-api"},
		"srsx agent --sys": {"--system-api"},
		"srsx agent --":    {"--rtmp", "--system-api"},
		"srsx members -":   {"--addr", "--format"},
	} {
		words := strings.Split(typed, " ")
		ask := fmt.Sprintf("%s\nCOMP_WORDS=(%s '%s'); COMP_CWORD=%d; _srsx; printf '%%s\\n' \"${COMPREPLY[@]}\"",
			script, strings.Join(words[:len(words)-1], " "), words[len(words)-1], len(words)-1)
		bash := exec.Command("bash", "-c", ask)
		bash.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"))
		text, err := bash.CombinedOutput()
		found := strings.Fields(string(text))
		for _, w := range want {
			if err != nil || !slices.Contains(found, w) {
				t.Errorf("%q completes to %v, %v; want %s among them", typed, found, err, w)
			}
		}
		if prefix := words[len(words)-1]; slices.ContainsFunc(found, func(w string) bool { return !strings.HasPrefix(w, prefix) }) {
			t.Errorf("%q completes to %v; want only what begins so", typed, found)
		}
	}
}
