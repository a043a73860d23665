package rtmp_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib/pkg/amf0"
	"github.com/bluenviron/gortmplib/pkg/handshake"
	"github.com/bluenviron/gortmplib/pkg/rawmessage"

	"srsx/lb"
	"srsx/test/mediatest"
	"srsx/test/proxytest"
)

// recorder is an origin that keeps every message of its clients. Nothing of it
// is the product's own: what both get wrong alike would not be seen.
type recorder struct {
	addr     string
	sessions chan []mediatest.Message // each when its client has left

	// onStart, when set, answers publish and play instead of the usual status.
	onStart func(conn net.Conn, name string)
}

// What a recorder keeps is more than any test compares.
const (
	maxSessions = 1000
	maxKept     = 1000 // messages of a session
)

// record runs a recorder until the test ends.
func record(t *testing.T, onStart func(net.Conn, string)) *recorder {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{addr: ln.Addr().String(), sessions: make(chan []mediatest.Message, maxSessions), onStart: onStart}
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
	t.Cleanup(func() { cancel(); _ = ln.Close(); running.Wait() })
	return r
}

func (r *recorder) origin() lb.Origin { return proxytest.StaticOrigin("o", r.addr, "") }

func (r *recorder) serve(conn net.Conn) {
	if _, _, err := handshake.DoServer(conn, false); err != nil {
		return // a probe
	}
	var kept []mediatest.Message
	defer func() { r.sessions <- kept }()
	answers := mediatest.NewConn(conn)
	messages := mediatest.NewChunkReader(conn)
	created := 0.0
	for {
		m, err := messages.Next()
		if err != nil {
			return
		}
		if len(kept) < maxKept {
			kept = append(kept, m)
		}
		command, err := parse(m)
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

// next returns what the next client to leave has said, without what is between
// it and this connection: chunk sizes, acknowledgements, windows.
func (r *recorder) next(t *testing.T) []mediatest.Message {
	t.Helper()
	select {
	case all := <-r.sessions:
		return withoutControl(all)
	case <-time.After(patience):
		t.Fatal("no session has ended at the origin")
		return nil
	}
}

func withoutControl(all []mediatest.Message) []mediatest.Message {
	const lastOfChunks, userControl, lastControl = 3, 4, 6
	var kept []mediatest.Message
	for _, m := range all {
		if m.Type > lastControl || m.Type == userControl || m.Type == 0 {
			if len(kept) < maxKept {
				kept = append(kept, m)
			}
		}
	}
	return kept
}

func parse(m mediatest.Message) (mediatest.Command, error) {
	return mediatest.ParseCommand(&rawmessage.Message{Type: m.Type, Body: m.Body})
}

// replay does the client's side of a handshake, sends a script and takes
// whatever comes until the other side ends.
func replay(t *testing.T, addr string, script []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if err := shake(conn); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { _, _ = io.Copy(io.Discard, conn) })
	if _, err := conn.Write(script); err != nil {
		t.Errorf("send the script: %v", err)
	}
	_ = conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // it is what was dialed
	reading.Wait()
}

// shake does the client's side of a handshake by another implementation.
func shake(conn net.Conn) error {
	_, _, err := handshake.DoClient(conn, false, false)
	return err
}

// amf encodes values by another implementation.
func amf(values ...any) []byte {
	b, err := amf0.Data(values).Marshal()
	if err != nil {
		panic(err)
	}
	return b
}

func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
