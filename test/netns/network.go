//go:build linux

// Package netns gives tests hosts: network namespaces on one Ethernet of their
// own, with firewalls that cut them off from each other. A test's process stays
// where it is and opens its sockets, and starts its programs, at these hosts.
// It takes root, ip and nft; nothing outlives the test, however it ends.
package netns

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Network is hosts on one Ethernet, each of which reaches all others. No other
// network is reached from it.
type Network struct {
	lan   space // holds the bridge
	names string

	mu    sync.Mutex
	taken int // guarded by mu; addresses given out
	hosts int // guarded by mu
}

// New makes a network without hosts, for the time of the test.
func New(tb testing.TB) *Network {
	tb.Helper()
	n := &Network{lan: open(tb), names: filepath.Join(tb.TempDir(), "hosts")}
	n.Name(tb, "localhost", "127.0.0.1")
	configure(tb, n.lan, "ip", "link", "add", "lan", "up", "type", "bridge")
	return n
}

func open(tb testing.TB) space {
	tb.Helper()
	s, err := newSpace()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.file.Close() })
	return s
}

// configure runs a program that sets up a namespace.
func configure(tb testing.TB, s space, program string, args ...string) {
	tb.Helper()
	if out, err := run(s, "", program, args...); err != nil {
		tb.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, out)
	}
}

func run(s space, stdin, program string, args ...string) (out string, err error) {
	path, err := exec.LookPath(program)
	if err != nil {
		path = "/usr/sbin/" + program // not in the path of everybody
	}
	cmd := exec.Command(path, args...) //nolint:noctx // ends at once
	cmd.Stdin = strings.NewReader(stdin)
	var printed []byte
	err = s.do(func() error {
		printed, err = cmd.CombinedOutput()
		return err
	})
	return string(printed), err
}

// Name makes all hosts resolve name to addresses, from now on, and to no others.
func (n *Network) Name(tb testing.TB, name string, addresses ...string) {
	tb.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	known, err := os.ReadFile(n.names)
	if err != nil && !os.IsNotExist(err) {
		tb.Fatal(err)
	}
	lines := slices.DeleteFunc(slices.Collect(strings.Lines(string(known))), func(line string) bool {
		return strings.HasSuffix(line, " "+name+"\n")
	})
	for _, address := range addresses {
		lines = append(lines, address+" "+name+"\n")
	}
	// Written in place: the hosts have this very file in the place of theirs.
	if err = os.WriteFile(n.names, []byte(strings.Join(lines, "")), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// Host is a machine of a network, with one private address.
type Host struct {
	network *Network
	space   space
	ip      string
}

// Host adds a host to the network.
func (n *Network) Host(tb testing.TB) *Host {
	tb.Helper()
	h := &Host{network: n, space: open(tb)}
	n.mu.Lock()
	n.hosts++
	port := fmt.Sprintf("port%d", n.hosts)
	n.mu.Unlock()
	configure(tb, n.lan, "ip", "link", "add", port, "up", "master", "lan", "type", "veth",
		"peer", "name", device, "netns", h.space.path())
	configure(tb, h.space, "ip", "link", "set", "lo", "up")
	// Only the one address that others are told of.
	configure(tb, h.space, "ip", "link", "set", device, "addrgenmode", "none", "up")
	h.Move(tb)
	return h
}

const device = "eth0"

// Move gives the host another address instead of the one it has, as a new lease
// would. Its connections of before are dead, and say so to nobody.
func (h *Host) Move(tb testing.TB) {
	tb.Helper()
	h.network.mu.Lock()
	h.network.taken++
	h.ip = fmt.Sprintf("10.77.0.%d", h.network.taken)
	h.network.mu.Unlock()
	configure(tb, h.space, "ip", "address", "flush", "dev", device)
	configure(tb, h.space, "ip", "address", "add", h.ip+"/24", "dev", device)
}

// IP returns the address of the host.
func (h *Host) IP() string { return h.ip }

// Start starts cmd at the host, where it looks names up in those of the network.
func (h *Host) Start(cmd *exec.Cmd) error {
	const own = `mount --bind "$0" /etc/hosts && exec "$@"`
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return err
	}
	cmd.Args = append([]string{"unshare", "--mount", "sh", "-c", own, h.network.names, cmd.Path}, cmd.Args[1:]...)
	cmd.Path = unshare
	return h.space.do(cmd.Start)
}

// DialContext connects from the host to addr, an IP and a port.
func (h *Host) DialContext(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	err = h.space.do(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Listen listens at the host.
func (h *Host) Listen(ctx context.Context, network, addr string) (ln net.Listener, err error) {
	err = h.space.do(func() error {
		ln, err = (&net.ListenConfig{}).Listen(ctx, network, addr)
		return err
	})
	return ln, err
}

// ListenPacket opens a UDP port at the host.
func (h *Host) ListenPacket(ctx context.Context, addr string) (conn net.PacketConn, err error) {
	err = h.space.do(func() error {
		conn, err = (&net.ListenConfig{}).ListenPacket(ctx, "udp", addr)
		return err
	})
	return conn, err
}

// At calls f at the host: the sockets that it opens itself, not by another
// goroutine, are the host's.
func (h *Host) At(f func() error) error { return h.space.do(f) }
