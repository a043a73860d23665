package devorigin

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"sync"
	"time"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts/codecs"

	"srsx/proxy/edge"
	"srsx/proxy/rtmp/wire"
)

// segmenter cuts one stream into HLS segments while anybody asks for them.
type segmenter struct {
	first chan struct{} // closed with the first segment

	mu    sync.Mutex
	parts []part // guarded by mu
	asked time.Time
}

// part is one finished segment.
type part struct {
	number int
	length time.Duration
	body   []byte
}

// segmenterOf returns the segmenter of a stream, started now if need be.
func (o *Origin) segmenterOf(name string) *segmenter {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.hls[name]
	if s == nil {
		s = &segmenter{first: make(chan struct{})}
		o.hls[name] = s
		o.busy.Go(func() {
			s.run(o.stop, o.hub, name)
			o.mu.Lock()
			delete(o.hls, name)
			o.mu.Unlock()
		})
	}
	s.mu.Lock()
	s.asked = time.Now()
	s.mu.Unlock()
	return s
}

// run cuts at the first key frame after segmentTime, until the stream ends or
// nobody has asked for hlsIdle.
func (s *segmenter) run(ctx context.Context, hub *edge.Hub, name string) {
	v, err := hub.Play(name)
	if err != nil {
		return
	}
	defer v.Close()
	mux := newMuxer()
	var open []byte
	var began uint32
	number := int(time.Now().Unix()) // grows also over a restart
	for {
		batch, err := v.Next(ctx)
		if err != nil || s.forgotten() {
			return
		}
		for _, m := range batch {
			key := m.Type == wire.TypeVideo && len(m.Data) > 1 && m.Data[0] == 0x17 && m.Data[1] == 1
			length := time.Duration(m.Timestamp-began) * time.Millisecond
			if key && (len(open) == 0 || length >= segmentTime) {
				if len(open) > 0 {
					s.add(part{number, length, open})
					number++
				}
				began, open = m.Timestamp, mux.tables()
			}
			if len(open) > 0 || !key {
				open = mux.append(open, m)
			}
		}
	}
}

func (s *segmenter) forgotten() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.asked) > hlsIdle
}

func (s *segmenter) add(p part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.parts) == 0 {
		close(s.first)
	}
	s.parts = append(s.parts, p)
	if len(s.parts) > segmentsKept {
		s.parts = s.parts[1:]
	}
}

func (s *segmenter) part(number int) (io.ReadSeeker, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = time.Now()
	for _, p := range s.parts {
		if p.number == number {
			return bytes.NewReader(p.body), true
		}
	}
	return nil, false
}

// muxer turns messages into MPEG-TS. Until both sequence headers are known, or
// media of one kind comes, it writes nothing.
type muxer struct {
	out    bytes.Buffer
	writer *mpegts.Writer
	video  *mpegts.Track
	audio  *mpegts.Track
	params [][]byte // SPS and PPS, repeated before each key frame
	config *mpeg4audio.AudioSpecificConfig
}

func newMuxer() *muxer { return &muxer{} }

// append appends what a message becomes to b.
func (m *muxer) append(b []byte, message edge.Message) []byte {
	m.out.Reset()
	switch message.Type {
	case wire.TypeVideo:
		m.writeVideo(message)
	case wire.TypeAudio:
		m.writeAudio(message)
	}
	return append(b, m.out.Bytes()...)
}

// tables returns the tables with which each segment starts.
func (m *muxer) tables() []byte {
	if !m.open() {
		return nil
	}
	m.out.Reset()
	if _, err := m.writer.WriteTables(); err != nil {
		return nil
	}
	return bytes.Clone(m.out.Bytes())
}

// open makes the writer once the tracks are known.
func (m *muxer) open() bool {
	if m.writer != nil {
		return true
	}
	if m.params == nil && m.config == nil {
		return false
	}
	w := &mpegts.Writer{W: &m.out}
	if m.params != nil {
		m.video = &mpegts.Track{Codec: &codecs.H264{}}
		w.Tracks = append(w.Tracks, m.video)
	}
	if m.config != nil {
		m.audio = &mpegts.Track{Codec: &codecs.MPEG4Audio{Config: *m.config}}
		w.Tracks = append(w.Tracks, m.audio)
	}
	if w.Initialize() != nil {
		return false
	}
	m.writer = w
	return true
}

// ticks converts milliseconds to the 90 kHz of MPEG-TS.
func ticks(ms int64) int64 { return ms * 90 }

// writeVideo takes an AVC tag (FLV 10.1, E.4.3.1).
func (m *muxer) writeVideo(message edge.Message) {
	const head = 5 // frame type and codec, packet type, 24-bit composition time
	d := message.Data
	if len(d) < head || d[0]&0x0f != 7 || d[0]&0x80 != 0 {
		return
	}
	if d[1] == 0 {
		m.params = parameterSets(d[head:])
		return
	}
	if !m.open() || m.video == nil {
		return
	}
	var unit [][]byte
	if d[0]>>4 == 1 {
		unit = append(unit, m.params...)
	}
	for nal := d[head:]; len(nal) > 4; {
		n := int(binary.BigEndian.Uint32(nal))
		if n <= 0 || n > len(nal)-4 {
			break
		}
		unit = append(unit, nal[4:4+n])
		nal = nal[4+n:]
	}
	offset := int32(uint32(d[2])<<24|uint32(d[3])<<16|uint32(d[4])<<8) >> 8
	dts := int64(message.Timestamp)
	if len(unit) > 0 {
		_ = m.writer.WriteH264(m.video, ticks(dts+int64(offset)), ticks(dts), unit) // into memory
	}
}

// parameterSets reads SPS and PPS from an AVCDecoderConfigurationRecord
// (ISO 14496-15 section 5.2.4.1).
func parameterSets(b []byte) [][]byte {
	const fixed = 5
	var sets [][]byte
	if len(b) <= fixed {
		return nil
	}
	b = b[fixed:]
	for _, mask := range []byte{0x1f, 0xff} {
		if len(b) == 0 {
			return sets
		}
		count := int(b[0] & mask)
		b = b[1:]
		for range count {
			if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
				return sets
			}
			n := int(binary.BigEndian.Uint16(b))
			sets = append(sets, b[2:2+n])
			b = b[2+n:]
		}
	}
	return sets
}

// writeAudio takes an AAC tag (FLV 10.1, E.4.2.1).
func (m *muxer) writeAudio(message edge.Message) {
	d := message.Data
	if len(d) < 3 || d[0]>>4 != 10 {
		return
	}
	if d[1] == 0 {
		var config mpeg4audio.AudioSpecificConfig
		if config.Unmarshal(d[2:]) == nil {
			m.config = &config
		}
		return
	}
	if m.open() && m.audio != nil {
		_ = m.writer.WriteMPEG4Audio(m.audio, ticks(int64(message.Timestamp)), [][]byte{d[2:]}) // into memory
	}
}
