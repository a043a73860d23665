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

// The patience of the RTMP side.
const (
	stepTimeout  = 10 * time.Second
	idleTimeout  = 60 * time.Second
	writeTimeout = 10 * time.Second
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
				o.log.DebugContext(ctx, "dev origin: client ended", "err", err)
			}
		})
	}
}

// client serves one connection.
func (o *Origin) client(ctx context.Context, conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(stepTimeout)); err != nil {
		return err
	}
	if err := wire.Accept(conn); err != nil {
		return err
	}
	c := wire.NewConn(conn, writeTimeout)
	app, streams := "", 0.0
	for {
		if err := conn.SetDeadline(time.Now().Add(stepTimeout)); err != nil {
			return err
		}
		m, err := c.ReadMessage()
		if err != nil {
			return err
		}
		command, err := wire.ParseCommand(m)
		if errors.Is(err, wire.ErrNotCommand) {
			continue
		}
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(app+"/"+command.Text(0), "?")
		switch command.Name {
		case "publish":
			return o.publish(c, command, name)
		case "play":
			return o.play(ctx, c, command, name)
		case "connect":
			object, _ := command.Object.(wire.Object)
			app, _, _ = strings.Cut(object.Text("app"), "?")
			app = strings.TrimSuffix(app, "/_definst_")
			err = errors.Join(c.Announce(true), c.Send(accepted(command, info("status", "NetConnection.Connect.Success", "welcome"))))
		case "createStream":
			streams++
			err = c.Send(accepted(command, streams))
		default:
			if command.Transaction != 0 {
				err = c.Send(accepted(command, wire.Undefined{}))
			}
		}
		if err != nil {
			return err
		}
	}
}

func accepted(command wire.Command, result any) *wire.Message {
	return wire.Command{Name: "_result", Transaction: command.Transaction, Args: []any{result}}.Message(wire.CSIDCommand)
}

func info(level, code, description string) wire.Object {
	return wire.Object{Props: []wire.Property{
		{Name: "level", Value: level}, {Name: "code", Value: code}, {Name: "description", Value: description},
	}}
}

func status(command wire.Command, level, code, description string) *wire.Message {
	return wire.Command{Name: "onStatus", StreamID: command.StreamID, Args: []any{info(level, code, description)}}.Message(wire.CSIDStatus)
}

func (o *Origin) publish(c *wire.Conn, command wire.Command, name string) error {
	p, err := o.hub.Publish(name)
	if err != nil {
		return c.Send(status(command, "error", "NetStream.Publish.BadName", err.Error()))
	}
	defer p.Close()
	if err := c.Send(status(command, "status", "NetStream.Publish.Start", "publishing")); err != nil {
		return err
	}
	for {
		if err := c.SetDeadline(time.Now().Add(idleTimeout)); err != nil {
			return err
		}
		m, err := c.ReadMessage()
		if err != nil {
			return err
		}
		switch m.Type {
		case wire.TypeAudio, wire.TypeVideo:
			p.Write(edge.Message{Type: m.Type, Timestamp: m.Timestamp, Data: bytes.Clone(m.Body)})
		case wire.TypeData:
			body := bytes.Clone(m.Body)
			if values, err := wire.DecodeAMF0(body); err == nil && len(values) > 1 && values[0] == "@setDataFrame" {
				body = wire.AppendAMF0(nil, values[1:]...)
			}
			p.Write(edge.Message{Type: m.Type, Timestamp: m.Timestamp, Data: body})
		case wire.TypeCommand:
			if done, err := wire.ParseCommand(m); err == nil && (done.Name == "deleteStream" || done.Name == "closeStream") {
				return c.Send(status(command, "status", "NetStream.Unpublish.Success", "unpublished"))
			}
		}
	}
}

func (o *Origin) play(ctx context.Context, c *wire.Conn, command wire.Command, name string) error {
	v, err := o.hub.Play(name)
	if err != nil {
		return c.Send(status(command, "error", "NetStream.Play.Failed", err.Error()))
	}
	defer v.Close()
	ctx, leave := context.WithCancelCause(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer c.Close()
	_ = c.SetReadDeadline(time.Time{})
	reading.Go(func() { // until the player leaves
		for {
			if _, failed := c.ReadMessage(); failed != nil {
				leave(io.EOF)
				return
			}
		}
	})
	begin := binary.BigEndian.AppendUint32([]byte{0, wire.EventStreamBegin}, command.StreamID)
	err = c.Send(&wire.Message{Type: wire.TypeUserControl, CSID: wire.CSIDControl, Body: begin},
		status(command, "status", "NetStream.Play.Reset", "reset"), status(command, "status", "NetStream.Play.Start", "playing"))
	for err == nil {
		var batch []edge.Message
		if batch, err = v.Next(ctx); err != nil {
			break
		}
		for _, m := range batch {
			csid := uint32(6)
			if m.Type == wire.TypeVideo {
				csid = 7
			}
			if err = c.WriteMessage(&wire.Message{Type: m.Type, CSID: csid, StreamID: command.StreamID, Timestamp: m.Timestamp, Body: m.Data}); err != nil {
				return err
			}
		}
		err = c.Flush()
	}
	if errors.Is(err, io.EOF) && ctx.Err() == nil {
		_ = c.Send(status(command, "status", "NetStream.Play.UnpublishNotify", "the stream has ended"))
	}
	return err
}
