package rtmp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
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

	connect wire.Object    // the command object of connect
	extra   []any          // what connect carried after it
	prelude []wire.Command // what has to be said again at the origin
	streams uint32         // message streams created
}

// start is the command that begins the media.
type start struct {
	command wire.Command
	publish bool
	target  proxy.Target
}

var (
	errNotConnected = errors.New("command before connect")
	errTalkative    = errors.New("too many commands before publish or play")
)

// maxCommands bounds what a client says before it publishes or plays.
const maxCommands = 64

// command answers the client until it publishes or plays, and then serves that.
func (c *client) command(ctx context.Context, end time.Time) error {
	for range maxCommands {
		if err := c.conn.SetReadDeadline(earlier(time.Now().Add(c.server.config.StepTimeout), end)); err != nil {
			return err //nolint:wrapcheck // the connection is gone
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
			return err //nolint:wrapcheck // says what it read
		}
		if c.connected() && (command.Name == "publish" || command.Name == "play") {
			return c.begin(ctx, command)
		}
		if err := c.answer(command); err != nil {
			return fmt.Errorf("answer %.40q: %w", command.Name, err)
		}
	}
	return errTalkative
}

func (c *client) connected() bool { return c.connect.Props != nil }

// answer answers one command other than publish and play.
func (c *client) answer(command wire.Command) error {
	if !c.connected() && command.Name != "connect" {
		return errNotConnected
	}
	result := wire.Command{Name: "_result", Transaction: command.Transaction, AMF3: command.AMF3}
	switch command.Name {
	case "connect":
		return c.answerConnect(command)
	case "createStream":
		c.streams++
		result.Args = []any{float64(c.streams)}
	case "releaseStream", "FCPublish", "FCSubscribe":
		c.prelude = append(c.prelude, command)
		result.Args = []any{wire.Undefined{}}
	case "getStreamLength":
		result.Args = []any{0.0} // live
	case "deleteStream", "closeStream", "FCUnpublish":
		return nil // nothing was started
	default: // _checkbw and what else clients try
		if command.Transaction == 0 {
			return nil
		}
		result.Args = []any{wire.Undefined{}}
	}
	return c.conn.Send(result.Message(wire.CSIDCommand)) //nolint:wrapcheck // wrapped by the caller
}

// answerConnect accepts the connection. The origin is not known before publish
// or play names the stream, so its own answer cannot be had: this one promises
// every codec, since none is looked at here, and no reconnect.
func (c *client) answerConnect(command wire.Command) error {
	object, ok := command.Object.(wire.Object)
	if !ok || object.Text("app") == "" && object.Text("tcUrl") == "" {
		return fmt.Errorf("%w: connect names no app", proxy.ErrStreamName)
	}
	c.connect, c.extra = object, command.Args
	encoding, ok := object.Get("objectEncoding").(float64)
	if !ok {
		encoding = 0
	}
	if err := c.conn.Announce(true); err != nil {
		return err //nolint:wrapcheck // wrapped by the caller
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
	return c.conn.Send(result.Message(wire.CSIDCommand)) //nolint:wrapcheck // wrapped by the caller
}

// begin opens the route and serves the media until either side ends it.
func (c *client) begin(ctx context.Context, command wire.Command) error {
	s := start{command: command, publish: command.Name == "publish"}
	mark, _ := c.connect.Get(proxy.HopProperty).(string)
	var session proxy.Session
	err := proxy.CheckHops(mark, c.server.config.NodeID)
	if err == nil {
		s.target, err = c.server.config.VHosts.IdentifyRTMP(c.connect.Text("tcUrl"), c.connect.Text("app"), command.Text(0))
	}
	if err == nil {
		session, err = c.server.config.Opener.Open(ctx, proxy.Request{
			Stream: s.target.Stream, Protocol: lb.RTMP, Kind: "rtmp", Publish: s.publish, Client: c.addr,
		})
	}
	if err != nil {
		c.refuse(s, refusalStatus(s, proxy.RefusalOf(err).Reason))
		return err //nolint:wrapcheck // the router says what it did
	}
	session.End(c.serve(session, s))
	return nil // the session has logged its end
}

// serve connects to the origin and relays.
func (c *client) serve(session proxy.Session, s start) error {
	ctx := session.Context()
	defer context.AfterFunc(ctx, func() { // wakes whichever read waits
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
	})()
	up, err := c.openUpstream(session, s)
	if err != nil {
		c.refuse(s, statusOf(s, err))
		return cause(ctx, err)
	}
	defer up.conn.Close()
	defer context.AfterFunc(ctx, func() { _ = up.conn.SetReadDeadline(time.Unix(1, 0)) })()
	r := newRelay(c, up, session, s)
	err = cause(ctx, r.run())
	if ctx.Err() != nil || !r.answered() || !s.publish && !errors.Is(err, errClientGone) {
		c.refuse(s, statusOf(s, err))
	}
	if errors.Is(err, errClientGone) {
		return nil
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

// refuse tells the client why it gets no media, and lets it read that: closing
// with unread bytes would reset the connection and lose the status.
func (c *client) refuse(s start, info wire.Object) {
	const patience = 2 * time.Second
	_ = c.conn.SetDeadline(time.Now().Add(patience))
	status := wire.Command{Name: "onStatus", StreamID: s.command.StreamID, Args: []any{info}, AMF3: s.command.AMF3}
	if c.conn.Send(status.Message(wire.CSIDStatus)) != nil {
		return
	}
	tcp, ok := proxy.TCPConn(c.conn.Conn)
	if !ok || tcp.CloseWrite() != nil {
		return
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	_, _ = io.CopyN(io.Discard, tcp, 1<<20)
}

// refusalStatus is the status of a refusal by this peer.
func refusalStatus(s start, reason string) wire.Object {
	code := "NetStream.Play.Failed"
	if s.publish {
		code = "NetStream.Publish.Rejected"
	}
	return wire.Object{Props: []wire.Property{
		{Name: "level", Value: "error"}, {Name: "code", Value: code}, {Name: "description", Value: reason},
	}}
}
