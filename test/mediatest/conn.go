// Package mediatest is the tests' own media: an RTMP connection and client
// written on another implementation than the product's, FLV tags, and streams
// whose every frame tells which stream it is of and its place in it.
package mediatest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"sync"
	"time"

	"github.com/bluenviron/gortmplib/pkg/amf0"
	"github.com/bluenviron/gortmplib/pkg/bytecounter"
	"github.com/bluenviron/gortmplib/pkg/rawmessage"
)

// The RTMP message types that the tests look into (RTMP 1.0 section 5.4, 7.1).
const (
	TypeSetChunkSize  = 1
	TypeUserControl   = 4
	TypeWindowAckSize = 5
	TypePeerBandwidth = 6
	TypeAudio         = 8
	TypeVideo         = 9
	TypeData          = 18
	TypeCommand       = 20
)

// wireChunkSize is what both ends of the tests announce, as SRS does.
const wireChunkSize = 60000 // bytes

var errNotACommand = errors.New("message is no command")

// Conn carries whole RTMP messages after a handshake. Reading and writing are
// independent; writes may come from several goroutines.
type Conn struct {
	net.Conn

	// Stream is the message stream of what is sent on one: commands of the
	// stream, data and media. Default: 1.
	Stream uint32

	reader *rawmessage.Reader

	writeMu sync.Mutex
	writer  *rawmessage.Writer
}

// NewConn takes over a connection whose handshake is done.
func NewConn(conn net.Conn) *Conn {
	c := &Conn{Conn: conn, Stream: 1}
	counted := bytecounter.NewReadWriter(conn)
	c.writer = rawmessage.NewWriter(counted, counted.Writer, false)
	c.reader = rawmessage.NewReader(counted, counted.Reader, c.acknowledge)
	return c
}

func (c *Conn) acknowledge(count uint32) error {
	return c.WriteMessage(&rawmessage.Message{
		ChunkStreamID: 2, Type: 3, Body: binary.BigEndian.AppendUint32(nil, count),
	})
}

// ReadMessage returns the next message and obeys chunk size and window.
func (c *Conn) ReadMessage() (*rawmessage.Message, error) {
	m, err := c.reader.Read()
	if err != nil {
		return nil, err
	}
	if len(m.Body) >= 4 {
		switch m.Type {
		case TypeSetChunkSize:
			if err := c.reader.SetChunkSize(binary.BigEndian.Uint32(m.Body)); err != nil {
				return nil, fmt.Errorf("peer's chunk size: %w", err)
			}
		case TypeWindowAckSize:
			c.reader.SetWindowAckSize(binary.BigEndian.Uint32(m.Body))
		}
	}
	return m, nil
}

// streamField is Stream as rawmessage spells it: the field is little endian on
// the wire, it writes it big endian.
func (c *Conn) streamField() uint32 { return bits.ReverseBytes32(c.Stream) }

// WriteMessage sends one message.
func (c *Conn) WriteMessage(m *rawmessage.Message) error {
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	return c.writer.Write(m)
}

// WriteControl sends a protocol control or user control message.
func (c *Conn) WriteControl(kind uint8, body ...byte) error {
	return c.WriteMessage(&rawmessage.Message{ChunkStreamID: 2, Type: kind, Body: body})
}

// AnnounceChunkSize makes what this end writes travel in large chunks.
func (c *Conn) AnnounceChunkSize() error {
	err := c.WriteControl(TypeSetChunkSize, binary.BigEndian.AppendUint32(nil, wireChunkSize)...)
	if err != nil {
		return err
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	c.writer.SetChunkSize(wireChunkSize)
	return nil
}

// WriteCommand sends an AMF0 command; onStream sends it on the message stream
// instead of 0.
func (c *Conn) WriteCommand(onStream bool, values ...any) error {
	return c.writeAMF(TypeCommand, onStream, values)
}

// WriteData sends an AMF0 data message on the message stream.
func (c *Conn) WriteData(values ...any) error { return c.writeAMF(TypeData, true, values) }

func (c *Conn) writeAMF(kind uint8, onStream bool, values []any) error { //nolint:revive // as above
	body, err := amf0.Data(values).Marshal()
	if err != nil {
		return fmt.Errorf("write AMF0: %w", err)
	}
	m := &rawmessage.Message{ChunkStreamID: 3, Type: kind, Body: body}
	if onStream {
		m.ChunkStreamID, m.MessageStreamID = 5, c.streamField()
	}
	return c.WriteMessage(m)
}

// WriteTag sends one FLV tag as the message of the same type.
func (c *Conn) WriteTag(t Tag) error {
	return c.WriteMessage(&rawmessage.Message{
		ChunkStreamID:   4 + t.Type%8,
		Timestamp:       time.Duration(t.Timestamp) * time.Millisecond,
		Type:            t.Type,
		MessageStreamID: c.streamField(),
		Body:            t.Data,
	})
}

// Command is a decoded AMF0 command: name, transaction, and the rest.
type Command struct {
	Name        string
	Transaction float64
	Args        []any
}

// Object returns argument i as an object, empty when it is none.
func (c Command) Object(i int) amf0.Object {
	if i >= len(c.Args) {
		return nil
	}
	switch o := c.Args[i].(type) {
	case amf0.Object:
		return o
	case amf0.ECMAArray:
		return amf0.Object(o)
	default:
		return nil
	}
}

// Text returns argument i as a string, empty when it is none.
func (c Command) Text(i int) string {
	if i >= len(c.Args) {
		return ""
	}
	s, _ := c.Args[i].(string)
	return s
}

// Number returns argument i as a number, zero when it is none.
func (c Command) Number(i int) float64 {
	if i >= len(c.Args) {
		return 0
	}
	n, _ := c.Args[i].(float64)
	return n
}

// ParseCommand decodes a command message.
func ParseCommand(m *rawmessage.Message) (Command, error) {
	body := m.Body
	if m.Type == 17 && len(body) > 0 { // AMF3 command: a zero byte, then AMF0
		body = body[1:]
	} else if m.Type != TypeCommand {
		return Command{}, errNotACommand
	}
	values, err := amf0.Unmarshal(body)
	if err != nil {
		return Command{}, fmt.Errorf("read command: %w", err)
	}
	if len(values) < 2 {
		return Command{}, errNotACommand
	}
	name, isText := values[0].(string)
	transaction, isNumber := values[1].(float64)
	if !isText || !isNumber {
		return Command{}, errNotACommand
	}
	return Command{Name: name, Transaction: transaction, Args: values[2:]}, nil
}

// TagOf returns the FLV tag that a media message is.
func TagOf(m *rawmessage.Message) (Tag, bool) {
	switch m.Type {
	case TypeAudio, TypeVideo, TypeData:
		return Tag{Type: m.Type, Timestamp: uint32(m.Timestamp / time.Millisecond), Data: m.Body}, true
	default:
		return Tag{}, false
	}
}
