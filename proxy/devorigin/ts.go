package devorigin

import (
	"bytes"
	"encoding/binary"

	"github.com/bluenviron/mediacommon/v2/pkg/codecs/mpeg4audio"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts"
	"github.com/bluenviron/mediacommon/v2/pkg/formats/mpegts/codecs"

	"srsx/proxy/edge"
	"srsx/proxy/rtmp/wire"
)

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

// starts reports whether a player can start at a message: at a key frame, or
// anywhere when there is no picture.
func (m *muxer) starts(message edge.Message) bool {
	d := message.Data
	if message.Type == wire.TypeVideo {
		return len(d) > 1 && d[0] == 0x17 && d[1] == 1
	}
	return message.Type == wire.TypeAudio && len(d) > 1 && d[0]>>4 == 10 && d[1] == 1 && m.params == nil
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
			if n > 0 { // the writer panics on an empty unit
				sets = append(sets, b[2:2+n])
			}
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
