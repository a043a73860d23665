package rtmp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"srsx/proxy"
	"srsx/proxy/rtmp/wire"
)

// errClientGone means that the client ended the session, as it may.
var errClientGone = errors.New("client left")

// relay carries messages between a client and an origin that have agreed to
// publish or play. It knows message types and stream ids and looks into
// commands only; media passes as it is.
type relay struct {
	client   *client
	up       *upstream
	session  proxy.Session
	start    start
	heard    atomic.Bool // the origin has answered publish or play
	idle     time.Duration
	toOrigin map[uint32]uint32
	toClient map[uint32]uint32
}

func newRelay(c *client, up *upstream, session proxy.Session, s start) *relay {
	r := &relay{
		client: c, up: up, session: session, start: s,
		toOrigin: map[uint32]uint32{s.command.StreamID: up.streamID},
		toClient: map[uint32]uint32{up.streamID: s.command.StreamID},
	}
	if s.publish {
		r.idle = c.server.config.IdleTimeout
	}
	return r
}

// answered reports whether the origin has said anything about the start.
func (r *relay) answered() bool { return r.heard.Load() }

// run relays until one side ends, and returns why. It returns when both
// directions have stopped.
func (r *relay) run() error {
	if err := r.client.conn.SetReadDeadline(time.Time{}); err != nil {
		return errClientGone
	}
	fromClient := make(chan error, 1)
	go func() {
		err := r.pump(r.client.conn, r.up.conn, r.idle, r.fromClient)
		var w writeError
		switch {
		case errors.As(err, &w):
			err = fmt.Errorf("write to origin: %w", w.error)
		case errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || isReset(err):
			err = errClientGone
		}
		fromClient <- err
		// The origin's last words, a status to a deleteStream among them, may
		// be on their way: it gets a moment to close by itself.
		_ = r.up.conn.SetReadDeadline(time.Now().Add(lastWords))
		closeWrite(r.up.conn)
	}()
	err := r.pump(r.up.conn, r.client.conn, 0, r.fromOrigin)
	_ = r.client.conn.SetReadDeadline(time.Unix(1, 0)) // the other direction ends too
	first := <-fromClient
	return r.verdict(first, err)
}

// lastWords is how long the origin may go on after the client has ended.
const lastWords = 500 * time.Millisecond

func closeWrite(conn *wire.Conn) {
	if tcp, ok := proxy.TCPConn(conn.Conn); ok {
		_ = tcp.CloseWrite()
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "read" && !op.Timeout()
}

// verdict tells which side ended the session from how both directions ended.
func (r *relay) verdict(fromClient, fromOrigin error) error {
	var w writeError
	switch {
	case errors.Is(fromClient, errIdle):
		return errIdle
	case errors.As(fromOrigin, &w) && isTimeout(w.error):
		return proxy.ErrSlow
	case errors.As(fromOrigin, &w) || errors.Is(fromClient, errClientGone):
		return errClientGone
	case !isTimeout(fromClient): // it was not woken by the end of the other
		return fromClient
	case errors.Is(fromOrigin, io.EOF) && r.answered():
		return fmt.Errorf("origin ended the stream: %w", io.EOF)
	case errors.Is(fromOrigin, io.EOF):
		return errSilent
	default:
		return fmt.Errorf("read from origin: %w", fromOrigin)
	}
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

// writeError tells the failure of the side written to from that of the side
// read from.
type writeError struct{ error }

func (w writeError) Unwrap() error { return w.error }

// errIdle means that a publisher sent nothing for too long.
var errIdle = errors.New("publisher sends nothing")

// pump moves messages one way, as look decides, until one side fails. It
// flushes when nothing more waits to be read, so that a burst costs one write.
func (r *relay) pump(from, to *wire.Conn, idle time.Duration, look func(*wire.Message) (bool, error)) error {
	for {
		if idle > 0 && from.Buffered() == 0 {
			if err := from.SetReadDeadline(time.Now().Add(idle)); err != nil {
				return err //nolint:wrapcheck // the caller says which side
			}
			if r.session.Context().Err() != nil { // do not undo its wake-up
				return context.Cause(r.session.Context())
			}
		}
		m, err := from.ReadMessage()
		if err != nil {
			if idle > 0 && isTimeout(err) && r.session.Context().Err() == nil && r.up.conn != from {
				err = fmt.Errorf("%w: %w", errIdle, err)
			}
			return err //nolint:wrapcheck // the caller says which side
		}
		pass, err := look(m)
		if err != nil {
			return err
		}
		if pass {
			if err := to.WriteMessage(m); err != nil {
				return writeError{err}
			}
		}
		if from.Buffered() == 0 {
			if err := to.Flush(); err != nil {
				return writeError{err}
			}
		}
	}
}

// fromClient looks at a message on its way to the origin.
func (r *relay) fromClient(m *wire.Message) (pass bool, err error) {
	switch m.Type {
	case wire.TypeAudio, wire.TypeVideo, wire.TypeAggregate, wire.TypeData, wire.TypeDataAMF3:
		r.session.Count(int64(len(m.Body)), 0)
	case wire.TypeCommand, wire.TypeCommandAMF3:
		if other := r.otherStream(m); other {
			return false, r.refuseOther(m)
		}
	}
	m.StreamID = mapped(r.toOrigin, m.StreamID)
	return true, nil
}

// otherStream reports whether a command starts a stream of another name. It
// would be placed by nobody: a connection serves one stream.
func (r *relay) otherStream(m *wire.Message) bool {
	command, err := wire.ParseCommand(m)
	if err != nil || command.Name != "publish" && command.Name != "play" {
		return false
	}
	c := r.client
	target, err := c.server.config.VHosts.IdentifyRTMP(c.connect.Text("tcUrl"), c.connect.Text("app"), command.Text(0))
	return err != nil || target.Stream != r.start.target.Stream
}

func (r *relay) refuseOther(m *wire.Message) error {
	command, err := wire.ParseCommand(m)
	if err != nil {
		return err //nolint:wrapcheck // says what it read
	}
	other := start{command: command, publish: command.Name == "publish"}
	status := wire.Command{
		Name: "onStatus", StreamID: m.StreamID, AMF3: command.AMF3,
		Args: []any{refusalStatus(other, "a connection serves one stream: use another for this one")},
	}
	return r.client.conn.Send(status.Message(wire.CSIDStatus)) //nolint:wrapcheck // the client's side
}

// fromOrigin looks at a message on its way to the client.
func (r *relay) fromOrigin(m *wire.Message) (pass bool, err error) {
	switch m.Type {
	case wire.TypeAudio, wire.TypeVideo, wire.TypeAggregate, wire.TypeData, wire.TypeDataAMF3:
		r.session.Count(0, int64(len(m.Body)))
		r.heard.Store(true)
	case wire.TypeCommand, wire.TypeCommandAMF3:
		command, err := wire.ParseCommand(m)
		if err != nil {
			return false, err //nolint:wrapcheck // says what it read
		}
		if (command.Name == "_result" || command.Name == "_error") && r.up.forget(command.Transaction) {
			return false, nil
		}
		if command.Name == "onStatus" || strings.HasPrefix(command.Name, "_") {
			r.heard.Store(true)
		}
	}
	m.StreamID = mapped(r.toClient, m.StreamID)
	return true, nil
}

// mapped translates a message stream id; those made later are the same on both
// sides, since the origin's own answer passed.
func mapped(ids map[uint32]uint32, id uint32) uint32 {
	if to, ok := ids[id]; ok {
		return to
	}
	return id
}
