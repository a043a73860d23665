package mediatest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// Message is one RTMP message with all that its chunks say of it.
type Message struct {
	CSID      uint32
	Type      uint8
	StreamID  uint32
	Timestamp uint32 // ms, wraps
	Body      []byte
}

// extendedStamp in the 24-bit field says that a 32-bit one follows.
const extendedStamp = 0xffffff

// Chunks writes messages in whatever chunks a test asks for: any header form,
// interleaved, or wrong. It starts with the protocol's chunk size.
type Chunks struct {
	bytes.Buffer

	size int
	last map[uint32]uint32 // by chunk stream: the field of the last header
}

// SetChunkSize writes a Set Chunk Size and obeys it.
func (c *Chunks) SetChunkSize(n uint32) {
	c.Send(0, 0, Message{CSID: 2, Type: TypeSetChunkSize, Body: binary.BigEndian.AppendUint32(nil, n)})
	c.size = int(n)
}

// Send writes a whole message: field is its timestamp with format 0, the delta
// with format 1 and 2, and with format 3 that of the header before.
func (c *Chunks) Send(format byte, field uint32, m Message) {
	for rest := c.Start(format, field, m); len(rest) > 0; {
		rest = c.Continue(m.CSID, rest)
	}
}

// Start writes the first chunk of a message and returns what is left of it.
func (c *Chunks) Start(format byte, field uint32, m Message) (rest []byte) {
	c.basicHeader(format, m.CSID)
	length := binary.BigEndian.AppendUint32(nil, uint32(len(m.Body)))[1:]
	if format < 3 {
		c.Write(binary.BigEndian.AppendUint32(nil, min(field, extendedStamp))[1:])
	}
	if format < 2 {
		c.Write(append(length, m.Type))
	}
	if format == 0 {
		c.Write(binary.LittleEndian.AppendUint32(nil, m.StreamID))
	}
	if c.last == nil {
		c.last = make(map[uint32]uint32)
	}
	c.last[m.CSID] = field
	return c.payload(m.CSID, m.Body)
}

// Continue writes the next chunk of a message and returns what is left of it.
func (c *Chunks) Continue(csid uint32, rest []byte) []byte {
	c.basicHeader(3, csid)
	return c.payload(csid, rest)
}

// payload writes the extended timestamp, if the last header has one, and as
// much of body as one chunk takes.
func (c *Chunks) payload(csid uint32, body []byte) (rest []byte) {
	if field := c.last[csid]; field >= extendedStamp {
		c.Write(binary.BigEndian.AppendUint32(nil, field))
	}
	if c.size == 0 {
		c.size = 128
	}
	n := min(len(body), c.size)
	c.Write(body[:n])
	return body[n:]
}

func (c *Chunks) basicHeader(format byte, csid uint32) {
	switch {
	case csid < 64:
		c.Write([]byte{format<<6 | byte(csid)})
	case csid < 320:
		c.Write([]byte{format << 6, byte(csid - 64)})
	default:
		c.Write([]byte{format<<6 | 1, byte(csid - 64), byte((csid - 64) >> 8)})
	}
}

// ChunkReader reads messages from any chunks, as the specification has it, for
// what gortmplib does not read: chunk streams above 63 and message streams.
type ChunkReader struct {
	r       *bufio.Reader
	size    int
	streams map[uint32]*partial
}

// partial is what is known of a chunk stream.
type partial struct {
	Message
	length int
	field  uint32
	left   int // bytes of the message that are still to come
}

// NewChunkReader reads from behind a handshake.
func NewChunkReader(r io.Reader) *ChunkReader {
	return &ChunkReader{r: bufio.NewReader(r), size: 128, streams: make(map[uint32]*partial)}
}

// Next returns the next message. It obeys Set Chunk Size and returns it too.
func (c *ChunkReader) Next() (Message, error) {
	for {
		p, err := c.chunk()
		if err != nil {
			return Message{}, err
		}
		if p.left > 0 {
			continue
		}
		m := p.Message
		p.Body = nil
		if m.Type == TypeSetChunkSize && len(m.Body) == 4 {
			c.size = int(binary.BigEndian.Uint32(m.Body))
		}
		return m, nil
	}
}

func (c *ChunkReader) number(size int) (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(c.r, b[4-size:])
	return binary.BigEndian.Uint32(b[:]), err
}

func (c *ChunkReader) chunk() (*partial, error) {
	first, err := c.number(1)
	if err != nil {
		return nil, err
	}
	csid := first & 0x3f
	if csid < 2 {
		var more [2]byte
		if _, err := io.ReadFull(c.r, more[:csid+1]); err != nil {
			return nil, err
		}
		csid = 64 + uint32(binary.LittleEndian.Uint16(more[:]))
	}
	p := c.streams[csid]
	if p == nil {
		p = &partial{Message: Message{CSID: csid}}
		c.streams[csid] = p
	}
	if err := c.header(p, first>>6); err != nil {
		return nil, fmt.Errorf("header on chunk stream %d: %w", csid, err)
	}
	b := make([]byte, min(p.left, c.size))
	if _, err := io.ReadFull(c.r, b); err != nil {
		return nil, fmt.Errorf("payload on chunk stream %d: %w", csid, err)
	}
	p.Body = append(p.Body, b...)
	p.left -= len(b)
	return p, nil
}

func (c *ChunkReader) header(p *partial, format uint32) (err error) {
	begins := p.left == 0
	if format < 3 {
		if p.field, err = c.number(3); err != nil {
			return err
		}
	}
	if format < 2 {
		both, readErr := c.number(4) // 24 bits of length, 8 of type
		if readErr != nil {
			return readErr
		}
		p.length, p.Type = int(both>>8), uint8(both)
	}
	if format == 0 {
		if err = binary.Read(c.r, binary.LittleEndian, &p.StreamID); err != nil {
			return err
		}
	}
	stamp := p.field
	if stamp == extendedStamp {
		if stamp, err = c.number(4); err != nil {
			return err
		}
	}
	switch {
	case !begins:
		return nil
	case format == 0:
		p.Timestamp = stamp
	default:
		p.Timestamp += stamp
	}
	p.left = p.length
	return nil
}
