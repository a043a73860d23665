package rtmp_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
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
			replay(t, direct.addr, script)
			straight := direct.next(t)
			origin := record(t, nil)
			p := within(t, patience, patiently, origin.origin())
			replay(t, p.addr, script)
			requireSame(t, straight, origin.next(t))
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
			straight := played(t, origin.addr)
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
			return withoutControl(all)
		}
		if answer, err := parse(m); err == nil && answer.Transaction == 2 {
			all = nil
			continue
		}
		all = append(all, m)
	}
}

// requireSame compares two sessions. A peer marks the connect that it passes on.
func requireSame(t *testing.T, straight, through []mediatest.Message) {
	t.Helper()
	if len(straight) != len(through) {
		t.Errorf("%d messages through the peer; want %d:\n%s\nwant:\n%s", len(through), len(straight), list(through), list(straight))
	}
	for i := range min(len(straight), len(through)) {
		want, got := straight[i], through[i]
		if command, err := parse(got); err == nil && command.Name == "connect" {
			got.Body = withoutMark(t, command)
		}
		if got.Type != want.Type || got.Timestamp != want.Timestamp || got.StreamID != want.StreamID ||
			got.CSID != want.CSID || !bytes.Equal(got.Body, want.Body) {
			t.Fatalf("message %d is\n%s\nwant\n%s", i, list([]mediatest.Message{got}), list([]mediatest.Message{want}))
		}
	}
}

// withoutMark encodes a connect as it was before a peer marked it.
func withoutMark(t *testing.T, connect mediatest.Command) []byte {
	t.Helper()
	object := connect.Object(0)
	if mark, ok := object.GetString(proxy.HopProperty); !ok || mark != "n1" {
		t.Errorf("hop mark = %q; want n1", mark)
	}
	connect.Args[0] = object[:len(object)-1]
	return amf(append([]any{connect.Name, connect.Transaction}, connect.Args...)...)
}

// list is what a person can compare.
func list(messages []mediatest.Message) string {
	var text strings.Builder
	for _, m := range messages {
		fmt.Fprintf(&text, "type %d csid %d stream %d at %d: %d bytes %.40q\n", m.Type, m.CSID, m.StreamID, m.Timestamp, len(m.Body), m.Body)
	}
	return text.String()
}
