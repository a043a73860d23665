package rtmp_test

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"srsx/proxy"
	"srsx/test/mediatest"
)

// What a client says straight to an origin and what it says through a peer are
// the same messages there: type, time, streams, order and body.
func TestClientsAreRelayedMessageForMessage(t *testing.T) {
	for name, script := range clientShapes() {
		t.Run(name, func(t *testing.T) {
			direct := record(t, nil)
			replay(t, direct.Addr, script)
			straight := direct.Next(t)
			origin := record(t, nil)
			p := within(t, patience, patiently, origin.origin())
			replay(t, p.addr, script)
			requireSame(t, straight, origin.Next(t))
			p.awaitNoSessions(t)
		})
	}
}

// And what an origin sends to a player, likewise.
func TestOriginsAreRelayedMessageForMessage(t *testing.T) {
	for name, script := range originShapes() {
		t.Run(name, func(t *testing.T) {
			origin := record(t, func(conn net.Conn, _ string) {
				_, _ = conn.Write(script)
				_ = conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // it is what the recorder accepts
			})
			straight := played(t, origin.Addr)
			p := within(t, patience, patiently, origin.origin())
			requireSame(t, straight, played(t, p.addr))
			p.awaitNoSessions(t)
		})
	}
}

// played plays a stream and returns what came after the stream was created.
func played(t *testing.T, addr string) []mediatest.Message {
	t.Helper()
	s := newSession()
	s.command(3, 0, "connect", 1.0, connectObject())
	s.command(3, 0, "createStream", 2.0, nil)
	s.command(8, 1, "play", 3.0, nil, "s", -2000.0)
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := shake(conn); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(s.Bytes()); err != nil {
		t.Fatal(err)
	}
	reader := mediatest.NewChunkReader(conn)
	var all []mediatest.Message
	for {
		m, err := reader.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("play: %v", err)
			}
			return mediatest.Relayed(all)
		}
		if answer, err := m.Command(); err == nil && answer.Transaction == 2 {
			all = nil
			continue
		}
		all = append(all, m)
	}
}

// requireSame compares two sessions. A peer marks the connect that it passes on.
func requireSame(t *testing.T, straight, through []mediatest.Message) {
	t.Helper()
	if err := mediatest.Compare(straight, through, proxy.HopProperty); err != nil {
		t.Error(err)
	}
}
