package rtmp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/rtmp/wire"
)

// client is one client's connection until it publishes or plays.
type client struct {
	server *Server
	conn   *wire.Conn
	addr   netip.AddrPort // the real one

	connect wire.Command // as the client said it
	prelude []said       // what has to be said again at the origin, in order
	size    int          // bytes of the prelude
	highest float64      // transaction so far
	streams uint32       // message streams created
}

// said is a command and the message that it came in.
type said struct {
	command wire.Command
	message *wire.Message
}

// start is the command that begins the media.
type start struct {
	said
	publish bool
	target  proxy.Target
}

var (
	errNotConnected = errors.New("command before connect")
	errTalkative    = errors.New("too many commands before publish or play")
	errLengthy      = errors.New("commands before publish or play are too long")
)

// The bounds of what a client says before it publishes or plays.
const (
	maxCommands = 64
	maxPrelude  = 64 << 10 // bytes
)

// command answers the client until it publishes or plays, and then serves that.
func (c *client) command(ctx context.Context, end time.Time) error {
	for range maxCommands {
		if err := c.conn.SetReadDeadline(earlier(time.Now().Add(c.server.config.StepTimeout), end)); err != nil {
			return err
		}
		m, err := c.conn.ReadMessage()
		if err != nil {
			return fmt.Errorf("read command: %w", err)
		}
		command, err := wire.ParseCommand(m)
		if errors.Is(err, wire.ErrNotCommand) {
			continue // user control, or data too early
		}
		if err != nil {
			return err
		}
		if c.connected() && isStart(command.Name) {
			return c.begin(ctx, said{command, clone(m)})
		}
		if err := c.answer(said{command, clone(m)}); err != nil {
			return fmt.Errorf("answer %.40q: %w", command.Name, err)
		}
	}
	return errTalkative
}

// isStart tells the commands that begin the media.
func isStart(name string) bool { return name == "publish" || name == "play" }

// clone copies a message that has to outlive the next.
func clone(m *wire.Message) *wire.Message {
	kept := *m
	kept.Body = bytes.Clone(m.Body)
	return &kept
}

func (c *client) connected() bool { return c.connect.Name != "" }

// answer answers one command other than publish and play.
func (c *client) answer(s said) error {
	command := s.command
	if !c.connected() && command.Name != "connect" {
		return errNotConnected
	}
	c.highest = max(c.highest, command.Transaction, 1)
	result := wire.Command{Name: "_result", Transaction: command.Transaction, AMF3: command.AMF3}
	switch command.Name {
	case "connect":
		return c.answerConnect(command)
	case "deleteStream", "closeStream", "FCUnpublish":
		return nil // nothing was started
	case "createStream":
		c.streams++
		result.Args = []any{float64(c.streams)}
	case "getStreamLength":
		result.Args = []any{0.0} // live
	default: // releaseStream, FCPublish, FCSubscribe, _checkbw and what else clients try
		result.Args = []any{wire.Undefined{}}
	}
	if c.size += len(s.message.Body); c.size > maxPrelude {
		return errLengthy
	}
	if s.creates() { // the origin needs the one that will be used
		c.prelude = slices.DeleteFunc(c.prelude, said.creates)
	}
	c.prelude = append(c.prelude, s)
	if command.Transaction == 0 && !s.creates() {
		return nil // it asks for no answer
	}
	return c.conn.Send(result.Message(wire.CSIDCommand))
}

func (s said) creates() bool { return s.command.Name == "createStream" }

// answerConnect accepts the connection. The origin is not known before publish
// or play names the stream, so its own answer cannot be had: this one promises
// every codec, since none is looked at here, and no reconnect.
func (c *client) answerConnect(command wire.Command) error {
	object, ok := command.Object.(wire.Object)
	if !ok || object.Text("app") == "" && object.Text("tcUrl") == "" {
		return fmt.Errorf("%w: connect names no app", proxy.ErrStreamName)
	}
	c.connect = command
	encoding, ok := object.Get("objectEncoding").(float64)
	if !ok {
		encoding = 0
	}
	if err := c.conn.Announce(true); err != nil {
		return err
	}
	result := wire.Command{
		Name: "_result", Transaction: command.Transaction,
		Object: wire.Object{Props: []wire.Property{
			{Name: "fmsVer", Value: "FMS/3,5,3,888"},
			{Name: "capabilities", Value: 127.0},
			{Name: "mode", Value: 1.0},
			{Name: "fourCcList", Value: wire.StrictArray{"*"}},
		}},
		Args: []any{wire.Object{Props: []wire.Property{
			{Name: "level", Value: "status"},
			{Name: "code", Value: "NetConnection.Connect.Success"},
			{Name: "description", Value: "Connection succeeded"},
			{Name: "objectEncoding", Value: encoding},
		}}},
	}
	return c.conn.Send(result.Message(wire.CSIDCommand))
}

// connectObject is the command object of connect.
func (c *client) connectObject() wire.Object {
	object, _ := c.connect.Object.(wire.Object)
	return object
}

// identify tells which stream a publish or play is about.
func (c *client) identify(command wire.Command) (proxy.Target, error) {
	object := c.connectObject()
	return c.server.config.VHosts.IdentifyRTMP(object.Text("tcUrl"), object.Text("app"), command.Text(0))
}

// begin opens the route and serves the media until either side ends it.
func (c *client) begin(ctx context.Context, first said) error {
	s := start{said: first, publish: first.command.Name == "publish"}
	session, err := c.open(ctx, &s)
	if err != nil {
		c.refuse(s, refusalStatus(s, proxy.RefusalOf(err).Reason))
		return err
	}
	session.End(c.serve(session.Context(), session, s)) //nolint:contextcheck // the session's context comes from ctx
	return nil                                          // the session has logged its end
}

// open finds out which stream it is and admits the client to it.
func (c *client) open(ctx context.Context, s *start) (proxy.Session, error) {
	mark, _ := c.connectObject().Get(proxy.HopProperty).(string)
	if err := proxy.CheckHops(mark, c.server.config.NodeID); err != nil {
		return nil, err
	}
	var err error
	if s.target, err = c.identify(s.command); err != nil {
		return nil, err
	}
	return c.server.config.Opener.Open(ctx, proxy.Request{
		Stream: s.target.Stream, Protocol: lb.RTMP, Kind: "rtmp", Publish: s.publish, Client: c.addr,
	})
}

// serve connects to the origin, relays, and tells the client why it ended.
func (c *client) serve(ctx context.Context, session proxy.Session, s start) error {
	defer context.AfterFunc(ctx, func() { c.conn.StopReading(time.Now()) })()
	up, err := c.openUpstream(ctx, session, s)
	if err != nil {
		err = cause(ctx, err)
		c.refuse(s, statusOf(s, err))
		return err
	}
	defer up.conn.Close()
	defer context.AfterFunc(ctx, func() { up.conn.StopReading(time.Now()) })()
	r := newRelay(c, up, session, s)
	err = cause(ctx, r.run())
	switch {
	case errors.Is(err, errClientLeft):
		return nil
	case errors.Is(err, proxy.ErrSlow): // it would not read the reason either
	case r.clientKnows(err):
		c.linger()
	default:
		c.refuse(s, statusOf(s, err))
	}
	return err
}

// cause prefers the reason for which a session was ended to the broken
// connections that follow from it.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// refuse tells the client why it gets no media.
func (c *client) refuse(s start, info wire.Object) {
	status := wire.Command{Name: "onStatus", StreamID: s.command.StreamID, Args: []any{info}, AMF3: s.command.AMF3}
	if c.conn.Send(status.Message(wire.CSIDStatus)) == nil {
		c.linger()
	}
}

// linger ends the connection and lets the client read what was said last:
// closing with unread bytes would reset it and lose that.
func (c *client) linger() {
	const (
		patience = 2 * time.Second
		most     = 1 << 20 // bytes that an encoder may have sent meanwhile
	)
	tcp, ok := proxy.TCPConn(c.conn.Conn)
	if !ok || tcp.CloseWrite() != nil || tcp.SetReadDeadline(time.Now().Add(patience)) != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, tcp, most) // until the client closes
}
