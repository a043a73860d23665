package port_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"srsx/cluster/port"
)

const childVariable = "SRSX_PORT_TEST_CHILD"

// TestMain is also the process of a peer that is to be killed.
func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		if err := runChild(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// runChild serves a port, prints its address and ends with its standard input.
func runChild() error {
	ctx, cancel := context.WithCancel(context.Background())
	p, err := port.Listen(ctx, "127.0.0.1:0", port.Config{NodeID: uuid.NewString(), NodeName: "child", ClusterName: "test"})
	if err != nil {
		cancel()
		return err
	}
	fmt.Println(p.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return p.Serve(ctx)
}

// child is the process of a peer.
type child struct {
	cmd    *exec.Cmd
	target port.Target
}

func startChild(t *testing.T) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err = cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("child says %q, %v; want its address", line, err)
	}
	return &child{cmd: cmd, target: port.Target{Addr: strings.TrimSpace(line)}}
}

// tunnel passes connections on to a port and can be made to misbehave as
// firewalls do.
type tunnel struct {
	ln    net.Listener
	to    string
	wait  sync.WaitGroup
	mu    sync.Mutex
	conns []*net.TCPConn // guarded by mu, as all below
	mute  bool           // takes connections and passes nothing on
	dying int            // drops so many connections, and then refuses
}

func startTunnel(t *testing.T, to string) *tunnel {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &tunnel{ln: ln, to: to}
	f.wait.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if tcp, ok := c.(*net.TCPConn); ok {
				f.wait.Go(func() { f.pass(tcp) })
			}
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		f.reset()
		f.wait.Wait()
	})
	return f
}

func (f *tunnel) pass(from *net.TCPConn) {
	f.mu.Lock()
	f.conns = append(f.conns, from)
	mute, dying := f.mute, f.dying
	if dying > 0 {
		f.dying--
	}
	f.mu.Unlock()
	switch {
	case dying == 1:
		_ = f.ln.Close()
		fallthrough
	case dying > 1:
		_ = from.Close()
		return
	case mute:
		return
	}
	to, err := net.Dial("tcp", f.to)
	if err != nil {
		_ = from.Close()
		return
	}
	f.wait.Go(func() {
		_, _ = io.Copy(from, to)
		_ = from.Close()
	})
	_, _ = io.Copy(to, from)
	_ = to.Close()
}

// reset ends every connection as a firewall does that has lost its state.
func (f *tunnel) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		_ = c.SetLinger(0)
		_ = c.Close()
	}
	f.conns = nil
}

func (f *tunnel) setMute(mute bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mute = mute
}

func (f *tunnel) setDying(drops int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dying = drops
}

func (f *tunnel) target() port.Target { return port.Target{Addr: f.ln.Addr().String()} }

// watch starts a watch that ends with the test.
func watch(t *testing.T, from *peer, to port.Target) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	report := from.WatchProcess(ctx, to)
	t.Cleanup(func() {
		cancel()
		for range report { // until it is closed: the watch is over
		}
	})
	return report
}

// linked returns how many liveness links a peer has begun so far.
func linked(p *peer) int { return strings.Count(p.log.String(), "liveness link begins") }

func requireSilence(t *testing.T, report <-chan error) {
	t.Helper()
	select {
	case err, ok := <-report:
		t.Fatalf("watch reports %v, %v; want nothing", err, ok)
	default:
	}
}

func requireDeath(t *testing.T, report <-chan error) {
	t.Helper()
	select {
	case err := <-report:
		if !errors.Is(err, port.ErrProcessDied) {
			t.Fatalf("watch reports %v; want ErrProcessDied", err)
		}
	case <-time.After(patience):
		t.Fatal("watch does not report the death of the process")
	}
}

func TestKilledProcessIsReported(t *testing.T) {
	a, victim := start(t, "a"), startChild(t)
	report := watch(t, a, victim.target)
	eventually(t, "the watch has its connection", func() bool { return linked(a) == 1 })
	if err := a.Probe(t.Context(), victim.target); err != nil {
		t.Errorf("Probe of a living process = %v; want nil", err)
	}
	requireSilence(t, report)
	if err := victim.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	requireDeath(t, report)
	t.Logf("reported after %v", time.Since(killed))
	if err, open := <-report; open {
		t.Errorf("watch goes on to report %v; want it closed", err)
	}
	if err := a.Probe(t.Context(), victim.target); !errors.Is(err, port.ErrProcessDied) {
		t.Errorf("Probe of a dead process = %v; want ErrProcessDied", err)
	}
}

func TestClosedListenerIsReported(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	report := watch(t, a, b.target())
	eventually(t, "the watch has its connection", func() bool { return linked(a) == 1 })
	_ = b.Close()
	requireDeath(t, report)
}

// The kernel closes the descriptors of a dying process one by one, so its
// listener may take a connection that nobody will ever serve.
func TestSlowDeathIsReported(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	process := startTunnel(t, b.Addr().String())
	report := watch(t, a, process.target())
	eventually(t, "the watch has its connection", func() bool { return linked(a) == 1 })
	process.setDying(3)
	process.reset()
	requireDeath(t, report)
}

func TestResetInBetweenIsNoDeath(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	firewall := startTunnel(t, b.Addr().String())
	report := watch(t, a, firewall.target())
	for n := 1; n <= 3; n++ {
		eventually(t, "the watch has its next connection", func() bool { return linked(a) == n })
		firewall.reset()
	}
	eventually(t, "the watch has its last connection", func() bool { return linked(a) == 4 })
	requireSilence(t, report)
}

func TestBlackHoleIsNoDeath(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	firewall := startTunnel(t, b.Addr().String())
	report := watch(t, a, firewall.target())
	eventually(t, "the watch has its connection", func() bool { return linked(a) == 1 })
	firewall.setMute(true)
	firewall.reset()
	eventually(t, "the watch gives up its redial", func() bool { return strings.Contains(a.log.String(), "liveness link ends") })
	requireSilence(t, report)
	if err := a.Probe(t.Context(), firewall.target()); err == nil || errors.Is(err, port.ErrProcessDied) {
		t.Errorf("Probe of a black hole = %v; want an error that leaves it open", err)
	}
	firewall.setMute(false)
	firewall.reset()
	eventually(t, "the watch is taken up again", func() bool { return linked(a) == 2 })
	requireSilence(t, report)
}

func TestRefusalBeforeThereWasAConnectionIsNoDeath(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	_ = b.Close()
	report := watch(t, a, b.target())
	eventually(t, "two attempts", func() bool { return strings.Count(a.log.String(), "liveness link ends") >= 2 })
	requireSilence(t, report)
}

func TestEndByOurselvesIsNoDeath(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	report := watch(t, a, b.target())
	eventually(t, "the watch has its connection", func() bool { return linked(a) == 1 })
	if err := a.SetClusterID(uuid.NewString()); err != nil { // ends what met before
		t.Fatal(err)
	}
	eventually(t, "the watch is taken up again", func() bool { return linked(a) == 2 })
	requireSilence(t, report)
	_ = a.Close()
	if err := <-report; !errors.Is(err, net.ErrClosed) || errors.Is(err, port.ErrProcessDied) {
		t.Errorf("watch of a closed port reports %v; want ErrClosed", err)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	ctx, cancel := context.WithCancel(t.Context())
	report := a.WatchProcess(ctx, b.target())
	eventually(t, "the watch has its connection", func() bool { return linked(a) == 1 })
	cancel()
	if err := <-report; !errors.Is(err, context.Canceled) || errors.Is(err, port.ErrProcessDied) {
		t.Errorf("watch reports %v; want Canceled", err)
	}
}
