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

// ErrNotCommand is returned by [ParseCommand] for any other message.
var ErrNotCommand = errors.New("message is not a command")

// Conn is an RTMP connection after its handshake. One goroutine may read and
// any number may write. Chunk sizes, acknowledgements and pings are dealt with
// in Read.
type Conn struct {
	net.Conn

	reader    *Reader
	ackWindow uint64
	acked     uint64

	mu           sync.Mutex // guards what follows
	writer       *Writer
	writeTimeout time.Duration
}

// NewConn returns a connection. Each write may take writeTimeout; 0: for ever.
func NewConn(conn net.Conn, writeTimeout time.Duration) *Conn {
	return &Conn{
		Conn:         conn,
		reader:       NewReader(bufio.NewReaderSize(conn, bufferSize)),
		writer:       NewWriter(bufio.NewWriterSize(conn, bufferSize)),
		writeTimeout: writeTimeout,
	}
}

// Read does not exist on an RTMP connection: see ReadMessage.
func (c *Conn) Read([]byte) (int, error) { return 0, errors.ErrUnsupported }

// Buffered returns how many bytes can be read without waiting.
func (c *Conn) Buffered() int { return c.reader.Buffered() }

// ReadMessage returns the next message that is not about the connection
// itself: commands, media, data, and user control but for pings. It is valid
// until the next call.
func (c *Conn) ReadMessage() (*Message, error) {
	for {
		m, err := c.reader.Read()
		if err != nil {
			return nil, err
		}
		if err := c.acknowledge(); err != nil {
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
		return true, c.Send(&Message{Type: TypeUserControl, CSID: CSIDControl, Body: pong})
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
	body := binary.BigEndian.AppendUint32(nil, uint32(total)) //nolint:gosec // it wraps on the wire too
	return c.Send(&Message{Type: TypeAck, CSID: CSIDControl, Body: body})
}

// Write does not exist on an RTMP connection: see WriteMessage.
func (c *Conn) Write([]byte) (int, error) { return 0, errors.ErrUnsupported }

// WriteMessage buffers messages. Flush sends them.
func (c *Conn) WriteMessage(messages ...*Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(messages)
}

func (c *Conn) write(messages []*Message) error {
	if err := c.extendDeadline(); err != nil {
		return err
	}
	for _, m := range messages {
		if err := c.writer.Write(m); err != nil {
			return fmt.Errorf("write message: %w", err)
		}
	}
	return nil
}

// Flush sends what is buffered.
func (c *Conn) Flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flush()
}

func (c *Conn) flush() error {
	if err := c.extendDeadline(); err != nil {
		return err
	}
	if err := c.writer.Flush(); err != nil {
		return fmt.Errorf("write messages: %w", err)
	}
	return nil
}

func (c *Conn) extendDeadline() error {
	if c.writeTimeout == 0 {
		return nil
	}
	return c.SetWriteDeadline(time.Now().Add(c.writeTimeout))
}

// Send writes messages and flushes.
func (c *Conn) Send(messages ...*Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.write(messages); err != nil {
		return err
	}
	return c.flush()
}

// Announce sends this side's window and chunk size, and, as a server does, the
// bandwidth that it grants.
func (c *Conn) Announce(server bool) error { //nolint:revive // the two sides of a connection
	u32 := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	c.mu.Lock()
	defer c.mu.Unlock()
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

// Command is a decoded command message: name, transaction id, command object,
// and what follows.
type Command struct {
	Name        string
	Transaction float64
	Object      any // Object, or nil
	Args        []any
	StreamID    uint32
	AMF3        bool // came as an AMF3 command, to be answered as one
}

// ParseCommand decodes a command message (RTMP 1.0 section 7.1.1), or returns
// [ErrNotCommand].
func ParseCommand(m *Message) (Command, error) {
	body := m.Body
	switch {
	case m.Type == TypeCommandAMF3 && len(body) > 0:
		body = body[1:] // a zero byte, then AMF0
	case m.Type != TypeCommand:
		return Command{}, ErrNotCommand
	}
	values, err := DecodeAMF0(body)
	if err != nil {
		return Command{}, fmt.Errorf("read command: %w", err)
	}
	c := Command{StreamID: m.StreamID, AMF3: m.Type == TypeCommandAMF3}
	if len(values) == 0 {
		return Command{}, fmt.Errorf("read command: %w", ErrAMFShort)
	}
	c.Name, _ = values[0].(string)
	if len(values) > 1 {
		c.Transaction, _ = values[1].(float64)
	}
	if len(values) > 2 {
		c.Object = values[2]
	}
	if len(values) > 3 {
		c.Args = values[3:]
	}
	return c, nil
}

// Text returns argument i as a string, empty when it is none.
func (c Command) Text(i int) string {
	if i < len(c.Args) {
		s, _ := c.Args[i].(string)
		return s
	}
	return ""
}

// Info returns argument i as an object, empty when it is none.
func (c Command) Info(i int) Object {
	if i < len(c.Args) {
		switch v := c.Args[i].(type) {
		case Object:
			return v
		case ECMAArray:
			return Object{Props: v}
		}
	}
	return Object{}
}

// Message encodes the command for a chunk stream.
func (c Command) Message(csid uint32) *Message {
	m := &Message{Type: TypeCommand, CSID: csid, StreamID: c.StreamID}
	if c.AMF3 {
		m.Type, m.Body = TypeCommandAMF3, []byte{0}
	}
	m.Body = AppendAMF0(m.Body, c.Name, c.Transaction, c.Object)
	m.Body = AppendAMF0(m.Body, c.Args...)
	return m
}
