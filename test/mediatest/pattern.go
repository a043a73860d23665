package mediatest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"

	"github.com/bluenviron/gortmplib/pkg/amf0"
)

// The pattern's timing: every frameGap a video frame, every keyGap-th of them a
// keyframe.
const (
	frameGap = 40 // ms
	keyGap   = 25 // frames
)

// Pattern is a synthetic stream. Its media decode to nothing, but each frame
// carries the stream's name and its number, so that a frame of another stream,
// a lost one and a changed byte are all seen.
type Pattern struct {
	name string
	next uint32
}

// NewPattern returns the stream of that name, from its first frame.
func NewPattern(name string) *Pattern { return &Pattern{name: name} }

// Head returns what comes before the first frame: metadata and both sequence
// headers.
func (p *Pattern) Head() []Tag {
	meta, err := amf0.Data{"onMetaData", amf0.ECMAArray{
		{Key: "width", Value: 320.0},
		{Key: "height", Value: 240.0},
		{Key: "videocodecid", Value: 7.0},
		{Key: "audiocodecid", Value: 10.0},
		{Key: "title", Value: p.name},
	}}.Marshal()
	if err != nil {
		panic(fmt.Sprintf("marshal metadata: %v", err))
	}
	return []Tag{
		{Type: TypeData, Data: meta},
		// Baseline 3.0, 320x240: an SPS and a PPS that origins can parse.
		{Type: TypeVideo, Data: []byte{
			0x17, 0, 0, 0, 0, 1, 0x42, 0xc0, 0x1e, 0xff,
			0xe1, 0, 10, 0x67, 0x42, 0xc0, 0x1e, 0xda, 0x05, 0x07, 0xe8, 0x40, 0x00,
			1, 0, 4, 0x68, 0xce, 0x3c, 0x80,
		}},
		{Type: TypeAudio, Data: []byte{0xaf, 0, 0x12, 0x10}}, // AAC-LC 44.1 kHz stereo
	}
}

// Next returns the next frame.
func (p *Pattern) Next() Tag {
	n := p.next
	p.next++
	kind := byte(0x27)
	if n%keyGap == 0 {
		kind = 0x17
	}
	nal := []byte{0x41}
	if kind == 0x17 {
		nal[0] = 0x65
	}
	nal = binary.BigEndian.AppendUint32(nal, n)
	nal = append(nal, byte(len(p.name)))
	nal = append(nal, p.name...)
	nal = binary.BigEndian.AppendUint32(nal, checksum(nal))
	data := []byte{kind, 1, 0, 0, 0}
	data = binary.BigEndian.AppendUint32(data, uint32(len(nal)))
	return Tag{Type: TypeVideo, Timestamp: n * frameGap, Data: append(data, nal...)}
}

func checksum(b []byte) uint32 {
	h := fnv.New32a()
	_, _ = h.Write(b)
	return h.Sum32() | 0x01010101 // no start code or emulation byte inside
}

// PatternFrame returns the stream and number that a frame of a Pattern carries;
// ok is false for any other tag and for a frame with a changed byte.
func PatternFrame(t Tag) (name string, number uint32, ok bool) {
	const head = 9 // FLV video header and the length of the NAL unit
	if t.Type != TypeVideo || len(t.Data) < head+10 || t.Data[1] != 1 {
		return "", 0, false
	}
	nal := t.Data[head:]
	size := int(nal[5])
	if len(nal) != 6+size+4 {
		return "", 0, false
	}
	sum := binary.BigEndian.AppendUint32(nil, checksum(nal[:6+size]))
	if !bytes.Equal(sum, nal[6+size:]) {
		return "", 0, false
	}
	return string(nal[6 : 6+size]), binary.BigEndian.Uint32(nal[1:]), true
}
