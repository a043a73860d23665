package mediatest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Tag is one FLV tag, which is also the payload of one RTMP media message.
type Tag struct {
	Type      uint8
	Timestamp uint32 // ms
	Data      []byte
}

// Keyframe reports whether t is a video keyframe or a sequence header.
func (t Tag) Keyframe() bool {
	return t.Type == TypeVideo && len(t.Data) > 0 && t.Data[0]>>4&0x7 == 1
}

// Header reports whether t holds codec configuration: an AVC or AAC sequence
// header, in the legacy form.
func (t Tag) Header() bool {
	if len(t.Data) < 2 || t.Data[1] != 0 {
		return false
	}
	return t.Type == TypeVideo && t.Data[0] == 0x17 || t.Type == TypeAudio && t.Data[0]>>4 == 10
}

// FLVReader reads tags from an FLV file or an HTTP-FLV body.
type FLVReader struct{ r *bufio.Reader }

var errNotFLV = errors.New("not FLV")

// NewFLVReader checks the file header (FLV 10.1, E.2).
func NewFLVReader(r io.Reader) (*FLVReader, error) {
	b := bufio.NewReader(r)
	var header [13]byte // with the first PreviousTagSize
	if _, err := io.ReadFull(b, header[:]); err != nil {
		return nil, fmt.Errorf("read FLV header: %w", err)
	}
	if string(header[:3]) != "FLV" {
		return nil, fmt.Errorf("%w: starts with %q", errNotFLV, header[:3])
	}
	return &FLVReader{r: b}, nil
}

// Next returns the next tag, io.EOF after the last whole one.
func (f *FLVReader) Next() (Tag, error) {
	var header [11]byte
	if _, err := io.ReadFull(f.r, header[:]); err != nil {
		return Tag{}, err
	}
	t := Tag{
		Type:      header[0] & 0x1f,
		Timestamp: uint32(header[7])<<24 | uint32(header[4])<<16 | uint32(header[5])<<8 | uint32(header[6]),
		Data:      make([]byte, int(header[1])<<16|int(header[2])<<8|int(header[3])),
	}
	if _, err := io.ReadFull(f.r, t.Data); err != nil {
		return Tag{}, fmt.Errorf("read FLV tag: %w", err)
	}
	var size [4]byte
	if _, err := io.ReadFull(f.r, size[:]); err != nil {
		return Tag{}, fmt.Errorf("read FLV tag size: %w", err)
	}
	if got := binary.BigEndian.Uint32(size[:]); int(got) != len(t.Data)+len(header) {
		return Tag{}, fmt.Errorf("%w: tag of %d bytes says %d", errNotFLV, len(t.Data)+len(header), got)
	}
	return t, nil
}

// ReadFLV returns all tags of r.
func ReadFLV(r io.Reader) ([]Tag, error) {
	f, err := NewFLVReader(r)
	if err != nil {
		return nil, err
	}
	var tags []Tag
	for {
		t, err := f.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return tags, nil
		}
		if err != nil {
			return tags, err
		}
		tags = append(tags, t)
	}
}

// FLVHeader starts a body with audio and video.
func FLVHeader() []byte { return []byte{'F', 'L', 'V', 1, 5, 0, 0, 0, 9, 0, 0, 0, 0} }

// AppendTag appends t as FLV to b.
func AppendTag(b []byte, t Tag) []byte {
	n := len(t.Data)
	b = append(b, t.Type, byte(n>>16), byte(n>>8), byte(n),
		byte(t.Timestamp>>16), byte(t.Timestamp>>8), byte(t.Timestamp), byte(t.Timestamp>>24), 0, 0, 0)
	b = append(b, t.Data...)
	return binary.BigEndian.AppendUint32(b, uint32(n+11))
}
