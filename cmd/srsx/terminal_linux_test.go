package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMonitorClearsATerminal(t *testing.T) {
	p := startPeer(t, options{})
	terminal := openTerminal(t)
	code := run(t.Context(), process{
		args: []string{"srsx", "monitor", "-count", "1", "-addr", p.system}, env: noEnv, stdout: terminal.program, stderr: terminal.program,
	})
	if code != exitDone {
		t.Fatalf("monitor = %d", code)
	}
	screen := make([]byte, 64<<10)
	n, err := terminal.screen.Read(screen)
	if err != nil || !strings.HasPrefix(string(screen[:n]), "\x1b[H\x1b[2J") || !strings.Contains(string(screen[:n]), "peer1") {
		t.Errorf("the terminal got %q, %v; want a cleared screen with the members", screen[:n], err)
	}
}

// terminal is a pseudo terminal: what program writes, screen shows.
type terminal struct{ screen, program *os.File }

func openTerminal(t *testing.T) terminal {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	if err = unix.IoctlSetPointerInt(int(screen.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(screen.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.OpenFile(fmt.Sprint("/dev/pts/", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = program.Close() })
	return terminal{screen: screen, program: program}
}
