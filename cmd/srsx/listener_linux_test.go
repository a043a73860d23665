package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that takes nobody must not look alive, not even while the sessions
// that it has go on.
func TestADyingListenerEndsTheProcess(t *testing.T) {
	for _, flag := range []string{"rtmp", "http", "api", "system-api", "pprof"} {
		t.Run(flag, func(t *testing.T) {
			p, _ := withEncoder(t, options{env: map[string]string{"GO_PPROF": "127.0.0.1:0"}})
			addr := ""
			for _, line := range p.logged("listening") {
				if line["for"] == flag {
					addr, _ = line["addr"].(string)
				}
			}
			killListener(t, addr)
			code := p.awaitEnd(t)
			lines := strings.Split(strings.TrimSpace(p.log.String()), "\n")
			last := lines[len(lines)-1]
			want := "-" + flag
			if flag == "pprof" {
				want = "GO_PPROF"
			}
			if code != exitRefused || !strings.HasPrefix(last, "srsx: "+want+": listener "+addr) {
				t.Errorf("exit code = %d, last line %q; want %d and %s with its reason", code, last, exitRefused, want)
			}
		})
	}
}

// killListener has the kernel stop a listening socket of this process.
func killListener(t *testing.T, addr string) {
	t.Helper()
	_, text, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatalf("address of the listener %q: %v", addr, err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		fd, err := strconv.Atoi(f.Name())
		if err != nil {
			continue
		}
		if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
			continue
		}
		if at, err := unix.Getsockname(fd); err == nil {
			if a, ok := at.(*unix.SockaddrInet4); ok && a.Port == port {
				if err := unix.Shutdown(fd, unix.SHUT_RD); err != nil {
					t.Fatal(err)
				}
				return
			}
		}
	}
	t.Fatalf("no listener at %s", addr)
}
