package rtmp

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"srsx/proxy"
	"srsx/proxy/rtmp/wire"
)

// How a relay ends.
var (
	errClientLeft = errors.New("client left") // as it may
	errIdle       = errors.New("publisher sends nothing")

	errRefused     = errors.New("origin refused")
	errOriginEnded = errors.New("origin ended the stream")
	errUnanswered  = errors.New("origin does not answer")
)

// lastWords is how long the origin may go on after the client has ended: the
// status that answers a deleteStream may be on its way.
const lastWords = 500 * time.Millisecond

// relay carries messages between a client and an origin that was asked to
// publish or play. It knows message types and stream ids and looks into
// commands only; media passes as it is.
type relay struct {
	client  *client
	up      *upstream
	session proxy.Session
	start   start
	streams *streams

	// Belongs to the direction from the client.
	others int // starts of other streams that were refused

	// Belong to the direction from the origin.
	heard   bool   // the origin has answered publish or play
	over    bool   // it has said that the stream is over
	refusal string // of publish or play, in its own words; empty: none
}

func newRelay(c *client, up *upstream, session proxy.Session, s start) *relay {
	r := &relay{client: c, up: up, session: session, start: s, streams: newStreams(0, 0, c.streams)}
	if up.streamID != 0 && s.command.StreamID != 0 {
		r.streams = newStreams(s.command.StreamID, up.streamID, c.streams)
	}
	return r
}

// run relays until one side ends, and returns why. It returns when both
// directions have stopped.
func (r *relay) run() error {
	client, origin := r.client.conn, r.up.conn
	client.SetLimit(wire.MaxMessage)
	if err := client.SetReadDeadline(time.Time{}); err != nil {
		return errClientLeft
	}
	if err := origin.SetReadDeadline(time.Now().Add(r.client.server.config.StepTimeout)); err != nil {
		return fmt.Errorf("reach origin: %w", err)
	}
	ended := make(chan error, 2) // the first is why, the other follows from it
	var upwards sync.WaitGroup
	upwards.Go(func() {
		err := r.endOfClient(pump(client, origin, r.fromClient, r.idleClock()))
		ended <- err
		if errors.Is(err, errClientLeft) {
			origin.StopReading(time.Now().Add(lastWords))
			closeWrite(origin)
		} else {
			origin.StopReading(time.Now())
		}
	})
	ended <- r.endOfOrigin(pump(origin, client, r.fromOrigin, nil))
	client.StopReading(time.Now())
	upwards.Wait()
	if r.refusal != "" { // whoever closed first then
		return fmt.Errorf("%w: %s", errRefused, r.refusal)
	}
	return <-ended
}

// pump moves messages one way until one side fails. The failure of the side
// written to is a [writeError]. look decides which messages pass, and may
// change them; before each, alive is called unless it is nil.
func pump(from, to *wire.Conn, look func(*wire.Message) (pass bool, err error), alive func() error) error {
	// What is written goes out when reading has to wait, so that a burst costs
	// one write, and at the end, so that what came whole is not lost.
	flush := func() error { return failedWrite(to.Flush()) }
	from.OnWait(flush)
	defer flush() //nolint:errcheck // the end has its reason
	for {
		if alive != nil {
			if err := alive(); err != nil {
				return err
			}
		}
		m, err := from.ReadMessage()
		if err != nil {
			return err
		}
		pass, err := look(m)
		if err == nil && pass {
			err = failedWrite(to.WriteMessage(m))
		}
		if err != nil {
			return err
		}
	}
}

// writeError tells the failure of the side written to from that of the side
// read from.
type writeError struct{ error }

func (w writeError) Unwrap() error { return w.error }

func failedWrite(err error) error {
	if err != nil {
		return writeError{err}
	}
	return nil
}

// idleClock returns what keeps a publisher's read deadline ahead while its
// messages come; nil for a player, which has nothing to say.
func (r *relay) idleClock() func() error {
	if !r.start.publish {
		return nil
	}
	const steps = 16 // moving a deadline costs more than reading a clock
	idle := r.client.server.config.IdleTimeout
	var moved time.Time
	return func() error {
		now := time.Now()
		if now.Sub(moved) < idle/steps {
			return nil
		}
		moved = now
		return r.client.conn.SetReadDeadline(now.Add(idle))
	}
}

// endOfClient says why the direction from the client has ended.
func (r *relay) endOfClient(err error) error {
	var w writeError
	var reply wire.ReplyError
	switch {
	case errors.As(err, &w):
		return fmt.Errorf("write to origin: %w", w.error)
	case errors.As(err, &reply) && isTimeout(err):
		return proxy.ErrSlow
	case isGone(err):
		return errClientLeft
	case isTimeout(err) && r.start.publish:
		return errIdle
	default:
		return fmt.Errorf("read from client: %w", err)
	}
}

// endOfOrigin says why the direction from the origin has ended.
func (r *relay) endOfOrigin(err error) error {
	var w writeError
	switch {
	case errors.As(err, &w) && isTimeout(err):
		return proxy.ErrSlow
	case errors.As(err, &w):
		return errClientLeft
	case isTimeout(err) && !r.heard:
		return errUnanswered // unless this peer has ended the session, which counts first
	case !isGone(err):
		return fmt.Errorf("read from origin: %w", err)
	case r.heard:
		return errOriginEnded
	default:
		return errSilent
	}
}

// clientKnows reports whether the origin itself has told the client of an end.
func (r *relay) clientKnows(err error) bool {
	return errors.Is(err, errRefused) || errors.Is(err, errOriginEnded) && r.over
}

// isGone reports whether a peer closed or reset its connection, within a
// message or not.
func isGone(err error) bool {
	for _, gone := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT} {
		if errors.Is(err, gone) {
			return true
		}
	}
	return false
}

func isTimeout(err error) bool {
	var timeout interface{ Timeout() bool }
	return errors.As(err, &timeout) && timeout.Timeout()
}

func closeWrite(conn *wire.Conn) {
	if tcp, ok := proxy.TCPConn(conn.Conn); ok {
		_ = tcp.CloseWrite()
	}
}
