package port_test

import (
	"context"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"srsx/cluster/keyring"
	"srsx/cluster/port"
)

func withLimits(limits port.Limits) func(*port.Config) {
	return func(c *port.Config) { c.Limits = limits }
}

// stranger connects from an address of the loopback net, and says nothing.
func stranger(t *testing.T, to *peer, from string) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", to.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestSilentStrangersMakeWayForPeers(t *testing.T) {
	for name, from := range map[string]func(i int) string{
		"of one address":    func(int) string { return "127.0.0.1" }, // the peer's own
		"of many addresses": func(i int) string { return net.IPv4(127, 0, 1, byte(i)).String() },
	} {
		t.Run(name, func(t *testing.T) {
			keys := withKeys(ring(t, keyring.Generate()))
			b := start(t, "b", keys, withLimits(port.Limits{Handshakes: 8, HandshakesPerAddr: 4}))
			var silent []net.Conn
			for i := range 20 {
				silent = append(silent, stranger(t, b, from(i)))
			}
			requireEcho(t, dial(t, start(t, "a", keys), port.KindRPC, b.target()), "x")
			requireEnd(t, silent[0]) // long before the deadline of its handshake
		})
	}
}

func TestFloodTakesOverItsOwnPlaces(t *testing.T) {
	b := start(t, "b", withKeys(ring(t, keyring.Generate())), withLimits(port.Limits{Handshakes: 8, HandshakesPerAddr: 4}))
	slow := stranger(t, b, "127.0.0.5")
	var flood []net.Conn
	for range 50 {
		flood = append(flood, stranger(t, b, "127.0.0.6"))
	}
	requireEnd(t, flood[45])
	_, _ = io.WriteString(slow, "\x02srsx\x01\x01\x00")
	_ = slow.SetReadDeadline(time.Now().Add(patience))
	verdict := make([]byte, 3)
	if _, err := io.ReadFull(slow, verdict); err != nil {
		t.Errorf("slow peer beside a flood: %v; want its handshake to go on", err)
	}
}

func TestSilentSlowAndLyingStrangersAreCutAtTheDeadline(t *testing.T) {
	b := start(t, "b", withKeys(ring(t, keyring.Generate())), func(c *port.Config) { c.HandshakeTimeout = 200 * time.Millisecond })
	for name, send := range map[string]func(net.Conn){
		"silent": func(net.Conn) {},
		"slow": func(c net.Conn) {
			for range 8 {
				if _, err := c.Write([]byte{2}); err != nil {
					return
				}
				time.Sleep(40 * time.Millisecond) // this is the attack, not a wait
			}
		},
		"stops before TLS":  func(c net.Conn) { _, _ = io.WriteString(c, "\x02srsx\x01\x01\x00") },
		"stops within TLS":  func(c net.Conn) { _, _ = io.WriteString(c, "\x02srsx\x01\x01\x00\x16\x03\x01\x02\x00") },
		"half of a prelude": func(c net.Conn) { _, _ = io.WriteString(c, "\x02srs") },
	} {
		t.Run(name, func(t *testing.T) {
			c := stranger(t, b, "127.0.0.1")
			began := time.Now()
			send(c)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, c); timedOut(err) {
				t.Fatal("connection is kept")
			}
			if took := time.Since(began); took > patience/2 {
				t.Errorf("cut after %v; want about 200ms", took)
			}
		})
	}
}

func garbage() map[string]string {
	return map[string]string{
		"http":            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"tls":             "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 506),
		"zeros":           strings.Repeat("\x00", 5000),
		"not TLS":         "\x02srsx\x01\x01\x00" + strings.Repeat("y", 600),
		"reserved bit":    "\x02srsx\x01\x01\x01",
		"unknown guard":   "\x02srsx\x01\xff\x00",
		"unknown kind":    "\xeesrsx\x01\x01\x00",
		"future version":  "\x02srsx\x63\x01\x00",
		"endless garbage": strings.Repeat("z", 1<<20),
	}
}

func TestGarbageEndsOnlyItsConnection(t *testing.T) {
	keys := withKeys(ring(t, keyring.Generate()))
	a, b := start(t, "a", keys), start(t, "b", keys)
	c := dial(t, a, port.KindRPC, b.target())
	for name, text := range garbage() {
		t.Run(name, func(t *testing.T) {
			s := stranger(t, b, "127.0.0.1")
			_, _ = io.WriteString(s, text)
			_ = s.SetReadDeadline(time.Now().Add(patience))
			got, err := io.ReadAll(s)
			if timedOut(err) {
				t.Fatal("connection is kept")
			}
			if len(got) > 400 {
				t.Errorf("stranger got %d bytes; want a refusal at most", len(got))
			}
			requireEcho(t, c, name)
		})
	}
}

func TestGarbageWithoutAKeyEndsOnlyItsConnection(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	c := dial(t, a, port.KindRPC, b.target())
	for name, text := range map[string]string{
		"no length":    "\x02srsx\x01\x00\x00" + "\x00\x00",
		"too long":     "\x02srsx\x01\x00\x00" + "\xff\xff" + strings.Repeat("x", 70000),
		"short hello":  "\x02srsx\x01\x00\x00" + "\x00\x05\x00abcd",
		"refuses us":   "\x02srsx\x01\x00\x00" + "\x00\x03\x02no",
		"cut in hello": "\x02srsx\x01\x00\x00" + "\x01",
	} {
		t.Run(name, func(t *testing.T) {
			s := stranger(t, b, "127.0.0.1")
			_, _ = io.WriteString(s, text)
			_ = s.(*net.TCPConn).CloseWrite() //nolint:errcheck // the dialer makes nothing else
			_ = s.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, s); timedOut(err) {
				t.Fatal("connection is kept")
			}
			requireEcho(t, c, name)
		})
	}
}

func TestPeersGetThroughAFlood(t *testing.T) {
	keys := withKeys(ring(t, keyring.Generate()))
	b := start(t, "b", keys)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var knocked atomic.Int64
	done := make(chan struct{})
	for i := range 3 {
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(i))}
		go func() {
			defer func() { done <- struct{}{} }()
			for ctx.Err() == nil {
				c, err := (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", b.Addr().String())
				if err != nil {
					continue
				}
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
				_ = c.(*net.TCPConn).SetLinger(0) //nolint:errcheck // the dialer makes nothing else
				_ = c.Close()
				knocked.Add(1)
			}
		}()
	}
	a := start(t, "a", keys)
	for range 20 {
		requireEcho(t, dial(t, a, port.KindRPC, b.target()), "x")
	}
	eventually(t, "a flood of 200", func() bool { return knocked.Load() >= 200 })
	stop()
	for range 3 {
		<-done
	}
	if lines := strings.Count(b.log.String(), "level=WARN"); lines > 0 {
		t.Errorf("%d warnings of %d strangers; want none", lines, knocked.Load())
	}
}

func TestEachRefusalIsLoggedOnceAMinuteAtBothEnds(t *testing.T) {
	ca := newAuthority(t)
	b := start(t, "b", withCerts(ca.load(t, "b.test.srsx")))
	for name, template := range map[string]x509.Certificate{
		"a1": {DNSNames: []string{"a1.test.srsx"}, NotAfter: time.Now().Add(-time.Minute)},
		"a2": {DNSNames: []string{"a1.test.srsx"}},
	} {
		a := start(t, name, withCerts(load(t, ca.issue(t, t.TempDir(), template), &journal{})))
		for range 20 {
			requireRefusal(t, a, b, port.KindRPC, port.ErrUntrusted)
		}
		for _, p := range []*peer{a, b} {
			if lines := strings.Count(p.log.String(), "peer not accepted"); lines != 1 {
				t.Errorf("%d lines at %p of 20 refusals of %s; want one:\n%s", lines, p, name, p.log)
			}
			p.log.lines.Reset()
		}
	}
}

func TestOpenConnectionsAreBounded(t *testing.T) {
	for name, limits := range map[string]port.Limits{
		"in total":         {Conns: 3},
		"from one address": {ConnsPerAddr: 3},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := start(t, "a"), start(t, "b", withLimits(limits))
			first := dial(t, a, port.KindRPC, b.target())
			for range 2 {
				requireEcho(t, dial(t, a, port.KindRPC, b.target()), "x")
			}
			requireRefusal(t, a, b, port.KindRPC, port.ErrTooMany, "3 are open")
			requireEcho(t, first, "still here")
			_ = first.Close()
			eventually(t, "a place is free again", func() bool {
				c, err := a.Dial(t.Context(), port.KindRPC, b.target())
				if err != nil {
					return false
				}
				defer func() { _ = c.Close() }()
				return echo(c, "x") == nil
			})
		})
	}
}
