package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// The message types (RTMP 1.0 sections 5.4 and 7.1).
const (
	TypeSetChunkSize  = 1
	TypeAbort         = 2
	TypeAck           = 3
	TypeUserControl   = 4
	TypeWindowAckSize = 5
	TypePeerBandwidth = 6
	TypeAudio         = 8
	TypeVideo         = 9
	TypeDataAMF3      = 15
	TypeCommandAMF3   = 17
	TypeData          = 18
	TypeCommand       = 20
	TypeAggregate     = 22
)

// The user control events (RTMP 1.0 section 7.1.7).
const (
	EventStreamBegin = 0
	EventStreamEOF   = 1
	EventPing        = 6
	EventPong        = 7

	// EventLastOfStream is the last of the events, from 0 on, that are about a
	// message stream: begin, EOF, dry, set buffer length, is recorded.
	EventLastOfStream = 4
)

// Chunk streams that this side writes on.
const (
	CSIDControl = 2
	CSIDCommand = 3
	CSIDStatus  = 5
)

// Sizes that this side announces. One chunk holds most frames: a smaller size
// costs a header every so often and gains nothing over TCP.
const (
	chunkSize  = 60000   // bytes
	windowSize = 2500000 // bytes between acknowledgements, as SRS and flash servers ask
	bufferSize = 16 << 10
)

// Conn is an RTMP connection after its handshake. One goroutine may read and
// any number may write. Chunk sizes, acknowledgements and pings are dealt with
// in ReadMessage.
type Conn struct {
	net.Conn

	reader    *Reader
	onWait    func() error
	ackWindow uint64
	acked     uint64

	deadline sync.Mutex // guards stop
	stop     time.Time  // when reading ends for good; zero: never

	writing sync.Mutex // guards writer
	writer  *Writer
}

// NewConn returns a connection. Each write to the network may take
// writeTimeout; 0: for ever. Of a connection that embeds a TCP connection, give
// the outer one.
func NewConn(conn net.Conn, writeTimeout time.Duration) *Conn {
	c := &Conn{Conn: conn}
	c.reader = NewReader(bufio.NewReaderSize(source{c}, bufferSize))
	c.writer = NewWriter(bufio.NewWriterSize(sink{conn, writeTimeout}, bufferSize))
	return c
}

// source reads the network and says so before.
type source struct{ conn *Conn }

func (s source) Read(b []byte) (int, error) {
	if s.conn.onWait != nil {
		if err := s.conn.onWait(); err != nil {
			return 0, err
		}
	}
	return s.conn.Conn.Read(b)
}

// sink writes to the network with a deadline.
type sink struct {
	conn    net.Conn
	timeout time.Duration
}

func (s sink) Write(b []byte) (int, error) {
	if s.timeout > 0 {
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
			return 0, err
		}
	}
	return s.conn.Write(b)
}

// Read does not exist on an RTMP connection: see ReadMessage.
func (c *Conn) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// Write does not exist on an RTMP connection: see WriteMessage.
func (c *Conn) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

// OnWait has f called whenever reading is about to wait for the network. Its
// error ends the read. Call it while nobody reads.
func (c *Conn) OnWait(f func() error) { c.onWait = f }

// SetLimit bounds the messages read from now on; see [Reader.SetLimit].
func (c *Conn) SetLimit(n int) { c.reader.SetLimit(n) }

// SetReadDeadline is that of [net.Conn], but does not undo StopReading.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.deadline.Lock()
	defer c.deadline.Unlock()
	if !c.stop.IsZero() && (t.IsZero() || t.After(c.stop)) {
		t = c.stop
	}
	return c.Conn.SetReadDeadline(t)
}

// StopReading has reads fail from a time on, and one that waits then. A later
// time than that of a call before changes nothing.
func (c *Conn) StopReading(at time.Time) {
	c.deadline.Lock()
	defer c.deadline.Unlock()
	if c.stop.IsZero() || at.Before(c.stop) {
		c.stop = at
		_ = c.Conn.SetReadDeadline(at) // fails on a closed connection only
	}
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// Buffered returns how many bytes can be read without waiting.
func (c *Conn) Buffered() int { return c.reader.Buffered() }

// ReplyError means that what a peer is owed for its messages could not be sent.
type ReplyError struct{ err error }

// Error returns the text of the failed write.
func (e ReplyError) Error() string { return "reply: " + e.err.Error() }

// Unwrap returns the failed write's error.
func (e ReplyError) Unwrap() error { return e.err }

// Reply sends what the peer is owed for a message. Its error, a [ReplyError],
// is not taken for one of reading.
func (c *Conn) Reply(m *Message) error {
	if err := c.Send(m); err != nil {
		return ReplyError{err}
	}
	return nil
}

// ReadMessage returns the next message that is not about the connection
// itself: commands, media, data, and user control but for pings. It is valid
// until the next call. Errors are those of the network and of [Reader.Read],
// and [ReplyError].
func (c *Conn) ReadMessage() (*Message, error) {
	for {
		m, err := c.reader.Read()
		if err != nil {
			return nil, err
		}
		if err = c.acknowledge(); err != nil {
			return nil, err
		}
		own, err := c.control(m)
		if err != nil {
			return nil, err
		}
		if !own {
			return m, nil
		}
	}
}

// control deals with a message about the connection and reports whether it was
// one.
func (c *Conn) control(m *Message) (own bool, err error) {
	if len(m.Body) < 4 {
		return m.Type <= TypePeerBandwidth && m.Type != TypeUserControl, nil
	}
	value := binary.BigEndian.Uint32(m.Body)
	switch m.Type {
	case TypeSetChunkSize:
		return true, c.reader.SetChunkSize(value)
	case TypeAbort:
		c.reader.Abort(value)
		return true, nil
	case TypeWindowAckSize:
		c.ackWindow = uint64(value)
		return true, nil
	case TypeAck, TypePeerBandwidth:
		return true, nil
	case TypeUserControl:
		if binary.BigEndian.Uint16(m.Body) != EventPing {
			return false, nil
		}
		pong := append(binary.BigEndian.AppendUint16(nil, EventPong), m.Body[2:]...)
		return true, c.Reply(&Message{Type: TypeUserControl, CSID: CSIDControl, Body: pong})
	default:
		return false, nil
	}
}

// acknowledge reports the bytes read, twice a window so that no peer waits.
func (c *Conn) acknowledge() error {
	total := c.reader.Total()
	if c.ackWindow == 0 || total-c.acked < max(c.ackWindow/2, 4096) {
		return nil
	}
	c.acked = total
	body := binary.BigEndian.AppendUint32(nil, uint32(total))
	return c.Reply(&Message{Type: TypeAck, CSID: CSIDControl, Body: body})
}

// WriteMessage buffers messages. Flush sends them.
func (c *Conn) WriteMessage(messages ...*Message) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.write(messages)
}

func (c *Conn) write(messages []*Message) error {
	for _, m := range messages {
		if err := c.writer.Write(m); err != nil {
			return fmt.Errorf("write message: %w", err)
		}
	}
	return nil
}

// Flush sends what is buffered.
func (c *Conn) Flush() error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return c.flush()
}

func (c *Conn) flush() error {
	if err := c.writer.Flush(); err != nil {
		return fmt.Errorf("write messages: %w", err)
	}
	return nil
}

// Send writes messages and flushes.
func (c *Conn) Send(messages ...*Message) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	if err := c.write(messages); err != nil {
		return err
	}
	return c.flush()
}

// Announce sends this side's window and chunk size, and, as a server does, the
// bandwidth that it grants.
func (c *Conn) Announce(server bool) error { //nolint:revive // the two sides of a connection
	u32 := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	c.writing.Lock()
	defer c.writing.Unlock()
	messages := []*Message{{Type: TypeWindowAckSize, CSID: CSIDControl, Body: u32(windowSize)}}
	if server {
		const dynamic = 2
		messages = append(messages, &Message{Type: TypePeerBandwidth, CSID: CSIDControl, Body: append(u32(windowSize), dynamic)})
	}
	messages = append(messages, &Message{Type: TypeSetChunkSize, CSID: CSIDControl, Body: u32(chunkSize)})
	if err := c.write(messages); err != nil {
		return err
	}
	c.writer.SetChunkSize(chunkSize)
	return nil
}
