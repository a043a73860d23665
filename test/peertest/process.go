package peertest

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"srsx/test/proxytest"
)

// Process is a program that runs until the test ends at the latest.
type Process struct {
	name string
	cmd  *exec.Cmd
	out  proxytest.Log
	done chan struct{} // closed when it has ended
}

// Command says what to run.
type Command struct {
	Path string
	Args []string
	Env  []string // besides this process's own, which loses what would configure srsx
	Dir  string   // empty: a temporary folder
	Host Host     // nil: this machine
}

// Run starts a program in a process group of its own, which is killed when the
// test ends or this process dies. Its output is shown if the test fails.
func Run(tb testing.TB, c Command) *Process {
	tb.Helper()
	if c.Dir == "" {
		c.Dir = tb.TempDir()
	}
	p := &Process{name: c.Path, cmd: exec.Command(c.Path, c.Args...), done: make(chan struct{})} //nolint:noctx // killed as a group at the end
	p.cmd.Dir = c.Dir
	p.cmd.Env = append(environment(), c.Env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.SysProcAttr = attributes()
	// A grandchild that keeps the pipe open must not hold up Wait.
	p.cmd.WaitDelay = time.Second
	if err := start(c.Host, p.cmd); err != nil {
		tb.Fatalf("start %s: %v", c.Path, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // Code tells how it ended
	}()
	tb.Cleanup(func() {
		p.Kill()
		if tb.Failed() {
			tb.Logf("output of %s %s:\n%s", c.Path, strings.Join(c.Args, " "), tail(p.Output()))
		}
	})
	return p
}

// tail keeps a failing test's log readable.
func tail(text string) string {
	const most = 6000 // bytes
	if len(text) > most {
		return "...\n" + text[len(text)-most:]
	}
	return text
}

// environment is ours without what would configure a peer.
func environment() []string {
	var env []string
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "PROXY_") && !strings.HasPrefix(e, "SRSX_") && !strings.HasPrefix(e, "GO_PPROF") {
			env = append(env, e)
		}
	}
	return env
}

// Output returns what the program printed so far.
func (p *Process) Output() string { return p.out.String() }

// PID returns the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends s to the program alone.
func (p *Process) Signal(tb testing.TB, s os.Signal) {
	tb.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		tb.Fatalf("signal %s: %v", p.name, err)
	}
}

// Kill ends the program and all that it started with SIGKILL and waits.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// Code waits for the end and returns the exit code, -1 after a signal.
func (p *Process) Code(tb testing.TB, within time.Duration) int {
	tb.Helper()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(within):
		tb.Fatalf("%s still runs after %v; output:\n%s", p.name, within, tail(p.Output()))
		return 0
	}
}

// Eventually fails the test unless holds becomes true in time.
func Eventually(tb testing.TB, within time.Duration, what string, holds func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(within); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("not within %v: %s", within, what)
		}
	}
}
