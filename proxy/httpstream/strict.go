package httpstream

import (
	"errors"
	"net"
)

// errLine is answered with 400 by net/http.
var errLine = errors.New("line of the header is malformed")

// strictListener refuses two shapes of header that net/http puts up with and
// that a proxy in front of us may read otherwise, so that one request becomes
// two: a line that ends in LF alone, and one that continues the line before
// (RFC 9112 sections 2.2 and 5.2).
type strictListener struct{ net.Listener }

func (l strictListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // the listener names itself
	}
	return &strictConn{Conn: conn, empty: true}, nil
}

// strictConn looks at all that a client sends, since requests with a body are
// refused: it is all header. One goroutine reads at a time.
type strictConn struct {
	net.Conn
	last   byte // before the next read
	inside bool // the current line is not the first of its request
	empty  bool // nothing of the current line has been read
}

// NetConn returns the connection below, for who takes it over.
func (c *strictConn) NetConn() net.Conn { return c.Conn }

func (c *strictConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	for _, x := range b[:n] {
		if !c.accept(x) {
			return 0, errLine // with what came along: it must not be served
		}
	}
	return n, err //nolint:wrapcheck // a Conn
}

func (c *strictConn) accept(x byte) bool {
	switch x {
	case '\n':
		if c.last != '\r' {
			return false
		}
		c.inside = !c.empty // an empty line ends the header
		c.empty = true
	case '\r': // no part of the line
	default:
		if c.inside && c.empty && (x == ' ' || x == '\t') {
			return false
		}
		c.empty = false
	}
	c.last = x
	return true
}
