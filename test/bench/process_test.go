package bench

import (
	"bytes"
	"io"
	"net/rpc"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"srsx/test/peertest"
)

// roleVariable names the design that a process is to run; empty: it measures.
const roleVariable = "SRSX_BENCH_ROLE"

const (
	roleBatched = "batched" // srsx as it is
	rolePlain   = "plain"   // see plain
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if !serveUDPRelay(role) {
			serveDrive(role)
		}
		os.Exit(0)
	}
	peertest.Main(m)
}

// process is a peer in a process of its own.
type process struct {
	options Options
	role    string
	cmd     *exec.Cmd
	drive   *rpc.Client
	ended   chan struct{}
}

// launch starts a process of a role, which opens its peer when it is told to.
func launch(tb testing.TB, role string, o Options) *process {
	tb.Helper()
	own, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	p := &process{options: o, role: role, ended: make(chan struct{})}
	p.cmd = exec.Command(own)
	p.cmd.Env = append(os.Environ(), roleVariable+"="+role)
	var said bytes.Buffer
	p.cmd.Stderr = &said
	in, err := p.cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err = p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	p.drive = rpc.NewClient(pipes{out, in})
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // killed, as a rule
	}()
	tb.Cleanup(func() {
		p.kill()
		if tb.Failed() {
			tb.Logf("%s %s said:\n%s", role, o.Name, tail(said.String()))
		}
	})
	return p
}

// tail keeps the log of a failure readable.
func tail(text string) string {
	const most = 4000 // bytes
	return text[max(0, len(text)-most):]
}

// pipes is the drive's end of a process's standard input and output, or the other
// way round.
type pipes struct {
	io.Reader
	io.WriteCloser
}

// call has the process do something and fails the test if it cannot.
func (p *process) call(tb testing.TB, method string, args, reply any) {
	tb.Helper()
	if err := p.try(method, args, reply); err != nil {
		tb.Fatalf("%s at %s %s: %v", method, p.role, p.options.Name, err)
	}
}

func (p *process) try(method string, args, reply any) error {
	return p.drive.Call("Drive."+method, args, reply)
}

// kill is kill -9, and waits until the process is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL) // it may have ended
	<-p.ended
}

// trio is three processes that are one cluster.
type trio [3]*process

// start founds a cluster of three processes of a role.
func start(tb testing.TB, role string, registered int) trio {
	tb.Helper()
	var t trio
	var seeds []string
	for i := range t {
		ports := peertest.FreePorts(tb)
		seeds = append(seeds, ports.Gossip)
		t[i] = launch(tb, role, Options{
			Name: []string{"a", "b", "c"}[i], Dir: tb.TempDir(), Cluster: ports.Cluster, Gossip: ports.Gossip,
		})
	}
	servers := make([]Server, len(t))
	for i, p := range t {
		p.options.Seeds = strings.Join(seeds, ",")
		p.call(tb, "Open", p.options, &servers[i])
	}
	for _, p := range t {
		p.call(tb, "Found", servers, &None{})
	}
	t.settle(tb)
	// A cluster that has just got its name drops the links of those that did not
	// know it.
	peertest.Eventually(tb, time.Minute, "origins register", func() bool { return t[0].try("Register", registered, &None{}) == nil })
	return t
}

// settle waits until one leads and all know it.
func (t trio) settle(tb testing.TB) {
	tb.Helper()
	peertest.Eventually(tb, time.Minute, "a leader that all know", func() bool {
		leads, known := 0, 0
		for _, p := range t {
			var s Status
			p.call(tb, "Status", None{}, &s)
			if s.Leads {
				leads++
			}
			if s.Settled {
				known++
			}
		}
		return leads == 1 && known == len(t)
	})
}

// byRole returns the leader first.
func (t trio) byRole(tb testing.TB) (leader *process, followers []*process) {
	tb.Helper()
	for _, p := range t {
		var s Status
		p.call(tb, "Status", None{}, &s)
		if s.Leads && leader == nil {
			leader = p
		} else {
			followers = append(followers, p)
		}
	}
	if leader == nil {
		tb.Fatal("nobody leads")
	}
	return leader, followers
}

// each has all processes do the same at once.
func (t trio) each(tb testing.TB, method string, args any) {
	tb.Helper()
	var all sync.WaitGroup
	for _, p := range t {
		all.Go(func() {
			if err := p.try(method, args, &None{}); err != nil {
				tb.Errorf("%s at %s: %v", method, p.options.Name, err)
			}
		})
	}
	all.Wait()
}
