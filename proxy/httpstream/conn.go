package httpstream

import (
	"errors"
	"net"
	"sync/atomic"
	"time"

	"srsx/proxy"
)

var (
	errLine    = errors.New("line of the header is malformed") // answered with 400 by net/http
	errRequest = errors.New("malformed or incomplete request")
)

// clientListener wraps each connection of a client as a [clientConn].
type clientListener struct {
	net.Listener
	writeTimeout time.Duration
	refusals     *proxy.RefusalLog
}

func (l clientListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &clientConn{Conn: conn, writeTimeout: l.writeTimeout, refusals: l.refusals, empty: true}, nil
}

// clientConn does what net/http leaves out. One goroutine reads at a time, one
// writes.
//
// Reading, it refuses shapes of header that net/http puts up with and that a
// proxy in front of us may read otherwise, so that one request becomes two: a
// line that ends in LF alone, and one that continues the line before (RFC
// 9112 sections 2.2 and 5.2). Requests with a body are refused, so all that a
// client sends is header.
//
// Writing, it gives each write its own deadline: a client may take as long as
// it needs for a whole body, but not for one piece of it.
//
// Closing, it logs a client whose last bytes made no request.
type clientConn struct {
	net.Conn
	writeTimeout time.Duration
	refusals     *proxy.RefusalLog

	unserved atomic.Bool // bytes came since the last request was served

	last   byte // before the next read
	inside bool // the current line is not the first of its request
	empty  bool // nothing of the current line has been read
}

// NetConn returns the connection below, for who takes it over.
func (c *clientConn) NetConn() net.Conn { return c.Conn }

func (c *clientConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *clientConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.unserved.Store(true)
	}
	for _, x := range b[:n] {
		if !c.accept(x) {
			return 0, errLine // with what came along: it must not be served
		}
	}
	return n, err
}

// served notes that what has been read became a request.
func (c *clientConn) served() { c.unserved.Store(false) }

func (c *clientConn) Close() error {
	if c.unserved.Swap(false) {
		c.refusals.Note(proxy.AddrPortOf(c.RemoteAddr()), errRequest)
	}
	return c.Conn.Close()
}

// accept looks at the next byte and reports whether it may stand there.
func (c *clientConn) accept(x byte) bool {
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
