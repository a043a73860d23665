package devorigin

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"srsx/proxy/edge"
	"srsx/proxy/rtmp/wire"
)

func (o *Origin) serveRTMP(ctx context.Context, ln net.Listener) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("dev origin: %w", err)
		}
		clients.Go(func() {
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			if err := o.client(ctx, conn); err != nil && !errors.Is(err, io.EOF) {
				o.log.DebugContext(ctx, "dev origin: client ended", "client", conn.RemoteAddr().String(), "err", err)
			}
		})
	}
}

// session is one client's connection.
type session struct {
	*wire.Conn

	origin    *Origin
	app       string
	streams   float64 // message streams created
	publisher *edge.Publisher
}

var (
	errPlayed    = errors.New("played to the end")
	errTalkative = errors.New("too many messages without a stream")
)

// maxIdle is how many messages a client may send in a row without publishing.
const maxIdle = 64

// client serves one connection.
func (o *Origin) client(ctx context.Context, conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(o.patience.step)); err != nil {
		return err
	}
	if err := wire.Accept(conn); err != nil {
		return err
	}
	c := &session{Conn: wire.NewConn(conn, o.patience.write), origin: o}
	defer c.unpublish()
	for idle := 0; idle < maxIdle; {
		wait, limit := o.patience.step, wire.MaxCommand
		if c.publisher != nil {
			wait, limit, idle = o.patience.idle, wire.MaxMessage, 0
		}
		c.SetLimit(limit)
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return err
		}
		m, err := c.ReadMessage()
		if err != nil {
			return err
		}
		idle++
		if err := c.take(ctx, m); err != nil {
			return err
		}
	}
	return errTalkative
}

// take deals with one message.
func (c *session) take(ctx context.Context, m *wire.Message) error {
	switch m.Type {
	case wire.TypeAudio, wire.TypeVideo, wire.TypeData:
		if c.publisher != nil {
			c.publisher.Write(edge.Message{Type: m.Type, Timestamp: m.Timestamp, Data: body(m)})
		}
		return nil
	case wire.TypeCommand, wire.TypeCommandAMF3:
		command, err := wire.ParseCommand(m)
		if err != nil {
			return err
		}
		return c.command(ctx, command)
	default:
		return nil
	}
}

// body copies what viewers get of a message: metadata without the verb by which
// a publisher sets it.
func body(m *wire.Message) []byte {
	const verb = "\x02\x00\x0d@setDataFrame"
	if m.Type == wire.TypeData {
		return bytes.Clone(bytes.TrimPrefix(m.Body, []byte(verb)))
	}
	return bytes.Clone(m.Body)
}

func (c *session) command(ctx context.Context, command wire.Command) error {
	switch command.Name {
	case "connect":
		object, _ := command.Object.(wire.Object)
		app, _, _ := strings.Cut(object.Text("app"), "?")
		c.app = strings.TrimSuffix(app, "/_definst_")
		if err := c.Announce(true); err != nil {
			return err
		}
		return c.answer(command, info("status", "NetConnection.Connect.Success", "welcome"))
	case "createStream":
		c.streams++
		return c.answer(command, c.streams)
	case "publish":
		return c.publish(command)
	case "play":
		return c.play(ctx, command)
	case "FCUnpublish", "deleteStream", "closeStream":
		if c.publisher == nil {
			return nil
		}
		c.unpublish()
		return c.Send(status(command, "status", "NetStream.Unpublish.Success", "unpublished"))
	default:
		if command.Transaction == 0 {
			return nil
		}
		return c.answer(command, wire.Undefined{})
	}
}

func (c *session) answer(command wire.Command, result any) error {
	answer := wire.Command{Name: "_result", Transaction: command.Transaction, Args: []any{result}, AMF3: command.AMF3}
	return c.Send(answer.Message(wire.CSIDCommand))
}

func info(level, code, description string) wire.Object {
	return wire.Object{Props: []wire.Property{
		{Name: "level", Value: level}, {Name: "code", Value: code}, {Name: "description", Value: description},
	}}
}

func status(command wire.Command, level, code, description string) *wire.Message {
	return wire.Command{
		Name: "onStatus", StreamID: command.StreamID, Args: []any{info(level, code, description)}, AMF3: command.AMF3,
	}.Message(wire.CSIDStatus)
}

// stream returns the hub's name of what a command is about.
func (c *session) stream(command wire.Command) string {
	name, _, _ := strings.Cut(command.Text(0), "?")
	return c.app + "/" + name
}

func (c *session) publish(command wire.Command) error {
	if c.publisher != nil {
		return c.Send(status(command, "error", "NetStream.Publish.BadName", "this connection publishes already"))
	}
	p, err := c.origin.hub.Publish(c.stream(command))
	if err != nil {
		return c.Send(status(command, "error", "NetStream.Publish.BadName", err.Error()))
	}
	c.publisher = p
	return c.Send(status(command, "status", "NetStream.Publish.Start", "publishing"))
}

func (c *session) unpublish() {
	if c.publisher != nil {
		c.publisher.Close()
		c.publisher = nil
	}
}

// play sends a stream until it ends, then ends the connection.
func (c *session) play(ctx context.Context, command wire.Command) error {
	v, err := c.origin.hub.Play(c.stream(command))
	if err != nil {
		return c.Send(status(command, "error", "NetStream.Play.Failed", err.Error()))
	}
	defer v.Close()
	if err = c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	ctx, leave := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() { // until the player leaves
		defer leave()
		for readErr := error(nil); readErr == nil; {
			_, readErr = c.ReadMessage()
		}
	})
	defer reading.Wait()
	defer c.StopReading(time.Now())
	begin := binary.BigEndian.AppendUint32([]byte{0, wire.EventStreamBegin}, command.StreamID)
	err = c.Send(&wire.Message{Type: wire.TypeUserControl, CSID: wire.CSIDControl, Body: begin},
		status(command, "status", "NetStream.Play.Reset", "reset"), status(command, "status", "NetStream.Play.Start", "playing"))
	if err != nil {
		return err
	}
	if err := c.send(ctx, v, command.StreamID); !errors.Is(err, io.EOF) {
		return err
	}
	if err := c.Send(status(command, "status", "NetStream.Play.UnpublishNotify", "the stream has ended")); err != nil {
		return err
	}
	return errPlayed
}

// send sends what a viewer gets, each batch in one go, until io.EOF.
func (c *session) send(ctx context.Context, v *edge.Viewer, stream uint32) error {
	const dataCSID, audioCSID, videoCSID = 5, 6, 7
	csids := map[uint8]uint32{wire.TypeData: dataCSID, wire.TypeAudio: audioCSID, wire.TypeVideo: videoCSID}
	for {
		batch, err := v.Next(ctx)
		if err != nil {
			return err
		}
		for _, m := range batch {
			out := wire.Message{Type: m.Type, CSID: csids[m.Type], StreamID: stream, Timestamp: m.Timestamp, Body: m.Data}
			if err := c.WriteMessage(&out); err != nil {
				return err
			}
		}
		if err := c.Flush(); err != nil {
			return err
		}
	}
}
