// Package wire reads and writes RTMP: handshake, chunks, messages and AMF0. It
// carries what peers send and looks into no more of it than it must.
package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Errors of the chunk reader. Each ends the connection.
var (
	ErrChunkSize    = errors.New("chunk size out of range")
	ErrChunkStreams = errors.New("too many chunk streams")
	ErrFirstChunk   = errors.New("chunk stream starts without a full header")
	ErrMessageSize  = errors.New("message too large")
	ErrInterleaved  = errors.New("message starts before the last one on its chunk stream is complete")
)

// The bounds of what one connection may claim.
const (
	MaxMessage       = 16 << 20 // bytes: what the length field can say
	maxChunkStreams  = 256      // peers use fewer than ten
	maxPartial       = 20 << 20 // bytes in incomplete messages
	keepBuffer       = 256 << 10
	defaultChunkSize = 128
	extended         = 0xffffff
)

// Message is one RTMP message (RTMP 1.0 section 5.3, 6.1).
type Message struct {
	Type      uint8
	CSID      uint32 // chunk stream, 2 to 65599
	StreamID  uint32
	Timestamp uint32 // ms, wraps at 2^32
	Body      []byte
}

// chunkStream is what later chunks of a stream leave out.
type chunkStream struct {
	message  Message
	delta    uint32
	length   int
	extValue uint32 // the extended timestamp field of the last header
	extended bool
	started  bool // a full header was seen
}

// Reader reads messages from chunks. It is not safe for concurrent use.
type Reader struct {
	r         *bufio.Reader
	chunkSize int
	streams   map[uint32]*chunkStream
	last      *chunkStream
	partial   int    // bytes in incomplete messages
	total     uint64 // bytes read, for acknowledgements
}

// NewReader returns a reader with the protocol's first chunk size.
func NewReader(r *bufio.Reader) *Reader {
	return &Reader{r: r, chunkSize: defaultChunkSize, streams: make(map[uint32]*chunkStream)}
}

// SetChunkSize follows the peer's Set Chunk Size.
func (r *Reader) SetChunkSize(n uint32) error {
	if n == 0 || n > 0x7fffffff {
		return fmt.Errorf("%w: %d", ErrChunkSize, n)
	}
	r.chunkSize = int(n)
	return nil
}

// Abort drops the partial message of a chunk stream (RTMP 1.0 section 5.4.2).
func (r *Reader) Abort(csid uint32) {
	if cs := r.streams[csid]; cs != nil {
		r.partial -= len(cs.message.Body)
		cs.message.Body = cs.message.Body[:0]
	}
}

// Total returns the number of bytes read.
func (r *Reader) Total() uint64 { return r.total }

// Buffered returns how many bytes are there to read without waiting.
func (r *Reader) Buffered() int { return r.r.Buffered() }

// Read returns the next complete message. Its body is valid until the next
// call.
func (r *Reader) Read() (*Message, error) {
	if r.last != nil { // the message of the last call was taken
		if cap(r.last.message.Body) > keepBuffer {
			r.last.message.Body = nil
		}
		r.last.message.Body = r.last.message.Body[:0]
		r.last = nil
	}
	for {
		cs, err := r.chunk()
		if err != nil {
			return nil, err
		}
		if len(cs.message.Body) == cs.length {
			r.partial -= cs.length
			r.last = cs
			return &cs.message, nil
		}
	}
}

// chunk reads one chunk: 1-3 bytes of basic header, 0, 3, 7 or 11 of message
// header, 4 of extended timestamp if the 24-bit one is 0xFFFFFF, payload (RTMP
// 1.0 section 5.3.1).
func (r *Reader) chunk() (*chunkStream, error) {
	format, csid, err := r.basicHeader()
	if err != nil {
		return nil, err
	}
	cs := r.streams[csid]
	if cs == nil {
		if len(r.streams) >= maxChunkStreams {
			return nil, ErrChunkStreams
		}
		cs = &chunkStream{message: Message{CSID: csid}}
		r.streams[csid] = cs
	}
	if !cs.started && format != 0 && format != 1 { // librtmp starts some with format 1
		return nil, ErrFirstChunk
	}
	fresh := len(cs.message.Body) == 0
	if format != 3 && !fresh {
		return nil, ErrInterleaved
	}
	if err := r.messageHeader(cs, format, fresh); err != nil {
		return nil, err
	}
	cs.started = true
	return cs, r.payload(cs)
}

func (r *Reader) basicHeader() (format byte, csid uint32, err error) {
	b, err := r.r.ReadByte()
	if err != nil {
		return 0, 0, err //nolint:wrapcheck // io.EOF between chunks is the end
	}
	r.total++
	format, csid = b>>6, uint32(b&0x3f)
	if csid > 1 {
		return format, csid, nil
	}
	var more [2]byte
	if err := r.full(more[:csid+1]); err != nil {
		return 0, 0, err
	}
	return format, 64 + uint32(more[0]) + uint32(more[1])<<8, nil
}

func (r *Reader) messageHeader(cs *chunkStream, format byte, fresh bool) error { //nolint:revive // fresh is the state of the stream
	if format == 3 {
		return r.repeatHeader(cs, fresh)
	}
	var h [11]byte
	size := [...]int{11, 7, 3}[format]
	if err := r.full(h[:size]); err != nil {
		return err
	}
	stamp := uint24(h[:])
	if format < 2 {
		cs.length, cs.message.Type = int(uint24(h[3:])), h[6]
	}
	if format == 0 {
		cs.message.StreamID = binary.LittleEndian.Uint32(h[7:])
	}
	if cs.extended = stamp == extended; cs.extended {
		if err := r.full(h[:4]); err != nil {
			return err
		}
		stamp = binary.BigEndian.Uint32(h[:])
		cs.extValue = stamp
	}
	if format == 0 {
		cs.message.Timestamp, cs.delta = stamp, stamp
	} else {
		cs.message.Timestamp += stamp
		cs.delta = stamp
	}
	return nil
}

// repeatHeader is format 3: it continues a message, or starts the next one with
// the same header. The extended timestamp is repeated by most peers and left
// out by some: it is taken when it is there.
func (r *Reader) repeatHeader(cs *chunkStream, fresh bool) error { //nolint:revive // as above
	if cs.extended {
		if next, err := r.r.Peek(4); err == nil && binary.BigEndian.Uint32(next) == cs.extValue {
			_, _ = r.r.Discard(4)
			r.total += 4
		} else if err != nil && cs.length > len(cs.message.Body)+3 {
			return fmt.Errorf("read extended timestamp: %w", err)
		}
	}
	if fresh {
		cs.message.Timestamp += cs.delta
	}
	return nil
}

// payload appends one chunk's share to the message. Memory grows with the bytes
// that arrive, whatever the length claims.
func (r *Reader) payload(cs *chunkStream) error {
	n := min(r.chunkSize, cs.length-len(cs.message.Body))
	if cs.length > MaxMessage || r.partial+n > maxPartial {
		return ErrMessageSize
	}
	for n > 0 {
		step := min(n, 64<<10)
		at := len(cs.message.Body)
		cs.message.Body = grow(cs.message.Body, step, cs.length)
		if err := r.full(cs.message.Body[at:]); err != nil {
			return err
		}
		r.partial += step
		n -= step
	}
	return nil
}

// grow lengthens b by n, with room for the rest of a message when that is
// small.
func grow(b []byte, n, length int) []byte {
	if need := len(b) + n; need > cap(b) {
		larger := make([]byte, len(b), max(need, min(length, 2*need)))
		copy(larger, b)
		b = larger
	}
	return b[:len(b)+n]
}

func (r *Reader) full(b []byte) error {
	n, err := io.ReadFull(r.r, b)
	r.total += uint64(n) //nolint:gosec // a count
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // within a chunk
	}
	return err //nolint:wrapcheck // the caller says what it read
}

func uint24(b []byte) uint32 { return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]) }

// Writer writes messages as chunks. It is not safe for concurrent use.
type Writer struct {
	w         *bufio.Writer
	chunkSize int
}

// NewWriter returns a writer with the protocol's first chunk size.
func NewWriter(w *bufio.Writer) *Writer { return &Writer{w: w, chunkSize: defaultChunkSize} }

// SetChunkSize is the size of the chunks after a Set Chunk Size was written.
func (w *Writer) SetChunkSize(n int) { w.chunkSize = n }

// Write buffers one message, with a full header.
func (w *Writer) Write(m *Message) error {
	var h [18]byte
	b := appendBasic(h[:0], 0, m.CSID)
	stamp := min(m.Timestamp, extended)
	b = append24(b, stamp)
	b = append24(b, uint32(len(m.Body))) //nolint:gosec // MaxMessage
	b = append(b, m.Type)
	b = binary.LittleEndian.AppendUint32(b, m.StreamID)
	var body = m.Body
	for {
		if stamp == extended {
			b = binary.BigEndian.AppendUint32(b, m.Timestamp)
		}
		if _, err := w.w.Write(b); err != nil {
			return err //nolint:wrapcheck // the connection's own
		}
		n := min(len(body), w.chunkSize)
		if _, err := w.w.Write(body[:n]); err != nil {
			return err //nolint:wrapcheck // the connection's own
		}
		if body = body[n:]; len(body) == 0 {
			return nil
		}
		b = appendBasic(h[:0], 3, m.CSID)
	}
}

// Flush writes what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() } //nolint:wrapcheck // the connection's own

func appendBasic(b []byte, format byte, csid uint32) []byte {
	switch {
	case csid < 64:
		return append(b, format<<6|byte(csid))
	case csid < 320:
		return append(b, format<<6, byte(csid-64)) //nolint:gosec // below 256
	default:
		return append(b, format<<6|1, byte(csid-64), byte((csid-64)>>8)) //nolint:gosec // its two bytes
	}
}

func append24(b []byte, v uint32) []byte { return append(b, byte(v>>16), byte(v>>8), byte(v)) } //nolint:gosec // its three bytes
