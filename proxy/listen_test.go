package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"srsx/proxy"
)

func listen(t *testing.T, config proxy.ListenConfig) net.Listener {
	t.Helper()
	config.Name = "rtmp"
	ln, err := proxy.Listen(t.Context(), "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln
}

func networks(t *testing.T, texts ...string) proxy.Networks {
	t.Helper()
	n, err := proxy.ParseNetworks(texts...)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// connect returns both ends of a connection after the client sent data.
func connect(t *testing.T, ln net.Listener, data string) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	if _, err = io.WriteString(client, data); err != nil {
		t.Fatal(err)
	}
	server, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	_ = server.SetDeadline(time.Now().Add(5 * time.Second))
	return client, server
}

const (
	headerV1 = "PROXY TCP4 203.0.113.7 127.0.0.1 5555 1935\r\n"
	headerV2 = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x07\x7f\x00\x00\x01\x15\xb3\x07\x8f"
)

func TestTrustedPeerNamesTheClient(t *testing.T) {
	ln := listen(t, proxy.ListenConfig{Trusted: networks(t, "127.0.0.0/8")})
	for name, header := range map[string]string{"v1": headerV1, "v2": headerV2} {
		t.Run(name, func(t *testing.T) {
			_, conn := connect(t, ln, header+"hello")
			if got := proxy.AddrPortOf(conn.RemoteAddr()); got != netip.MustParseAddrPort("203.0.113.7:5555") {
				t.Errorf("RemoteAddr = %v; want 203.0.113.7:5555", got)
			}
			expect(t, conn, "hello")
			if _, ok := proxy.TCPConn(conn); !ok {
				t.Error("no TCP connection below")
			}
		})
	}
}

func TestTrustedPeerMaySendNoHeader(t *testing.T) {
	ln := listen(t, proxy.ListenConfig{Trusted: networks(t, "127.0.0.1")})
	client, conn := connect(t, ln, "hello")
	if conn.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("RemoteAddr = %v; want %v", conn.RemoteAddr(), client.LocalAddr())
	}
	expect(t, conn, "hello")
}

func TestHeaderOfUntrustedPeerIsItsOwnBytes(t *testing.T) {
	ln := listen(t, proxy.ListenConfig{Trusted: networks(t, "10.0.0.0/8")})
	client, conn := connect(t, ln, headerV1)
	if conn.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("RemoteAddr = %v; want %v", conn.RemoteAddr(), client.LocalAddr())
	}
	expect(t, conn, headerV1)
	if _, ok := proxy.TCPConn(conn); !ok {
		t.Error("no TCP connection below")
	}
}

func expect(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v; want %q", got, err, want)
	}
}

func TestBadHeaderEndsOnlyItsConnection(t *testing.T) {
	ln := listen(t, proxy.ListenConfig{Trusted: networks(t, "127.0.0.1"), HeaderTimeout: 50 * time.Millisecond})
	for name, sent := range map[string]string{
		"garbage v1": "PROXY TCP4 nonsense\r\n",
		"endless v1": "PROXY " + strings.Repeat("x", 5000),
		"garbage v2": "\r\n\r\n\x00\r\nQUIT\nzzzzzzzzzzzzzzzz",
	} {
		t.Run(name, func(t *testing.T) {
			_, conn := connect(t, ln, sent)
			if _, err := io.ReadAll(conn); err == nil {
				t.Error("read succeeded; want the header's error")
			}
		})
	}
	_, conn := connect(t, ln, headerV1+"hello")
	expect(t, conn, "hello")
}

func TestSilentTrustedPeerIsWaitedForOnlySoLong(t *testing.T) {
	ln := listen(t, proxy.ListenConfig{Trusted: networks(t, "127.0.0.1"), HeaderTimeout: 30 * time.Millisecond})
	for _, sent := range []string{"", "PRO"} {
		client, conn := connect(t, ln, sent)
		_ = conn.SetDeadline(time.Time{})
		addr := make(chan net.Addr, 1)
		go func() { addr <- conn.RemoteAddr() }()
		select {
		case got := <-addr:
			if got.String() != client.LocalAddr().String() {
				t.Errorf("RemoteAddr = %v; want the peer's own", got)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("RemoteAddr waits for ever")
		}
	}
}

func TestFloodIsClosedAtOnceAndLeavesRoomAfterwards(t *testing.T) {
	ln := listen(t, proxy.ListenConfig{MaxConnsPerAddr: 2})
	accepted := make(chan net.Conn, 100)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	var clients []net.Conn
	for range 50 {
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			continue // reset before the dial was done: refused as well
		}
		defer client.Close()
		clients = append(clients, client)
	}
	first, second := <-accepted, <-accepted
	for _, client := range clients[2:] {
		_ = client.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := client.Read(make([]byte, 1))
		if netErr := net.Error(nil); err == nil || errors.As(err, &netErr) && netErr.Timeout() {
			t.Fatalf("read of a refused connection = %v; want it closed", err)
		}
	}
	_ = first.Close()
	_ = first.Close() // counts once
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	select {
	case third := <-accepted:
		_ = third.Close()
	case <-time.After(5 * time.Second):
		t.Fatal("no room after a connection was closed")
	}
	_ = second.Close()
	_ = ln.Close()
	<-done
	if len(accepted) != 0 {
		t.Errorf("%d connections beyond the limit", len(accepted))
	}
}

func TestTakenPortSaysSo(t *testing.T) {
	ln := listen(t, proxy.ListenConfig{})
	_, err := proxy.Listen(context.Background(), ln.Addr().String(), proxy.ListenConfig{Name: "rtmp"})
	want := "listen rtmp " + ln.Addr().String() + ": address already in use"
	if err == nil || err.Error() != want {
		t.Errorf("Listen = %v; want %s", err, want)
	}
}

func TestAcceptEndsWhenClosed(t *testing.T) {
	ln := listen(t, proxy.ListenConfig{})
	_ = ln.Close()
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v; want net.ErrClosed", err)
	}
}

func TestNetworks(t *testing.T) {
	n := networks(t, "10.0.0.0/8", "::1", "192.0.2.9", "::ffff:198.51.100.0/120", "2001:db8:1::/48")
	for addr, want := range map[string]bool{
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "::1": true, "192.0.2.9": true, "192.0.2.8": false, "::2": false,
		"198.51.100.7": true, "::ffff:198.51.100.7": true, "198.51.101.7": false, "2001:db8:1:2::3": true, "2001:db8:2::": false,
	} {
		if got := n.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Contains(%s) = %v; want %v", addr, got, want)
		}
	}
	for _, bad := range []string{"", "10.0.0.0/33", "host"} {
		if _, err := proxy.ParseNetworks(bad); err == nil {
			t.Errorf("ParseNetworks(%q) succeeded", bad)
		}
	}
}
