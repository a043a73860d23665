package wire_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/bluenviron/gortmplib/pkg/amf0"
	"github.com/bluenviron/gortmplib/pkg/handshake"

	"srsx/proxy/rtmp/wire"
)

func readAll(t *testing.T, b []byte) ([]wire.Message, error) {
	t.Helper()
	r := wire.NewReader(bufio.NewReader(bytes.NewReader(b)))
	var all []wire.Message
	for {
		m, err := r.Read()
		if err != nil {
			return all, err
		}
		if m.Type == wire.TypeSetChunkSize && len(m.Body) == 4 {
			if err := r.SetChunkSize(binary.BigEndian.Uint32(m.Body)); err != nil {
				return all, err
			}
		}
		c := *m
		c.Body = bytes.Clone(m.Body)
		all = append(all, c)
	}
}

func TestMessagesSurviveTheirChunks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1, 127, 128, 129, 60000, 1 << 20} {
		var sent []wire.Message
		for _, csid := range []uint32{2, 63, 64, 319, 320, 65599} {
			for _, stamp := range []uint32{0, 1, 0xfffffe, 0xffffff, 0x1000000, 0xffffffff} {
				m := wire.Message{Type: wire.TypeVideo, CSID: csid, StreamID: 1, Timestamp: stamp, Body: make([]byte, random.IntN(3*size))}
				for i := range m.Body {
					m.Body[i] = byte(random.Uint32())
				}
				sent = append(sent, m)
			}
			size = min(size, 4096)
		}
		var out bytes.Buffer
		buffered := bufio.NewWriter(&out)
		w := wire.NewWriter(buffered)
		for i := range sent {
			if err := w.Write(&sent[i]); err != nil {
				t.Fatal(err)
			}
		}
		_ = w.Flush()
		got, err := readAll(t, out.Bytes())
		if !errors.Is(err, io.EOF) {
			t.Fatalf("read = %v; want io.EOF", err)
		}
		if len(got) != len(sent) {
			t.Fatalf("%d messages; want %d", len(got), len(sent))
		}
		for i := range sent {
			if got[i].CSID != sent[i].CSID || got[i].Timestamp != sent[i].Timestamp || !bytes.Equal(got[i].Body, sent[i].Body) {
				t.Fatalf("message %d: csid %d at %d, %d bytes; want csid %d at %d, %d bytes", i,
					got[i].CSID, got[i].Timestamp, len(got[i].Body), sent[i].CSID, sent[i].Timestamp, len(sent[i].Body))
			}
		}
	}
}

// A format 3 chunk repeats the extended timestamp with most peers, and leaves
// it out with some; gortmplib writes zero. All have to be read, and later what
// the payload begins with is not mistaken for it, or it for the payload.
func TestExtendedTimestampMayBeLeftOut(t *testing.T) {
	const stamp = 0x01020304
	extended := binary.BigEndian.AppendUint32(nil, stamp)
	for name, repeated := range map[string][]byte{"repeated": extended, "left out": {}, "zero": {0, 0, 0, 0}} {
		first, second := bytes.Repeat([]byte{7}, 131), bytes.Repeat([]byte{8}, 400)
		copy(second[128:], extended)
		copy(second[256:], []byte{0, 0, 0, 0})
		var b []byte
		for _, body := range [][]byte{first, second} {
			b = append(b, 4, 0xff, 0xff, 0xff, 0, byte(len(body)>>8), byte(len(body)), wire.TypeVideo, 1, 0, 0, 0)
			b = append(b, extended...)
			for rest := body; ; {
				n := min(len(rest), 128)
				b = append(b, rest[:n]...)
				if rest = rest[n:]; len(rest) == 0 {
					break
				}
				b = append(append(b, 3<<6|4), repeated...)
			}
		}
		got, err := readAll(t, b)
		if len(got) != 2 || !bytes.Equal(got[0].Body, first) || !bytes.Equal(got[1].Body, second) || got[1].Timestamp != stamp {
			t.Errorf("%s: got %d messages, then %v; want both as they were sent", name, len(got), err)
		}
	}
}

func TestTimestampDeltasAddAndWrap(t *testing.T) {
	var b []byte
	b = append(b, 4, 0xff, 0xff, 0xff, 0, 0, 1, wire.TypeAudio, 1, 0, 0, 0)
	b = append(binary.BigEndian.AppendUint32(b, 0xfffffff0), 1)
	b = append(b, 2<<6|4, 0, 0, 0x20, 2) // format 2: delta 32, wraps to 16
	b = append(b, 3<<6|4, 3)             // format 3: again 32
	got, _ := readAll(t, b)
	var stamps []uint32
	for _, m := range got {
		stamps = append(stamps, m.Timestamp)
	}
	if want := []uint32{0xfffffff0, 0x10, 0x30}; !reflect.DeepEqual(stamps, want) {
		t.Errorf("timestamps = %#x; want %#x", stamps, want)
	}
}

func TestHostileChunksAreRefused(t *testing.T) {
	var manyStreams []byte
	for csid := range 65599 - 320 {
		manyStreams = append(manyStreams, 1, byte(csid+256), byte((csid+256)>>8))
		manyStreams = append(manyStreams, 0, 0, 0, 0, 0, 1, wire.TypeAudio, 1, 0, 0, 0, 9)
	}
	setChunk := func(n uint32) []byte {
		return binary.BigEndian.AppendUint32([]byte{2, 0, 0, 0, 0, 0, 4, wire.TypeSetChunkSize, 0, 0, 0, 0}, n)
	}
	for name, test := range map[string]struct {
		input []byte
		want  error
	}{
		"65,599 chunk streams":     {manyStreams, wire.ErrChunkStreams},
		"chunk size 0":             {setChunk(0), wire.ErrChunkSize},
		"chunk size 2^31":          {setChunk(1 << 31), wire.ErrChunkSize},
		"starts with format 3":     {[]byte{3<<6 | 4}, wire.ErrFirstChunk},
		"announced and never sent": {[]byte{4, 0, 0, 0, 0xff, 0xff, 0xff, wire.TypeVideo, 1, 0, 0, 0, 1}, io.ErrUnexpectedEOF},
		"new header in a message": {
			append(append([]byte{4, 0, 0, 0, 0, 0, 200, wire.TypeVideo, 1, 0, 0, 0}, make([]byte, 128)...), 4, 0, 0, 0),
			wire.ErrInterleaved,
		},
	} {
		if _, err := readAll(t, test.input); !errors.Is(err, test.want) {
			t.Errorf("%s: %v; want %v", name, err, test.want)
		}
	}
}

func TestMemoryGrowsWithBytesNotWithClaims(t *testing.T) {
	var input []byte
	input = append(input, 2, 0, 0, 0, 0, 0, 4, wire.TypeSetChunkSize, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff)
	for csid := byte(3); csid < 60; csid++ {
		input = append(input, csid, 0, 0, 0, 0xff, 0xff, 0xff, wire.TypeVideo, 1, 0, 0, 0)
	}
	allocated := testing.Benchmark(func(b *testing.B) {
		b.Helper()
		b.ReportAllocs()
		for b.Loop() {
			_, _ = readAll(t, input)
		}
	}).AllocedBytesPerOp()
	if allocated > 1<<20 {
		t.Errorf("reading %d bytes allocated %d", len(input), allocated)
	}
}

func TestAMFNestingIsBounded(t *testing.T) {
	deep := bytes.Repeat([]byte{3, 0, 1, 'a'}, 1_000_000)
	if _, err := wire.DecodeAMF0(deep); !errors.Is(err, wire.ErrAMFDepth) {
		t.Errorf("a million levels: %v; want ErrAMFDepth", err)
	}
	arrays := bytes.Repeat([]byte{10, 0, 0, 0, 1}, 1_000_000)
	if _, err := wire.DecodeAMF0(arrays); !errors.Is(err, wire.ErrAMFDepth) {
		t.Errorf("a million arrays: %v; want ErrAMFDepth", err)
	}
	for _, long := range [][]byte{
		{12, 0xff, 0xff, 0xff, 0xff, 'x'}, {10, 0xff, 0xff, 0xff, 0xff}, {2, 0xff, 0xff, 'x'},
	} {
		if _, err := wire.DecodeAMF0(long); !errors.Is(err, wire.ErrAMFShort) {
			t.Errorf("% x: %v; want ErrAMFShort", long, err)
		}
	}
}

func TestAMFKeepsOrderAndKinds(t *testing.T) {
	values := []any{
		"connect", 1.0,
		wire.Object{Props: []wire.Property{
			{"z", "last letter first"},
			{"a", true},
			{"n", nil},
			{"u", wire.Undefined{}},
			{"list", wire.StrictArray{"*", 2.0}},
			{"map", wire.ECMAArray{{"k", 1.0}}},
			{"long", strings.Repeat("x", 70000)},
			{"when", wire.Date{Millis: 5, Zone: -60}},
		}},
		wire.Object{Class: "flex.Thing", Props: []wire.Property{{"p", wire.XML("<a/>")}}},
		wire.Raw{0x11, 9, 9, 9},
	}
	got, err := wire.DecodeAMF0(wire.AppendAMF0(nil, values...))
	if err != nil || !reflect.DeepEqual(got, values) {
		t.Errorf("got %#v, %v; want %#v", got, err, values)
	}
}

// gortmplib reads what we write and writes what we read.
func TestAMFAgreesWithAnotherImplementation(t *testing.T) {
	theirs, err := amf0.Data{"onStatus", 0.0, nil, amf0.Object{
		{Key: "level", Value: "status"}, {Key: "code", Value: "NetStream.Play.Start"}, {Key: "ok", Value: true},
	}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	values, err := wire.DecodeAMF0(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if ours := wire.AppendAMF0(nil, values...); !bytes.Equal(ours, theirs) {
		t.Errorf("we write % x; they write % x", ours, theirs)
	}
}

func TestHandshakeAgreesWithItselfAndAnotherImplementation(t *testing.T) {
	theirAccept := func(rw io.ReadWriter) error { _, _, err := handshake.DoServer(rw, false); return err }
	theirConnect := func(rw io.ReadWriter) error { _, _, err := handshake.DoClient(rw, false, true); return err }
	for name, pair := range map[string][2]func(io.ReadWriter) error{
		"ours, ours":     {wire.Accept, wire.Connect},
		"ours, theirs":   {wire.Accept, theirConnect},
		"theirs, ours":   {theirAccept, wire.Connect},
		"ours, simplest": {wire.Accept, simplest},
	} {
		server, client := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- pair[0](server) }()
		if err := pair[1](client); err != nil {
			t.Errorf("%s: client: %v", name, err)
		}
		if err := <-ended; err != nil {
			t.Errorf("%s: server: %v", name, err)
		}
		_, _ = server.Close(), client.Close()
	}
}

// simplest is a client that knows the simple handshake only and checks it.
func simplest(rw io.ReadWriter) error {
	c := make([]byte, 1537)
	c[0] = 3
	copy(c[9:], "no digest here")
	if _, err := rw.Write(c); err != nil {
		return err
	}
	s := make([]byte, 1+2*1536)
	if _, err := io.ReadFull(rw, s); err != nil {
		return err
	}
	if !bytes.Equal(s[1537:], c[1:]) {
		return errors.New("S2 does not echo C1")
	}
	_, err := rw.Write(s[1:1537])
	return err
}

func TestHandshakeRefusesOtherProtocols(t *testing.T) {
	get := struct {
		io.Reader
		io.Writer
	}{strings.NewReader("GET / HTTP/1.1\r\n\r\n"), io.Discard}
	if err := wire.Accept(get); !errors.Is(err, wire.ErrVersion) {
		t.Errorf("Accept of HTTP = %v; want ErrVersion", err)
	}
}

func FuzzChunks(f *testing.F) {
	f.Add([]byte{4, 0, 0, 0, 0, 0, 1, wire.TypeAudio, 1, 0, 0, 0, 9, 3<<6 | 4, 9})
	f.Add([]byte{4, 0xff, 0xff, 0xff, 0, 0, 1, wire.TypeAudio, 1, 0, 0, 0, 0, 0, 0, 9, 1})
	f.Add([]byte{2, 0, 0, 0, 0, 0, 4, wire.TypeSetChunkSize, 0, 0, 0, 0, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		messages, _ := readAll(t, b)
		var out bytes.Buffer
		w := wire.NewWriter(bufio.NewWriter(&out))
		for i := range messages {
			if messages[i].Type == wire.TypeSetChunkSize {
				return // it would change how what we wrote is read
			}
			_ = w.Write(&messages[i])
		}
		_ = w.Flush()
		again, _ := readAll(t, out.Bytes())
		if len(again) != len(messages) {
			t.Fatalf("%d messages came back; wrote %d", len(again), len(messages))
		}
		for i := range again {
			if !bytes.Equal(again[i].Body, messages[i].Body) || again[i].Timestamp != messages[i].Timestamp {
				t.Fatalf("message %d changed", i)
			}
		}
	})
}

func FuzzAMF0(f *testing.F) {
	f.Add(wire.AppendAMF0(nil, "connect", 1.0, wire.Object{Props: []wire.Property{{"app", "live"}}}))
	f.Add([]byte{10, 0, 0, 0, 1, 5})
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := wire.DecodeAMF0(b)
		if err != nil {
			return
		}
		once := wire.AppendAMF0(nil, values...)
		again, err := wire.DecodeAMF0(once)
		if err != nil {
			t.Fatalf("what we wrote is not read back: %v", err)
		}
		if twice := wire.AppendAMF0(nil, again...); !bytes.Equal(once, twice) {
			t.Fatalf("% x became % x", once, twice)
		}
	})
}

func FuzzHandshake(f *testing.F) {
	f.Add(make([]byte, 1537))
	f.Add(append([]byte{3}, bytes.Repeat([]byte{0xff}, 2*1536)...))
	f.Fuzz(func(_ *testing.T, b []byte) {
		for _, side := range []func(io.ReadWriter) error{wire.Accept, wire.Connect} {
			_ = side(struct {
				io.Reader
				io.Writer
			}{bytes.NewReader(b), io.Discard})
		}
	})
}
