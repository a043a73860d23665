package wire_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib/pkg/bytecounter"
	"github.com/bluenviron/gortmplib/pkg/rawmessage"

	"srsx/proxy/rtmp/wire"
	"srsx/test/mediatest"
)

func stamps(messages []wire.Message) []uint32 {
	list := make([]uint32, len(messages))
	for i, m := range messages {
		list[i] = m.Timestamp
	}
	return list
}

// A message that repeats the header of the one before has the extended
// timestamp too: a delta after a delta, and after a timestamp a timestamp.
func TestRepeatedHeaderHasItsOwnExtendedTimestamp(t *testing.T) {
	var c mediatest.Chunks
	m := mediatest.Message{CSID: 4, Type: wire.TypeVideo, StreamID: 1, Body: make([]byte, 300)}
	c.Send(0, 0x1000000, m)
	c.Send(3, 0x1000040, m)
	c.Send(1, 0x2000000, m)
	c.Send(3, 0x2000000, m)
	c.Send(3, 0x1000001, m) // a peer that gives a new one
	c.Send(2, 10, m)
	c.Send(3, 10, m)
	got, err := readAll(t, c.Bytes())
	if !errors.Is(err, io.EOF) {
		t.Errorf("read = %v; want io.EOF", err)
	}
	want := []uint32{0x1000000, 0x1000040, 0x3000040, 0x5000040, 0x6000041, 0x600004b, 0x6000055}
	if !reflect.DeepEqual(stamps(got), want) {
		t.Errorf("timestamps = %#x; want %#x", stamps(got), want)
	}
}

// What a caller does to a message does not show in those that leave out what it
// said.
func TestMessageIsTheCallersToChange(t *testing.T) {
	var c mediatest.Chunks
	m := mediatest.Message{CSID: 4, Type: wire.TypeVideo, StreamID: 1, Body: []byte("one")}
	c.Send(0, 5, m)
	m.Body = []byte("two")
	c.Send(3, 5, m)
	r := wire.NewReader(bufio.NewReader(&c))
	first, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	first.StreamID, first.Type, first.Timestamp = 9, 9, 9
	clear(first.Body)
	second, err := r.Read()
	if err != nil {
		t.Fatal(err)
	}
	if second.StreamID != 1 || second.Type != wire.TypeVideo || second.Timestamp != 10 || string(second.Body) != "two" {
		t.Errorf("second message = %+v; want it untouched by what was done to the first", second)
	}
}

func TestAbortDropsWhatCameOfAMessage(t *testing.T) {
	var c mediatest.Chunks
	m := mediatest.Message{CSID: 4, Type: wire.TypeVideo, StreamID: 1, Body: make([]byte, 300)}
	c.Start(0, 5, m)
	c.Send(0, 0, mediatest.Message{CSID: 2, Type: wire.TypeAbort, Body: binary.BigEndian.AppendUint32(nil, 4)})
	m.Body = []byte("whole")
	c.Send(1, 5, m)
	r := wire.NewReader(bufio.NewReader(&c))
	if m, err := r.Read(); err != nil || m.Type != wire.TypeAbort {
		t.Fatalf("read = %+v, %v; want the abort", m, err)
	}
	r.Abort(4)
	r.Abort(99) // nothing came there
	got, err := r.Read()
	if err != nil || string(got.Body) != "whole" {
		t.Errorf("read = %+v, %v; want the message after the abort", got, err)
	}
}

func TestLimitHoldsAsSoonAsALengthIsAnnounced(t *testing.T) {
	var c mediatest.Chunks
	c.Send(0, 0, mediatest.Message{CSID: 4, Type: wire.TypeCommand, Body: make([]byte, 1000)})
	c.Start(0, 0, mediatest.Message{CSID: 4, Type: wire.TypeCommand, Body: make([]byte, 1001)})
	r := wire.NewReader(bufio.NewReader(&c))
	r.SetLimit(1000)
	if _, err := r.Read(); err != nil {
		t.Errorf("a message of the limit: %v", err)
	}
	if _, err := r.Read(); !errors.Is(err, wire.ErrMessageSize) {
		t.Errorf("a message above the limit: %v; want ErrMessageSize", err)
	}
}

// A peer may use every chunk stream that it is allowed, for large messages:
// what is kept for the next of them is one buffer.
func TestReaderKeepsOneBuffer(t *testing.T) {
	const size = 200 << 10
	var c mediatest.Chunks
	c.SetChunkSize(1 << 20)
	for csid := uint32(3); csid < 253; csid++ {
		c.Send(0, 0, mediatest.Message{CSID: csid, Type: wire.TypeVideo, StreamID: 1, Body: make([]byte, size)})
	}
	input := bytes.NewReader(c.Bytes())
	r := wire.NewReader(bufio.NewReader(input))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for read := 0; ; read++ {
		m, err := r.Read()
		if err != nil {
			if read != 251 {
				t.Fatalf("%d messages, then %v", read, err)
			}
			break
		}
		if m.Type == wire.TypeSetChunkSize {
			_ = r.SetChunkSize(1 << 20)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > 2*size {
		t.Errorf("the reader holds %d bytes after 250 messages of %d", held, size)
	}
	runtime.KeepAlive(r)
	runtime.KeepAlive(&c)
}

// gortmplib reads what we write, and we read what it writes, in the chunk
// streams that it knows.
func TestChunksAgreeWithAnotherImplementation(t *testing.T) {
	var sent []wire.Message
	for i := range 200 {
		sent = append(sent, wire.Message{
			CSID: uint32(3 + i%60), Type: wire.TypeVideo, StreamID: 1, Timestamp: uint32(i * 0x51eb851), Body: bytes.Repeat([]byte{byte(i)}, i*i),
		})
	}
	var ours bytes.Buffer
	out := bufio.NewWriter(&ours)
	w := wire.NewWriter(out)
	for i := range sent {
		if err := w.Write(&sent[i]); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Flush()
	var theirs bytes.Buffer
	counted := bytecounter.NewReadWriter(&theirs)
	writer := rawmessage.NewWriter(counted, counted.Writer, false)
	reader := rawmessage.NewReader(&ours, bytecounter.NewReader(&ours), nil)
	for i, want := range sent {
		m, err := reader.Read()
		if err != nil {
			t.Fatalf("they read message %d of ours: %v", i, err)
		}
		if uint32(m.Timestamp/time.Millisecond) != want.Timestamp || !bytes.Equal(m.Body, want.Body) || uint32(m.ChunkStreamID) != want.CSID {
			t.Fatalf("they read message %d as %d bytes at %v; want %d at %d", i, len(m.Body), m.Timestamp, len(want.Body), want.Timestamp)
		}
		if err := writer.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readAll(t, theirs.Bytes())
	if len(got) != len(sent) {
		t.Fatalf("we read %d messages of theirs, then %v; want %d", len(got), err, len(sent))
	}
	for i, want := range sent {
		if got[i].Timestamp != want.Timestamp || !bytes.Equal(got[i].Body, want.Body) || got[i].CSID != want.CSID {
			t.Fatalf("we read message %d as %d bytes at %d; want %d at %d", i, len(got[i].Body), got[i].Timestamp, len(want.Body), want.Timestamp)
		}
	}
}
