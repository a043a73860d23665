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

	"srsx/proxy"
	"srsx/proxy/rtmp/wire"
)

// upstream is the connection to the origin, on which publish or play was said.
type upstream struct {
	conn     *wire.Conn
	streamID uint32
	// unanswered are transactions of ours whose answers may still come and
	// mean nothing to the client.
	unanswered []float64
}

// refusedError is the origin's refusal of connect, in its own words.
type refusedError struct{ info wire.Object }

func (e refusedError) Error() string {
	return fmt.Sprintf("origin refused connect: %s %s", e.info.Text("code"), e.info.Text("description"))
}

var (
	errRedirect  = errors.New("origin redirects to an address that is no registered origin")
	errSilent    = errors.New("origin closed the connection without a word")
	errNoStream  = errors.New("origin refused createStream")
	errRedirects = errors.New("origin redirects in a circle")
)

// maxRedirects is how many 302 a session follows.
const maxRedirects = 2

// openUpstream connects to the origin, following its redirects, and says there
// what the client said here.
func (c *client) openUpstream(session proxy.Session, s start) (*upstream, error) {
	ctx := session.Context()
	conn, err := session.Dial(ctx)
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it dialed
	}
	for range maxRedirects + 1 {
		up, err := c.greet(ctx, conn, s)
		if err == nil {
			return up, nil
		}
		_ = conn.Close()
		var refused refusedError
		if !errors.As(err, &refused) {
			return nil, err
		}
		to := redirectOf(refused.info)
		if to == "" {
			return nil, err
		}
		if conn, err = c.follow(ctx, to); err != nil {
			return nil, err
		}
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
func (c *client) follow(ctx context.Context, addr string) (net.Conn, error) {
	if _, ok := c.server.config.Registered(addr); !ok {
		return nil, errRedirect
	}
	ctx, cancel := context.WithTimeout(ctx, c.server.config.StepTimeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("follow redirect: %w", err)
	}
	return conn, nil
}

// greet does everything up to publish or play on a connection to an origin.
func (c *client) greet(ctx context.Context, conn net.Conn, s start) (*upstream, error) {
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(c.server.config.StepTimeout)); err != nil {
		return nil, fmt.Errorf("reach origin: %w", err)
	}
	if c.server.config.TellClient {
		if _, err := conn.Write(appendClientAddress(nil, c.addr.Addr())); err != nil {
			return nil, fmt.Errorf("tell origin the client's address: %w", err)
		}
	}
	if err := wire.Connect(conn); err != nil {
		return nil, fmt.Errorf("handshake with origin: %w", err)
	}
	up := &upstream{conn: wire.NewConn(conn, c.server.config.WriteTimeout)}
	if err := up.connect(c.connect, c.extra, c.server.config.NodeID); err != nil {
		return nil, err
	}
	if err := up.createStream(c.prelude); err != nil {
		return nil, err
	}
	command := s.command
	command.StreamID = up.streamID
	if err := up.conn.Send(command.Message(wire.CSIDStatus)); err != nil {
		return nil, fmt.Errorf("%s at origin: %w", command.Name, err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("reach origin: %w", err)
	}
	return up, nil
}

// connect says the client's own connect, with the hop mark.
func (u *upstream) connect(object wire.Object, extra []any, nodeID string) error {
	object.Props = slices.Clone(object.Props)
	mark, _ := object.Get(proxy.HopProperty).(string)
	object.Set(proxy.HopProperty, proxy.AppendHop(mark, nodeID))
	command := wire.Command{Name: "connect", Transaction: 1, Object: object, Args: extra}
	if err := u.conn.Announce(false); err != nil {
		return fmt.Errorf("connect at origin: %w", err)
	}
	if err := u.conn.Send(command.Message(wire.CSIDCommand)); err != nil {
		return fmt.Errorf("connect at origin: %w", err)
	}
	answer, err := u.await(1)
	if err != nil {
		return fmt.Errorf("connect at origin: %w", err)
	}
	if answer.Name == "_error" {
		return refusedError{info: answer.Info(0)}
	}
	return nil
}

// createStream repeats what the client said before its stream was created, and
// creates one here. One flush for all: nothing of it needs an answer first.
func (u *upstream) createStream(prelude []wire.Command) error {
	transaction := 1.0
	for _, command := range prelude {
		transaction++
		command.Transaction = transaction
		u.unanswered = append(u.unanswered, transaction)
		if err := u.conn.WriteMessage(command.Message(wire.CSIDCommand)); err != nil {
			return fmt.Errorf("%s at origin: %w", command.Name, err)
		}
	}
	transaction++
	create := wire.Command{Name: "createStream", Transaction: transaction}
	if err := u.conn.Send(create.Message(wire.CSIDCommand)); err != nil {
		return fmt.Errorf("createStream at origin: %w", err)
	}
	answer, err := u.await(transaction)
	if err != nil {
		return fmt.Errorf("createStream at origin: %w", err)
	}
	if answer.Name == "_error" || len(answer.Args) == 0 {
		return errNoStream
	}
	id, ok := answer.Args[0].(float64)
	if !ok || id < 0 || id > 1<<31 {
		return errNoStream
	}
	u.streamID = uint32(id)
	return nil
}

// await reads until the answer to a transaction comes. A close of the
// connection by the origin counts as an answer to it.
func (u *upstream) await(transaction float64) (wire.Command, error) {
	for {
		m, err := u.conn.ReadMessage()
		if err != nil {
			return wire.Command{}, fmt.Errorf("await answer: %w", err)
		}
		command, err := wire.ParseCommand(m)
		if errors.Is(err, wire.ErrNotCommand) {
			continue
		}
		if err != nil {
			return wire.Command{}, err //nolint:wrapcheck // says what it read
		}
		if command.Name != "_result" && command.Name != "_error" {
			continue
		}
		if command.Transaction == transaction {
			return command, nil
		}
		u.forget(command.Transaction)
	}
}

// forget reports whether an answer belongs to what was said for the client.
func (u *upstream) forget(transaction float64) bool {
	i := slices.Index(u.unanswered, transaction)
	if i < 0 {
		return false
	}
	u.unanswered = slices.Delete(u.unanswered, i, i+1)
	return true
}

// statusOf puts the end of a session, or the failure to start one, into a
// status for the client.
func statusOf(s start, err error) wire.Object {
	var refused refusedError
	switch {
	case errors.As(err, &refused):
		info := refusalStatus(s, refused.info.Text("description"))
		if code := refused.info.Text("code"); code != "" {
			info.Set("code", code)
		}
		return info
	case errors.Is(err, io.EOF) && !s.publish:
		info := refusalStatus(s, "the stream has ended at its origin")
		info.Set("level", "status")
		info.Set("code", "NetStream.Play.UnpublishNotify")
		return info
	case errors.Is(err, errRedirect), errors.Is(err, errSilent), errors.Is(err, errRedirects), errors.Is(err, errNoStream):
		return refusalStatus(s, err.Error())
	default:
		return refusalStatus(s, proxy.RefusalOf(err).Reason)
	}
}
