package wire_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"srsx/proxy/rtmp/wire"
)

// pair returns both ends of a connection in memory.
func pair(t *testing.T, writeTimeout time.Duration) (a, b *wire.Conn) {
	t.Helper()
	x, y := net.Pipe()
	t.Cleanup(func() { _, _ = x.Close(), y.Close() })
	return wire.NewConn(x, writeTimeout), wire.NewConn(y, writeTimeout)
}

func TestStopReadingIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair(t, 0)
		for _, undo := range []time.Time{{}, time.Now().Add(time.Hour)} {
			c.StopReading(time.Now().Add(time.Second))
			c.StopReading(time.Now().Add(time.Minute)) // later than the other: no effect
			_ = c.SetReadDeadline(undo)
			_ = c.SetDeadline(undo)
			began := time.Now()
			if _, err := c.ReadMessage(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("read = %v; want the deadline", err)
			}
			if waited := time.Since(began); waited > time.Second {
				t.Errorf("read waited %s; want no more than a second", waited)
			}
		}
	})
}

func TestStopReadingWakesAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair(t, 0)
		time.AfterFunc(time.Minute, func() { c.StopReading(time.Now()) })
		if _, err := c.ReadMessage(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read = %v; want the deadline", err)
		}
	})
}

// Whoever relays flushes before a read that waits; an error ends the read.
func TestOnWaitIsCalledBeforeEachWait(t *testing.T) {
	a, b := pair(t, time.Second)
	waits := 0
	a.OnWait(func() error { waits++; return nil })
	var sending sync.WaitGroup
	frame := &wire.Message{Type: wire.TypeVideo, CSID: 6, StreamID: 1, Body: []byte("x")}
	sending.Go(func() { _ = b.Send(frame, frame, frame) }) // one write
	for range 3 {
		if _, err := a.ReadMessage(); err != nil {
			t.Fatal(err)
		}
	}
	sending.Wait()
	if waits != 1 {
		t.Errorf("%d waits for three messages of one write; want 1", waits)
	}
	broken := errors.New("other side is gone")
	a.OnWait(func() error { return broken })
	if _, err := a.ReadMessage(); !errors.Is(err, broken) {
		t.Errorf("read = %v; want the error of OnWait", err)
	}
}

func TestPingsAreAnsweredAndWindowsAcknowledged(t *testing.T) {
	a, b := pair(t, time.Second)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			if _, err := a.ReadMessage(); err != nil {
				return
			}
		}
	})
	defer serving.Wait()
	defer a.Close()
	u32 := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	var sending sync.WaitGroup
	sending.Go(func() {
		_ = b.Send(
			&wire.Message{Type: wire.TypeWindowAckSize, CSID: 2, Body: u32(10000)},
			&wire.Message{Type: wire.TypeUserControl, CSID: 2, Body: append([]byte{0, wire.EventPing}, u32(77)...)},
			&wire.Message{Type: wire.TypeVideo, CSID: 6, StreamID: 1, Body: make([]byte, 20000)},
		)
	})
	defer sending.Wait()
	r := wire.NewReader(bufio.NewReader(b.Conn))
	var ponged, acked bool
	for !ponged || !acked {
		m, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		switch m.Type {
		case wire.TypeUserControl:
			ponged = m.Body[1] == wire.EventPong && binary.BigEndian.Uint32(m.Body[2:]) == 77
		case wire.TypeAck:
			acked = binary.BigEndian.Uint32(m.Body) >= 5000
		}
	}
}

// The peer whose pings fill its own ears is told from one that says nothing.
func TestReplyThatCannotBeSentIsToldFromReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pair(t, time.Second)
		go func() {
			_ = b.Send(&wire.Message{Type: wire.TypeUserControl, CSID: 2, Body: []byte{0, wire.EventPing, 0, 0, 0, 1}})
		}()
		_, err := a.ReadMessage()
		if !errors.As(err, new(wire.ReplyError)) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read = %v; want a ReplyError for the deadline", err)
		}
	})
}

func TestCommandsAreReadWithinBounds(t *testing.T) {
	large := wire.Command{Name: "publish", Args: []any{string(make([]byte, wire.MaxCommand))}}.Message(3)
	if _, err := wire.ParseCommand(large); !errors.Is(err, wire.ErrCommandSize) {
		t.Errorf("a command of %d bytes: %v; want ErrCommandSize", len(large.Body), err)
	}
	if name := wire.CommandName(large); name != "publish" {
		t.Errorf("its name = %q; want publish", name)
	}
	for name, m := range map[string]*wire.Message{
		"media":          {Type: wire.TypeVideo, Body: []byte{2, 0, 1, 'a'}},
		"empty":          {Type: wire.TypeCommand},
		"empty AMF3":     {Type: wire.TypeCommandAMF3},
		"no text":        {Type: wire.TypeCommand, Body: []byte{0, 1, 2, 3, 4, 5, 6, 7, 8}},
		"object":         {Type: wire.TypeCommand, Body: []byte{3, 0, 0, 9}},
		"text cut short": {Type: wire.TypeCommand, Body: []byte{2, 0, 9, 'a'}},
	} {
		if got := wire.CommandName(m); got != "" {
			t.Errorf("name of %s = %q; want none", name, got)
		}
	}
}

func FuzzCommand(f *testing.F) {
	f.Add(byte(wire.TypeCommand), wire.Command{Name: "play", Transaction: 3, Args: []any{"s", -2000.0}}.Message(3).Body)
	f.Add(byte(wire.TypeCommandAMF3), wire.Command{Name: "publish", Args: []any{"s", "live"}, AMF3: true}.Message(3).Body)
	f.Add(byte(wire.TypeCommand), wire.AppendAMF0(nil, "onStatus", 0.0, nil, wire.ECMAArray{{Name: "code", Value: "x"}}))
	f.Add(byte(wire.TypeCommand), []byte{5, 0})
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		m := &wire.Message{Type: kind, StreamID: 1, Body: body}
		command, err := wire.ParseCommand(m)
		if err != nil {
			return
		}
		if name := wire.CommandName(m); name != command.Name {
			t.Fatalf("CommandName = %q; ParseCommand says %q", name, command.Name)
		}
		_, _, _ = command.Text(0), command.Number(0), command.Info(0)
		again, err := wire.ParseCommand(command.Message(3))
		if err != nil || again.Name != command.Name || len(again.Args) != len(command.Args) || again.AMF3 != command.AMF3 {
			t.Fatalf("%+v became %+v, %v", command, again, err)
		}
	})
}
