package mediatest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib/pkg/amf0"
	"github.com/bluenviron/gortmplib/pkg/handshake"
	"github.com/bluenviron/gortmplib/pkg/rawmessage"
)

// Recorder is an origin that answers what a client needs and keeps every
// message that it says.
type Recorder struct {
	Addr string // host:port

	onStart  func(conn net.Conn, name string)
	sessions chan []Message // each when its client has left

	mu    sync.Mutex
	heard map[uint8]int // guarded by mu; by type
}

// What a recorder keeps is more than any test compares.
const (
	maxSessions = 1000
	maxKept     = 5000 // messages of a session
)

// Record runs a recorder until the test ends. onStart, unless it is nil, answers
// publish and play instead of the usual status.
func Record(tb testing.TB, onStart func(conn net.Conn, name string)) *Recorder {
	tb.Helper()
	ln, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r := &Recorder{Addr: ln.Addr().String(), onStart: onStart, sessions: make(chan []Message, maxSessions), heard: make(map[uint8]int)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
				defer conn.Close()
				r.serve(conn)
			})
		}
	})
	tb.Cleanup(func() { cancel(); _ = ln.Close(); running.Wait() })
	return r
}

func (r *Recorder) serve(conn net.Conn) {
	if _, _, err := handshake.DoServer(conn, false); err != nil {
		return // a probe
	}
	var kept []Message
	defer func() { r.sessions <- kept }()
	answers := NewConn(conn)
	messages := NewChunkReader(conn)
	created := 0.0
	for {
		m, err := messages.Next()
		if err != nil {
			return
		}
		if len(kept) < maxKept {
			kept = append(kept, m)
		}
		r.mu.Lock()
		r.heard[m.Type]++
		r.mu.Unlock()
		command, err := m.Command()
		if err != nil {
			continue
		}
		switch command.Name {
		case "connect":
			err = answers.WriteCommand(false, "_result", command.Transaction, amf0.Object{}, amf0.Object{
				{Key: "level", Value: "status"}, {Key: "code", Value: "NetConnection.Connect.Success"},
			})
		case "createStream":
			created++
			err = answers.WriteCommand(false, "_result", command.Transaction, nil, created)
		case "publish", "play":
			if r.onStart != nil {
				r.onStart(conn, command.Text(1))
				continue
			}
			err = answers.WriteCommand(true, "onStatus", 0.0, nil, amf0.Object{
				{Key: "level", Value: "status"}, {Key: "code", Value: "NetStream.Publish.Start"},
			})
		}
		if err != nil {
			return
		}
	}
}

// Next waits for the next client to leave and returns what it has said, as far
// as that is not about the connection itself.
func (r *Recorder) Next(tb testing.TB) []Message {
	tb.Helper()
	const patience = 20 * time.Second
	select {
	case all := <-r.sessions:
		return Relayed(all)
	case <-time.After(patience):
		tb.Fatalf("no session has ended at the origin within %s", patience)
		return nil
	}
}

// Heard returns how many messages of a type all clients have said so far.
func (r *Recorder) Heard(kind uint8) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard[kind]
}

// Relayed leaves out what is between the two ends of one connection: chunk
// sizes, aborts, acknowledgements, windows.
func Relayed(all []Message) []Message {
	const userControl, lastControl = 4, 6
	var kept []Message
	for _, m := range all {
		if m.Type == 0 || m.Type == userControl || m.Type > lastControl {
			kept = append(kept, m)
		}
	}
	return kept
}

// Command decodes a command message.
func (m Message) Command() (Command, error) {
	return ParseCommand(&rawmessage.Message{Type: m.Type, Body: m.Body})
}

// String describes m for people who compare.
func (m Message) String() string {
	return fmt.Sprintf("type %d csid %d stream %d at %d: %d bytes %.40q", m.Type, m.CSID, m.StreamID, m.Timestamp, len(m.Body), m.Body)
}

// List is a line a message.
func List(messages []Message) string {
	var b strings.Builder
	for _, m := range messages {
		b.WriteString(m.String() + "\n")
	}
	return b.String()
}

// Compare returns an error unless both sessions are the same messages, but for
// the property that a relay adds last to connect.
func Compare(straight, through []Message, mark string) error {
	for i := range min(len(straight), len(through)) {
		want, got := straight[i], through[i]
		if command, err := got.Command(); err == nil && command.Name == "connect" {
			if got.Body, err = withoutLast(command, mark); err != nil {
				return err
			}
		}
		if got.Type != want.Type || got.Timestamp != want.Timestamp || got.StreamID != want.StreamID ||
			got.CSID != want.CSID || !bytes.Equal(got.Body, want.Body) {
			return fmt.Errorf("message %d is\n%v\nwant\n%v", i, got, want)
		}
	}
	if len(straight) != len(through) {
		return fmt.Errorf("%d messages; want %d:\n%swant:\n%s", len(through), len(straight), List(through), List(straight))
	}
	return nil
}

// withoutLast encodes a connect without the last property, which has to be one
// of that name.
func withoutLast(connect Command, name string) ([]byte, error) {
	object := connect.Object(0)
	if len(object) == 0 || object[len(object)-1].Key != name {
		return nil, errors.New("connect does not end with " + name)
	}
	connect.Args[0] = object[:len(object)-1]
	return amf0.Data(append([]any{connect.Name, connect.Transaction}, connect.Args...)).Marshal()
}
