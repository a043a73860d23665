package wire

import (
	"errors"
	"fmt"
)

// Errors of [ParseCommand].
var (
	ErrNotCommand  = errors.New("message is not a command")
	ErrCommandSize = errors.New("command is too large")
)

// MaxCommand is how long a command may be to be looked into, in bytes: decoded
// it takes some times the memory, and clients send less than a hundredth.
const MaxCommand = 64 << 10

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

// commandBody returns the AMF0 values of a command message; ok is false for any
// other message.
func commandBody(m *Message) (body []byte, ok bool) {
	switch {
	case m.Type == TypeCommand:
		return m.Body, true
	case m.Type == TypeCommandAMF3 && len(m.Body) > 0:
		return m.Body[1:], true // a zero byte, then AMF0
	default:
		return nil, m.Type == TypeCommandAMF3
	}
}

// CommandName returns the name of a command without reading the rest of it,
// empty when the message is no command or names none.
func CommandName(m *Message) string {
	body, ok := commandBody(m)
	if !ok {
		return ""
	}
	r := amfReader{b: body[:min(len(body), MaxCommand)]}
	name, err := r.value(maxDepth) // no name is nested
	if err != nil {
		return ""
	}
	text, _ := name.(string)
	return text
}

// ParseCommand decodes a command message (RTMP 1.0 section 7.1.1). Errors are
// [ErrNotCommand], [ErrCommandSize] and those of [DecodeAMF0].
func ParseCommand(m *Message) (Command, error) {
	body, ok := commandBody(m)
	if !ok {
		return Command{}, ErrNotCommand
	}
	if len(body) > MaxCommand {
		return Command{}, fmt.Errorf("%w: %d bytes", ErrCommandSize, len(body))
	}
	values, err := DecodeAMF0(body)
	if err != nil {
		return Command{}, fmt.Errorf("read command: %w", err)
	}
	if len(values) == 0 {
		return Command{}, fmt.Errorf("read command: %w", ErrAMFShort)
	}
	c := Command{StreamID: m.StreamID, AMF3: m.Type == TypeCommandAMF3}
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

// Number returns argument i as a number, zero when it is none.
func (c Command) Number(i int) float64 {
	if i < len(c.Args) {
		n, _ := c.Args[i].(float64)
		return n
	}
	return 0
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
