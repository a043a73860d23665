package devorigin

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts/codecs"

	"srsx/proxy/edge"
	"srsx/test/mediatest"
	"srsx/test/proxytest"
)

const packet = 188 // bytes of MPEG-TS

// decoded is what a reader of MPEG-TS makes of it.
type decoded struct {
	video, audio []int64 // presentation times in 90 kHz
	keys         int
}

// decode reads MPEG-TS to its end, or until enough returns true.
func decode(t *testing.T, r io.Reader, enough func(decoded) bool) decoded {
	t.Helper()
	var d decoded
	reader := &mpegts.Reader{R: r}
	if err := reader.Initialize(); err != nil {
		t.Fatalf("read MPEG-TS: %v", err)
	}
	reader.OnDecodeError(func(err error) { t.Errorf("decode: %v", err) })
	for _, track := range reader.Tracks() {
		switch track.Codec.(type) {
		case *codecs.H264:
			reader.OnDataH264(track, func(pts, _ int64, unit [][]byte) error {
				d.video = append(d.video, pts)
				for _, nal := range unit {
					if len(nal) > 0 && nal[0]&0x1f == 7 { // SPS: before each key frame
						d.keys++
					}
				}
				return nil
			})
		case *codecs.MPEG4Audio:
			reader.OnDataMPEG4Audio(track, func(pts int64, units [][]byte) error {
				for range units {
					d.audio = append(d.audio, pts)
				}
				return nil
			})
		default:
			t.Errorf("track of %T", track.Codec)
		}
	}
	for enough == nil || !enough(d) {
		if err := reader.Read(); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Errorf("read MPEG-TS: %v", err)
			}
			break
		}
	}
	return d
}

// requireContinuous checks that presentation times go on without a gap.
func requireContinuous(t *testing.T, what string, times []int64) {
	t.Helper()
	const most = 90 * 110 // ticks: two frames of the clip, and rounding
	for i := 1; i < len(times); i++ {
		if step := times[i] - times[i-1]; step <= 0 || step > most {
			t.Errorf("%s: frame %d is %d ticks after the one before", what, i, step)
		}
	}
}

func TestTransportStreamDecodes(t *testing.T) {
	r := serve(t, nil)
	answer := r.get(t, "/live/demo.ts")
	if answer.kind != "video/MP2T" {
		t.Errorf("content type = %q; want video/MP2T", answer.kind)
	}
	d := decode(t, answer.body, func(d decoded) bool { return len(d.video) > 30 && len(d.audio) > 60 })
	if len(d.video) < 30 || d.keys == 0 {
		t.Errorf("decoded %d pictures, %d keys, %d sounds", len(d.video), d.keys, len(d.audio))
	}
	requireContinuous(t, "video", d.video)
	requireContinuous(t, "audio", d.audio)
}

// Each segment stands alone, starts with its tables and a key frame, and goes on
// where the one before ended.
func TestSegmentsDecodeAndJoin(t *testing.T) {
	r := serve(t, nil)
	var list string
	lines := regexp.MustCompile(`(?m)^#EXTINF:([\d.]+),\n(.+\.ts)$`)
	proxytest.Eventually(t, "three segments", func() bool {
		answer := r.get(t, "/live/demo.m3u8")
		b, _ := io.ReadAll(answer.body)
		list = string(b)
		if answer.status == http.StatusServiceUnavailable {
			return false // a machine so busy that the first segment is late: a player asks again
		}
		if answer.status != http.StatusOK {
			t.Fatalf("playlist = %d %s", answer.status, list)
		}
		return len(lines.FindAllString(list, -1)) >= 3
	})
	if !strings.HasPrefix(list, "#EXTM3U\n") || !strings.Contains(list, "#EXT-X-TARGETDURATION:") {
		t.Errorf("playlist:\n%s", list)
	}
	var video, audio []int64
	for _, line := range lines.FindAllStringSubmatch(list, -1) {
		segment := []byte(r.text(t, "/live/"+line[2]))
		if len(segment)%packet != 0 {
			t.Errorf("%s has %d bytes: no whole number of packets", line[2], len(segment))
		}
		for at := 0; at < len(segment); at += packet {
			if segment[at] != 0x47 {
				t.Fatalf("%s: no sync byte at %d", line[2], at)
			}
		}
		d := decode(t, bytes.NewReader(segment), nil)
		if d.keys == 0 || len(d.video) == 0 {
			t.Errorf("%s has %d pictures and %d keys", line[2], len(d.video), d.keys)
		}
		length, err := time.ParseDuration(line[1] + "s")
		if err != nil || length < segmentTime || length > 2*segmentTime {
			t.Errorf("%s is said to last %s s", line[2], line[1])
		}
		if frames := int(length / (50 * time.Millisecond)); len(d.video) != frames {
			t.Errorf("%s of %s has %d frames of 50 ms; want %d", line[2], length, len(d.video), frames)
		}
		video, audio = append(video, d.video...), append(audio, d.audio...)
	}
	requireContinuous(t, "video over all segments", video)
	requireContinuous(t, "audio over all segments", audio)
}

// aac is a sound of the n-th 23 ms.
func aac(n int) mediatest.Tag {
	return mediatest.Tag{Type: mediatest.TypeAudio, Timestamp: uint32(n * 23), Data: []byte{0xaf, 1, 0x21, 0x10, 0x04, 0x60, 0x8c, 0x1c}}
}

func TestSoundAloneIsCutIntoSegments(t *testing.T) {
	r := serve(t, nil)
	c := r.dial(t, "live")
	if err := c.Publish("radio"); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteTag(mediatest.Tag{Type: mediatest.TypeAudio, Data: []byte{0xaf, 0, 0x12, 0x10}}); err != nil {
		t.Fatal(err)
	}
	first := make(chan string, 1)
	go func() { first <- r.text(t, "/live/radio.m3u8") }()
	proxytest.Eventually(t, "somebody asks for it", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.hls) == 1
	})
	for n := range 200 { // 4.6 s at once
		if err := c.WriteTag(aac(n)); err != nil {
			t.Fatal(err)
		}
	}
	name := regexp.MustCompile(`radio-\d+\.ts`).FindString(<-first)
	d := decode(t, strings.NewReader(r.text(t, "/live/"+name)), nil)
	if want := int(segmentTime.Milliseconds()) / 23; len(d.audio) < want || len(d.audio) > want+2 {
		t.Errorf("the segment has %d sounds; want %d", len(d.audio), want)
	}
	requireContinuous(t, "audio", d.audio)
}

// Segments of a stream without key frames are bounded, and a clock that goes
// back or jumps ahead makes none of an absurd length.
func TestSegmentsAreBounded(t *testing.T) {
	var parts []part
	c := newCutter(func(p part) { parts = append(parts, p) })
	for _, tag := range mediatest.NewPattern("s").Head() {
		c.take(edge.Message{Type: tag.Type, Data: tag.Data})
	}
	nal := append([]byte{0, 0x10, 0, 1, 0x65}, bytes.Repeat([]byte{0x55}, 1<<20)...)
	frame := func(kind byte, at uint32) {
		c.take(edge.Message{Type: 9, Timestamp: at, Data: append([]byte{kind, 1, 0, 0, 0}, nal...)})
	}
	frame(0x27, 0) // before any key frame: nothing starts here
	frame(0x17, 1000)
	for n := range uint32(80) { // 80 MB and no key frame
		frame(0x27, 1000+n*10)
	}
	frame(0x17, 500)
	frame(0x17, 600) // too early to cut
	frame(0x17, 2500)
	if len(parts) != 4 {
		t.Fatalf("%d segments; want two full ones, the one that went back, and one of 2 s", len(parts))
	}
	for i, p := range parts {
		if p.length <= 0 || p.length > 3*time.Second || len(p.body) == 0 || len(p.body) > maxSegment+3<<20 {
			t.Errorf("segment %d lasts %s and has %d bytes", i, p.length, len(p.body))
		}
		if i > 0 && p.number != parts[i-1].number+1 {
			t.Errorf("segment %d has the number %d after %d", i, p.number, parts[i-1].number)
		}
	}
}

// A picture that is no H.264, or that is cut short, becomes nothing.
func TestMuxerPassesOverWhatItDoesNotKnow(t *testing.T) {
	mux := newMuxer()
	for _, m := range []edge.Message{
		{Type: 9},
		{Type: 8},
		{Type: 18, Data: []byte("x")},
		{Type: 9, Data: []byte{0x17}},
		{Type: 9, Data: []byte{0x90, 'h', 'v', 'c', '1', 0}},
		{Type: 9, Data: []byte{0x12, 0, 0, 0, 0, 1, 2}},
		{Type: 9, Data: []byte{0x17, 1, 0, 0, 0, 0, 0, 0, 1, 0x65}}, // before any header
		{Type: 9, Data: []byte{0x17, 0, 0, 0, 0}},
		{Type: 9, Data: []byte{0x17, 0, 0, 0, 0, 1, 66, 0, 30, 0xff, 0xff, 0xff, 0xff}},
		{Type: 8, Data: []byte{0xaf, 0, 0xff, 0xff}},
		{Type: 8, Data: []byte{0x2f, 1, 2, 3}},
	} {
		if out := mux.append(nil, m); len(out) != 0 {
			t.Errorf("% x became %d bytes", m.Data, len(out))
		}
	}
}

func FuzzMuxer(f *testing.F) {
	for _, tag := range mediatest.NewPattern("s").Head() {
		f.Add(tag.Type, tag.Data, []byte{0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 1})
	}
	f.Add(uint8(9), []byte{0x17, 0, 0, 0, 0, 1, 66, 0, 30, 0xff, 0xe1, 0xff, 0xff}, []byte{0x27, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Add(uint8(9), []byte{0x17, 0, 0, 0, 0, 1, 66, 0, 30, 0xff, 0xe1, 0, 0, 1, 0, 0}, []byte{0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 1}) // empty sets
	f.Add(uint8(8), []byte{0xaf, 0, 0x12, 0x10}, []byte{0xaf, 1, 0})
	f.Fuzz(func(t *testing.T, kind uint8, head, data []byte) {
		mux := newMuxer()
		_ = mux.append(nil, edge.Message{Type: kind, Data: head})
		mux.starts(edge.Message{Type: kind, Data: data})
		out := mux.append(mux.tables(), edge.Message{Type: kind, Timestamp: 0xffffffff, Data: data})
		if len(out)%packet != 0 {
			t.Fatalf("%d bytes are no whole number of packets", len(out))
		}
	})
}

func FuzzFLV(f *testing.F) {
	f.Add(clip[:2000])
	f.Add(append(flvHeader(), appendTag(nil, edge.Message{Type: 9, Timestamp: 0x01020304, Data: []byte("x")})...))
	f.Add([]byte("FLV"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tags, err := readFLV(b)
		if err != nil {
			return
		}
		again := flvHeader()
		for _, tag := range tags {
			again = appendTag(again, tag)
		}
		back, err := readFLV(again)
		if err != nil || len(back) != len(tags) {
			t.Fatalf("%d tags became %d, %v", len(tags), len(back), err)
		}
	})
}
