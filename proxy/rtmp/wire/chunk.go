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
	ErrMessageSize  = errors.New("message is too large")
	ErrInterleaved  = errors.New("message starts before the last one on its chunk stream is complete")
)

// The bounds of what one connection may claim.
const (
	MaxMessage       = 1<<24 - 1 // bytes: what the length field can say
	maxChunkStreams  = 256       // peers use fewer than ten
	maxPartial       = 20 << 20  // bytes in incomplete messages
	keepBuffer       = 256 << 10 // bytes: most frames fit
	defaultChunkSize = 128       // bytes
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
	message  Message // the body is what has come of it so far
	length   int
	delta    uint32 // what a message that repeats the header adds
	field    uint32 // the extended timestamp of the last header
	extended bool   // it had one
	absolute bool   // it was of format 0
	started  bool   // there was one
}

// Reader reads messages from chunks. It is not safe for concurrent use.
type Reader struct {
	r         *bufio.Reader
	limit     int // bytes of a message
	chunkSize int
	streams   map[uint32]*chunkStream
	message   Message // the last one returned
	spare     []byte  // the buffer of one before that
	partial   int     // bytes in incomplete messages
	total     uint64  // bytes read, for acknowledgements

	repetition repetition
}

// NewReader returns a reader with the protocol's first chunk size.
func NewReader(r *bufio.Reader) *Reader {
	return &Reader{r: r, limit: MaxMessage, chunkSize: defaultChunkSize, streams: make(map[uint32]*chunkStream)}
}

// SetLimit bounds the messages from now on, in bytes. A longer one is
// ErrMessageSize as soon as it is announced.
func (r *Reader) SetLimit(n int) { r.limit = min(n, MaxMessage) }

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
		cs.message.Body = nil
	}
}

// Total returns the number of bytes read.
func (r *Reader) Total() uint64 { return r.total }

// Buffered returns how many bytes are there to read without waiting.
func (r *Reader) Buffered() int { return r.r.Buffered() }

// Read returns the next complete message. It is the caller's to change, and
// valid until the next call.
func (r *Reader) Read() (*Message, error) {
	if n := cap(r.message.Body); n > cap(r.spare) && n <= keepBuffer {
		r.spare = r.message.Body[:0]
	}
	r.message.Body = nil
	for {
		cs, err := r.chunk()
		if err != nil {
			return nil, err
		}
		if len(cs.message.Body) == cs.length {
			r.partial -= cs.length
			r.message, cs.message.Body = cs.message, nil
			return &r.message, nil
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
	if format == 3 {
		err = r.repeatHeader(cs)
	} else {
		err = r.messageHeader(cs, format)
	}
	if err != nil {
		return nil, err
	}
	return cs, r.payload(cs)
}

func (r *Reader) basicHeader() (format byte, csid uint32, err error) {
	b, err := r.r.ReadByte()
	if err != nil {
		return 0, 0, err
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

// messageHeader reads a header of format 0, 1 or 2, which starts a message.
func (r *Reader) messageHeader(cs *chunkStream, format byte) error {
	if len(cs.message.Body) > 0 {
		return ErrInterleaved
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
		cs.field = stamp
	}
	cs.started, cs.absolute, cs.delta = true, format == 0, stamp
	if cs.absolute {
		cs.message.Timestamp = stamp
	} else {
		cs.message.Timestamp += stamp
	}
	return nil
}

// repeatHeader reads a header of format 3: it continues a message, or starts
// the next one with the same fields.
func (r *Reader) repeatHeader(cs *chunkStream) error {
	switch begins := len(cs.message.Body) == 0; {
	case !begins && cs.extended:
		return r.skipExtended(cs)
	case begins && cs.extended:
		return r.repeatExtended(cs)
	case begins:
		cs.message.Timestamp += cs.delta // after format 0 too (RTMP 1.0 section 5.3.1.2.4)
	}
	return nil
}

// repeatExtended reads the extended timestamp of a message that starts with
// format 3: all servers expect it there. It is a delta like that of the header
// before, unless that was a timestamp: then it is one too, since the sum would
// be hours ahead. gortmplib writes zero, and means no change.
func (r *Reader) repeatExtended(cs *chunkStream) error {
	var b [4]byte
	if err := r.full(b[:]); err != nil {
		return err
	}
	if field := binary.BigEndian.Uint32(b[:]); field != 0 {
		cs.field, cs.delta = field, field
	}
	if cs.absolute {
		cs.message.Timestamp = cs.field
	} else {
		cs.message.Timestamp += cs.delta
	}
	return nil
}

// repetition is what a peer does with the extended timestamp in the chunks that
// continue a message.
type repetition uint8

const (
	unknown repetition = iota
	repeats            // as the specification has it
	leavesOut
)

// skipExtended skips the extended timestamp of a chunk that continues a
// message. Most peers repeat it, gortmplib writes zero, and some leave it out:
// the first such chunk of a connection tells.
func (r *Reader) skipExtended(cs *chunkStream) error {
	if r.repetition == leavesOut {
		return nil
	}
	next, err := r.r.Peek(4)
	if err != nil {
		if left := cs.length - len(cs.message.Body); left < 4 {
			return nil // the last bytes of one that leaves it out
		}
		return fmt.Errorf("read extended timestamp: %w", err)
	}
	if r.repetition == unknown {
		switch field := binary.BigEndian.Uint32(next); field {
		case cs.field:
			r.repetition = repeats
		case 0:
		default:
			r.repetition = leavesOut
			return nil
		}
	}
	_, _ = r.r.Discard(4) // it was peeked
	r.total += 4
	return nil
}

// payload appends one chunk's share to the message. Memory grows with the bytes
// that arrive, whatever the length claims.
func (r *Reader) payload(cs *chunkStream) error {
	n := min(r.chunkSize, cs.length-len(cs.message.Body))
	if cs.length > r.limit || r.partial+n > maxPartial {
		return fmt.Errorf("%w: %d bytes", ErrMessageSize, cs.length)
	}
	if n > 0 && cs.message.Body == nil {
		cs.message.Body, r.spare = r.spare, nil
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
	r.total += uint64(n)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // within a chunk
	}
	return err
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
	b = append24(b, uint32(len(m.Body)))
	b = append(b, m.Type)
	b = binary.LittleEndian.AppendUint32(b, m.StreamID)
	body := m.Body
	for {
		if stamp == extended {
			b = binary.BigEndian.AppendUint32(b, m.Timestamp)
		}
		if _, err := w.w.Write(b); err != nil {
			return err
		}
		n := min(len(body), w.chunkSize)
		if _, err := w.w.Write(body[:n]); err != nil {
			return err
		}
		if body = body[n:]; len(body) == 0 {
			return nil
		}
		b = appendBasic(h[:0], 3, m.CSID)
	}
}

// Flush writes what is buffered.
func (w *Writer) Flush() error { return w.w.Flush() }

func appendBasic(b []byte, format byte, csid uint32) []byte {
	switch {
	case csid < 64:
		return append(b, format<<6|byte(csid))
	case csid < 320:
		return append(b, format<<6, byte(csid-64))
	default:
		return append(b, format<<6|1, byte(csid-64), byte((csid-64)>>8))
	}
}

func append24(b []byte, v uint32) []byte { return append(b, byte(v>>16), byte(v>>8), byte(v)) }
