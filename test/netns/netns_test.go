//go:build linux

package netns_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"srsx/test/netns"
)

// pair is two hosts, and a port of the second that sends back what it gets.
func pair(t *testing.T) (a, b *netns.Host, addr string, heard <-chan string) {
	t.Helper()
	n := netns.New(t)
	a, b = n.Host(t), n.Host(t)
	ln, err := b.Listen(t.Context(), "tcp", b.IP()+":7")
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 100)
	var served sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); served.Wait() })
	served.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			served.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(t.Context(), func() { _ = conn.Close() })() // it may be told of no end
				for buffer := make([]byte, 1); ; {
					if _, err := io.ReadFull(conn, buffer); err != nil {
						return
					}
					said <- string(buffer)
					_, _ = conn.Write(buffer)
				}
			})
		}
	})
	return a, b, ln.Addr().String(), said
}

func dial(t *testing.T, from *netns.Host, addr string) (net.Conn, error) {
	t.Helper()
	return dialBy(t, "tcp", from, addr)
}

func dialBy(t *testing.T, network string, from *netns.Host, addr string) (net.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	conn, err := from.DialContext(ctx, network, addr)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn, err
}

func echo(conn net.Conn, within time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

func TestFirewallsCutAndHeal(t *testing.T) {
	a, b, addr, _ := pair(t)
	conn, err := dial(t, a, addr)
	if err != nil {
		t.Fatal(err)
	}
	if err = echo(conn, time.Second); err != nil {
		t.Fatalf("echo = %v; want hosts to reach each other", err)
	}
	for name, cut := range map[string]func(){
		"cut here": func() { a.Cut(t, b) }, "cut there": func() { b.Cut(t, a) },
		"deaf here": func() { a.Deafen(t, b) }, "deaf there": func() { b.Deafen(t, a) },
	} {
		cut()
		if _, err = dial(t, a, addr); !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
			t.Errorf("%s: dial = %v; want no answer", name, err)
		}
		a.Heal(t)
		b.Heal(t)
		if err = echo(conn, 10*time.Second); err != nil {
			t.Errorf("%s: echo = %v; want the connection to outlive it", name, err)
		}
	}
	a.Reset(t, b)
	if _, err = conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read = %v; want a reset, without a word of this side", err)
	}
	if _, err = dial(t, a, addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial = %v; want it refused", err)
	}
}

// Deafness is one-way: what the deaf host sends arrives.
func TestTheDeafAreHeard(t *testing.T) {
	a, b, addr, heard := pair(t)
	conn, err := dial(t, a, addr)
	if err != nil {
		t.Fatal(err)
	}
	a.Deafen(t, b)
	if err := echo(conn, 300*time.Millisecond); !os.IsTimeout(err) {
		t.Errorf("echo = %v; want no answer", err)
	}
	select {
	case <-heard:
	case <-time.After(5 * time.Second):
		t.Error("the other host has heard nothing")
	}
}

func TestTheLossyLoseTheirShare(t *testing.T) {
	n := netns.New(t)
	a, b := n.Host(t), n.Host(t)
	port, err := b.ListenPacket(t.Context(), b.IP()+":7")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = port.Close() }()
	conn, err := dialBy(t, "udp", a, port.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	arrive := func(sent int) (n int) {
		t.Helper()
		for range sent {
			if _, err := conn.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		if err := port.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		for {
			if _, _, err := port.ReadFrom(make([]byte, 9)); err != nil {
				return n
			}
			n++
		}
	}
	if got := arrive(100); got != 100 {
		t.Errorf("%d of 100 arrive; want all", got)
	}
	b.Lose(t, 30)
	if got := arrive(200) + arrive(200) + arrive(200); got < 360 || got > 480 { // 420, give or take 5 deviations
		t.Errorf("%d of 600 arrive; want 70 %%", got)
	} else if lost := b.Lost(t); lost != 600-got {
		t.Errorf("%d count as lost, and %d of 600 arrive", lost, got)
	}
	b.Heal(t)
	if got := arrive(100); got != 100 {
		t.Errorf("%d of 100 arrive; want all again", got)
	}
}

func TestProgramsRunAtTheirHost(t *testing.T) {
	n := netns.New(t)
	h := n.Host(t)
	n.Name(t, "peers", "10.77.0.8", "10.77.0.9")
	n.Name(t, "peers", h.IP())
	var out strings.Builder
	cmd := exec.Command("sh", "-c", "cat /etc/hosts; cat /proc/net/fib_trie")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := h.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if !strings.Contains(out.String(), "-- "+h.IP()+"\n") {
		t.Errorf("routes = %s; want those of %s", out.String(), h.IP())
	}
	if want := h.IP() + " peers\n"; !strings.Contains(out.String(), want) || strings.Contains(out.String(), "10.77.0.9") {
		t.Errorf("hosts = %s; want %q alone", out.String(), want)
	}
}

func TestNothingIsLeft(t *testing.T) {
	before := spaces(t)
	t.Run("test", func(t *testing.T) {
		n := netns.New(t)
		n.Host(t)
		if len(spaces(t)) <= len(before) {
			t.Fatal("no namespace seen; want this test to notice them")
		}
	})
	if after := spaces(t); len(after) > len(before) {
		t.Errorf("namespaces = %v; want as before, %v", after, before)
	}
}

// spaces returns the network namespaces that this process keeps.
func spaces(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	threads, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]bool)
	for _, f := range append(files, threads...) {
		if to, err := os.Readlink(f); err == nil && strings.HasPrefix(to, "net:") {
			found[to] = true
		}
	}
	return found
}
