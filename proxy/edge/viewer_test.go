package edge_test

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"testing"

	"srsx/proxy/edge"
	"srsx/test/proxytest"
)

func message(kind uint8, at uint32, head ...byte) edge.Message {
	return edge.Message{Type: kind, Timestamp: at, Data: append(head, 0, 0, 0, 0)}
}

// What a late viewer gets first depends on what each message is.
func TestLateViewerGetsWhatItNeeds(t *testing.T) {
	meta := edge.Message{Type: 18, Data: []byte("\x02\x00\x0aonMetaData\x05")}
	text := edge.Message{Type: 18, Timestamp: 50, Data: []byte("\x02\x00\x0aonTextData\x05")}
	avc, aac := message(9, 0, 0x17, 0), message(8, 0, 0xaf, 0)
	avcKey, avcFrame, avcEnd := message(9, 40, 0x17, 1), message(9, 80, 0x27, 1), message(9, 90, 0x17, 2)
	hevc := message(9, 0, 0x90, 'h', 'v', 'c', '1')
	hevcKey, hevcKeyX := message(9, 40, 0x91, 'h', 'v', 'c', '1'), message(9, 40, 0x93, 'h', 'v', 'c', '1')
	hevcFrame, hevcEnd := message(9, 80, 0xa3, 'h', 'v', 'c', '1'), message(9, 90, 0x92, 'h', 'v', 'c', '1')
	opus, opusFrame := message(8, 0, 0x90, 'O', 'p', 'u', 's'), message(8, 45, 0x91, 'O', 'p', 'u', 's')
	sound := message(8, 45, 0xaf, 1)
	h263Key, h263Frame := message(9, 40, 0x12), message(9, 80, 0x22)
	for name, test := range map[string]struct{ sent, want []edge.Message }{
		"AVC and AAC": {
			[]edge.Message{meta, avc, aac, avcFrame, avcKey, sound, avcFrame}, []edge.Message{meta, avc, aac, avcKey, sound, avcFrame},
		},
		"the end of a sequence is no key frame": {
			[]edge.Message{avc, avcKey, avcFrame, avcEnd}, []edge.Message{avc, avcKey, avcFrame, avcEnd},
		},
		"HEVC and Opus": {
			[]edge.Message{hevc, opus, hevcFrame, hevcKey, opusFrame, hevcKeyX, hevcFrame, hevcEnd},
			[]edge.Message{hevc, opus, hevcKeyX, hevcFrame, hevcEnd},
		},
		"data that is no metadata stays where it was": {
			[]edge.Message{meta, avc, avcKey, text, avcFrame}, []edge.Message{meta, avc, avcKey, text, avcFrame},
		},
		"sound alone":               {[]edge.Message{meta, aac, sound, sound}, []edge.Message{meta, aac, sound}},
		"video without a header":    {[]edge.Message{h263Key, h263Frame, sound}, []edge.Message{h263Key, h263Frame, sound}},
		"nothing but what is short": {[]edge.Message{{Type: 9}, {Type: 8}, {Type: 18}, {Type: 9, Data: []byte{0x17}}}, nil},
		"changed headers":           {[]edge.Message{avc, avcKey, message(9, 0, 0x17, 0, 9), avcKey}, []edge.Message{message(9, 0, 0x17, 0, 9), avcKey}},
	} {
		t.Run(name, func(t *testing.T) {
			h := edge.New()
			p, err := h.Publish("s")
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range test.sent {
				p.Write(m)
			}
			v := play(t, h)
			p.Close() // so that nothing at all ends too
			var got []edge.Message
			batch, err := v.Next(t.Context())
			for ; err == nil; batch, err = v.Next(t.Context()) {
				got = append(got, batch...)
			}
			same := func(a, b edge.Message) bool {
				return a.Type == b.Type && a.Timestamp == b.Timestamp && string(a.Data) == string(b.Data)
			}
			if !errors.Is(err, io.EOF) || !slices.EqualFunc(got, test.want, same) {
				t.Errorf("got %v, then %v; want %v", got, err, test.want)
			}
		})
	}
}

// A viewer that loses what was queued does not lose what all else depends on.
func TestViewerThatLaggedStillHasItsHeaders(t *testing.T) {
	h := edge.New()
	p := publish(t, h)
	v := play(t, h) // its first Next comes late
	for n := range 2*group + 5 {
		p.Write(frame(n, 100<<10))
	}
	batch := next(t, v)
	for i, want := range head() {
		if string(batch[i].Data) != string(want.Data) {
			t.Fatalf("message %d is %q; want the header %q", i, batch[i].Data, want.Data)
		}
	}
	if first := batch[len(head())]; first.Data[0] != 0x17 {
		t.Errorf("then comes a frame of kind %#x; want a key frame", first.Data[0])
	}
}

// An endless run of headers, or an endless group, holds no more memory than a
// bounded one.
func TestPublisherCannotFillMemory(t *testing.T) {
	for name, write := range map[string]func(n int) edge.Message{
		"headers": func(int) edge.Message {
			return edge.Message{Type: 9, Data: append([]byte{0x17, 0}, make([]byte, 64<<10)...)}
		},
		"a group without end": func(int) edge.Message {
			return edge.Message{Type: 9, Data: append([]byte{byte(0x27), 1}, make([]byte, 64<<10)...)}
		},
		"frames of one time": func(n int) edge.Message { m := frame(n, 64<<10); m.Timestamp = 0; return m },
	} {
		t.Run(name, func(t *testing.T) {
			h := edge.New()
			p := publish(t, h)
			p.Write(frame(0, 100))
			v := play(t, h)
			before := proxytest.Measure(t)
			for n := range 2000 {
				p.Write(write(n))
			}
			const bound = 16<<20 + 8<<20 // bytes: the group, and the viewer's queue
			if now := proxytest.Measure(t); now.Heap > before.Heap+bound {
				t.Errorf("holds %d bytes", now.Heap-before.Heap)
			}
			runtime.KeepAlive(v)
			runtime.KeepAlive(p)
		})
	}
}

// A viewer that is told of the end hears nothing of who publishes next.
func TestEndIsTheEndForItsViewers(t *testing.T) {
	h := edge.New()
	p := publish(t, h)
	v := play(t, h)
	next(t, v)
	p.Close()
	publish(t, h).Write(frame(0, 100))
	if batch, err := v.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("Next = %d messages, %v; want io.EOF", len(batch), err)
	}
	p.Write(frame(1, 100)) // too late: nobody hears it
	if got := next(t, play(t, h)); len(got) != len(head())+1 {
		t.Errorf("a new viewer gets %d messages; want the %d of the new publisher", len(got), len(head())+1)
	}
}

func TestStreamsAreLimitedAndForgotten(t *testing.T) {
	h := edge.New()
	const most = 1000
	publishers := make([]*edge.Publisher, most)
	for i := range publishers {
		p, err := h.Publish(string(rune(i + 'a')))
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		publishers[i] = p
	}
	if _, err := h.Publish("one more"); err == nil {
		t.Error("a stream too many was published")
	}
	if _, err := h.Play("one more"); err == nil {
		t.Error("a stream too many was played")
	}
	for _, p := range publishers {
		p.Close()
	}
	publish(t, h).Close()
}
