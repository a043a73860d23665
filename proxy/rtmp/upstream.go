package rtmp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/rtmp/wire"
)

// upstream is the connection to the origin, on which publish or play was said.
type upstream struct {
	conn     *wire.Conn
	streamID uint32 // that was created; 0: the client asked for none
	// unanswered are transactions that this peer has answered to the client:
	// the origin's answers to them may still come.
	unanswered []float64
}

// refusedError is the origin's refusal of connect, in its own words.
type refusedError struct{ info wire.Object }

func (e refusedError) Error() string {
	return fmt.Sprintf("origin refused connect: %s %s", e.info.Text("code"), e.info.Text("description"))
}

// handshakeError means that an origin took the connection and does not speak
// RTMP on it: it hangs, is at its limit, or is something else.
type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }

var (
	errRedirect  = errors.New("origin redirects to an address that is no registered origin")
	errRedirects = errors.New("origin redirects in a circle")
	errSilent    = errors.New("origin closed the connection without a word")
	errNoStream  = errors.New("origin refused createStream")
)

const (
	maxRedirects = 2 // that a session follows
	maxOrigins   = 3 // that a session tries
)

// openUpstream connects to the origin and says there what the client said here.
// An origin that accepts and then hangs or hangs up counts as unreachable.
func (c *client) openUpstream(ctx context.Context, session proxy.Session, s start) (*upstream, error) {
	for tried := 1; ; tried++ {
		conn, err := session.Dial(ctx)
		if err != nil {
			return nil, err
		}
		up, err := c.greet(ctx, conn, session.Origin(), s)
		var refused refusedError
		var mute handshakeError
		switch {
		case errors.As(err, &refused):
			return c.followRedirects(ctx, refused, s)
		case errors.As(err, &mute) && ctx.Err() == nil && tried < maxOrigins:
			if unreachable := session.Unreachable(ctx, err); unreachable != nil {
				return nil, unreachable
			}
		default:
			return up, err
		}
	}
}

// followRedirects goes where the origin's refusal sends it, or returns that.
func (c *client) followRedirects(ctx context.Context, refused refusedError, s start) (*upstream, error) {
	for range maxRedirects {
		to := redirectOf(refused.info)
		if to == "" {
			return nil, refused
		}
		conn, origin, err := c.follow(ctx, to)
		if err != nil {
			return nil, err
		}
		up, err := c.greet(ctx, conn, origin, s)
		if !errors.As(err, &refused) {
			return up, err
		}
	}
	if redirectOf(refused.info) == "" {
		return nil, refused
	}
	return nil, errRedirects
}

// redirectOf returns the address of a 302, empty when it is none.
func redirectOf(info wire.Object) string {
	ex, ok := info.Get("ex").(wire.Object)
	if !ok || ex.Get("code") != 302.0 {
		return ""
	}
	for _, name := range []string{"redirect2", "redirect"} {
		if u, err := url.Parse(ex.Text(name)); err == nil && u.Host != "" {
			if u.Port() == "" {
				return net.JoinHostPort(u.Hostname(), "1935")
			}
			return u.Host
		}
	}
	return ""
}

// follow dials the address of a redirect, if it is an origin's: any other would
// let an origin point this peer wherever it likes.
func (c *client) follow(ctx context.Context, addr string) (net.Conn, lb.Origin, error) {
	origin, ok := c.server.config.Registered(addr)
	if !ok {
		return nil, lb.Origin{}, errRedirect
	}
	ctx, cancel := context.WithTimeout(ctx, c.server.config.StepTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, lb.Origin{}, fmt.Errorf("follow redirect: %w", err)
	}
	return conn, origin, nil
}

// greet does everything up to publish or play on a connection to an origin. It
// closes the connection when that fails.
func (c *client) greet(ctx context.Context, conn net.Conn, origin lb.Origin, s start) (up *upstream, err error) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(c.server.config.StepTimeout)); err != nil {
		return nil, fmt.Errorf("reach origin: %w", err)
	}
	if c.server.config.TellClient(origin) {
		if _, err := conn.Write(appendClientAddress(nil, c.addr.Addr())); err != nil {
			return nil, handshakeError{fmt.Errorf("tell origin the client's address: %w", err)}
		}
	}
	if err := wire.Connect(conn); err != nil {
		return nil, handshakeError{fmt.Errorf("handshake with origin: %w", unexpected(err))}
	}
	up = &upstream{conn: wire.NewConn(conn, c.server.config.WriteTimeout)}
	for _, step := range []struct {
		name string
		do   func(*client) error
	}{{"connect", up.connect}, {"createStream", up.createStream}} {
		if err := step.do(c); err != nil {
			return nil, fmt.Errorf("%s at origin: %w", step.name, err)
		}
	}
	first := *s.message
	if up.streamID != 0 && first.StreamID != 0 { // some encoders publish on the connection itself
		first.StreamID = up.streamID
	}
	if err := up.conn.Send(&first); err != nil {
		return nil, fmt.Errorf("%s at origin: %w", s.command.Name, err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("reach origin: %w", err)
	}
	return up, nil
}

// unexpected keeps the end of an origin's connection from being taken for that
// of a client that was done.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errSilent
	}
	return err
}

// connect says the client's own connect, with the hop mark.
func (u *upstream) connect(c *client) error {
	command, object := c.connect, c.connectObject()
	object.Props = slices.Clone(object.Props)
	mark, _ := object.Get(proxy.HopProperty).(string)
	object.Set(proxy.HopProperty, proxy.AppendHop(mark, c.server.config.NodeID))
	command.Object = object
	if err := u.conn.Announce(false); err != nil {
		return err
	}
	if err := u.conn.Send(command.Message(wire.CSIDCommand)); err != nil {
		return err
	}
	answer, err := u.await(func(float64) bool { return true }) // some origins always say 1
	if err != nil {
		return err
	}
	if answer.Name == "_error" {
		return refusedError{info: answer.Info(0)}
	}
	return nil
}

// createStream says again what the client said before publish or play, the
// creation of its stream among it: in one go, since nothing needs an answer
// first.
func (u *upstream) createStream(c *client) error {
	prelude, creates := c.sayAgain()
	for i, s := range prelude {
		if i != creates {
			u.unanswered = append(u.unanswered, s.command.Transaction)
		}
		if err := u.conn.WriteMessage(s.message); err != nil {
			return err
		}
	}
	if err := u.conn.Flush(); err != nil {
		return err
	}
	if creates < 0 {
		return nil
	}
	answer, err := u.await(func(transaction float64) bool { return transaction == prelude[creates].command.Transaction })
	if err != nil {
		return err
	}
	id, ok := streamOf(answer)
	if !ok {
		return errNoStream
	}
	u.streamID = id
	return nil
}

// sayAgain returns the prelude and the place of createStream in it, -1 when the
// client said none. Its transaction is its own, so that its answer can be told.
func (c *client) sayAgain() (prelude []said, creates int) {
	prelude = slices.Clone(c.prelude)
	creates = slices.IndexFunc(prelude, said.creates)
	if creates < 0 {
		return prelude, creates
	}
	same := 0
	create := &prelude[creates]
	for _, s := range prelude {
		if s.command.Transaction == create.command.Transaction {
			same++
		}
	}
	if same > 1 {
		create.command.Transaction = c.highest + 1
		create.message = create.command.Message(create.message.CSID)
	}
	return prelude, creates
}

// streamOf reads the answer to createStream; ok is false when it is a refusal.
func streamOf(answer wire.Command) (id uint32, ok bool) {
	if answer.Name != "_result" || len(answer.Args) == 0 {
		return 0, false
	}
	n, ok := answer.Args[0].(float64)
	if !ok || !(n >= 0 && n <= 1<<31) {
		return 0, false
	}
	return uint32(n), true
}

// await reads until the answer to a transaction comes that is the one.
func (u *upstream) await(isIt func(transaction float64) bool) (wire.Command, error) {
	for {
		m, err := u.conn.ReadMessage()
		if err != nil {
			return wire.Command{}, fmt.Errorf("await answer: %w", unexpected(err))
		}
		if !isAnswer(wire.CommandName(m)) {
			continue
		}
		command, err := wire.ParseCommand(m)
		if err != nil {
			return wire.Command{}, err
		}
		if isIt(command.Transaction) {
			return command, nil
		}
		u.forget(command.Transaction)
	}
}

// isAnswer tells the commands that answer one.
func isAnswer(name string) bool { return name == "_result" || name == "_error" }

// forget reports whether an answer belongs to what this peer has answered.
func (u *upstream) forget(transaction float64) bool {
	i := slices.Index(u.unanswered, transaction)
	if i < 0 {
		return false
	}
	u.unanswered = slices.Delete(u.unanswered, i, i+1)
	return true
}
