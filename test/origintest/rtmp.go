package origintest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/bluenviron/gortmplib/pkg/amf0"
	"github.com/bluenviron/gortmplib/pkg/handshake"

	"srsx/test/mediatest"
)

// errScripted ends a connection that did what its script asked for.
var errScripted = errors.New("as scripted")

// window is the acknowledgement window and peer bandwidth that SRS announces.
const window = 2500000 // bytes

func (o *Origin) serveRTMP(r *run, ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		r.done.Go(func() {
			defer r.track(conn)()
			defer conn.Close()
			s := &rtmpSession{origin: o, raw: conn, script: o.behaviour()}
			_ = s.serve() // how a client leaves is of no interest
		})
	}
}

// rtmpSession is one client's connection.
type rtmpSession struct {
	origin *Origin
	raw    net.Conn
	conn   *mediatest.Conn
	script Script
	client netip.AddrPort

	connect    amf0.Object
	tcURL, app string
	publishing string // hub key while publishing
}

// strike does what the script wants at a stage.
func (s *rtmpSession) strike(at Stage) error {
	switch at {
	case s.script.DieAt:
		reset(s.raw)
		return errScripted
	case s.script.GarbageAt:
		_, _ = s.raw.Write([]byte(strings.Repeat("\xffgarbage\x00", 1000)))
		return errScripted
	case s.script.SilentAt:
		_, _ = io.Copy(io.Discard, s.raw)
		return errScripted
	default:
		return nil
	}
}

func (s *rtmpSession) serve() error {
	if err := s.strike(AtAccept); err != nil {
		return err
	}
	_ = s.raw.SetReadDeadline(time.Now().Add(30 * time.Second)) // as SRS
	if err := s.handshake(); err != nil {
		return err
	}
	_ = s.raw.SetReadDeadline(time.Time{})
	defer func() {
		if s.publishing != "" {
			s.origin.hub.unpublish(s.publishing)
		}
	}()
	for {
		m, err := s.conn.ReadMessage()
		if err != nil {
			return err
		}
		if t, ok := mediatest.TagOf(m); ok {
			if s.publishing != "" {
				s.origin.hub.send(s.publishing, withoutSetDataFrame(t))
			}
			continue
		}
		cmd, err := mediatest.ParseCommand(m)
		if err != nil {
			continue
		}
		if err := s.command(cmd); err != nil {
			return err
		}
	}
}

// withoutSetDataFrame strips what only a publisher says before its metadata.
func withoutSetDataFrame(t mediatest.Tag) mediatest.Tag {
	const prefix = "\x02\x00\x0d@setDataFrame"
	if t.Type == mediatest.TypeData {
		t.Data = []byte(strings.TrimPrefix(string(t.Data), prefix))
	}
	return t
}

// buffered is a connection whose first bytes were peeked at.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

// Read reads the peeked bytes first.
func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// handshake reads a client address header if there is one (F3, u16 length, the
// IPv4 address), then shakes hands.
func (s *rtmpSession) handshake() error {
	r := bufio.NewReader(s.raw)
	first, err := r.Peek(1)
	if err != nil {
		return err
	}
	if first[0] == 0xf3 {
		header := make([]byte, 3)
		if _, err := io.ReadFull(r, header); err != nil {
			return err
		}
		body := make([]byte, binary.BigEndian.Uint16(header[1:]))
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		if addr, ok := netip.AddrFromSlice(body); ok {
			s.client = netip.AddrPortFrom(addr, 0)
		}
	}
	if s.script.SilentAt == AtHandshake || s.script.DieAt == AtHandshake || s.script.GarbageAt == AtHandshake {
		if _, err := s.raw.Write(append([]byte{3}, make([]byte, 768)...)); err != nil {
			return err
		}
		return s.strike(AtHandshake)
	}
	conn := buffered{Conn: s.raw, r: r}
	if _, _, err := handshake.DoServer(conn, false); err != nil {
		return err
	}
	s.conn = mediatest.NewConn(conn)
	return nil
}

func (s *rtmpSession) command(cmd mediatest.Command) error {
	switch cmd.Name {
	case "connect":
		return s.onConnect(cmd)
	case "createStream":
		if err := s.strike(AtStream); err != nil {
			return err
		}
		return s.conn.WriteCommand(false, "_result", cmd.Transaction, nil, 1.0)
	case "releaseStream", "FCPublish":
		return s.conn.WriteCommand(false, "_result", cmd.Transaction, nil, amf0.Undefined{})
	case "publish":
		return s.onPublish(cmd)
	case "play":
		return s.onPlay(cmd)
	case "FCUnpublish":
		return s.onUnpublish(cmd)
	case "deleteStream", "closeStream":
		if s.publishing != "" {
			s.origin.hub.unpublish(s.publishing)
			s.publishing = ""
		}
		return nil
	case "_checkbw", "getStreamLength":
		return s.conn.WriteCommand(false, "_result", cmd.Transaction, nil, 0.0)
	default:
		return nil
	}
}

func (s *rtmpSession) onConnect(cmd mediatest.Command) error {
	s.connect = cmd.Object(0)
	s.tcURL, _ = s.connect.GetString("tcUrl")
	s.app, _ = s.connect.GetString("app")
	s.saw("connect", "")
	if err := s.strike(AtConnect); err != nil {
		return err
	}
	if r := s.script.RefuseConnect; r != nil {
		info := refusal(r)
		if r.Redirect != "" {
			info = append(info, amf0.ObjectEntry{Key: "ex", Value: amf0.Object{
				{Key: "code", Value: 302.0}, {Key: "redirect", Value: r.Redirect},
			}})
		}
		if err := s.conn.WriteCommand(false, "_error", cmd.Transaction, nil, info); err != nil {
			return err
		}
		return errScripted
	}
	size := binary.BigEndian.AppendUint32(nil, window)
	if err := s.conn.WriteControl(mediatest.TypeWindowAckSize, size...); err != nil {
		return err
	}
	if err := s.conn.WriteControl(mediatest.TypePeerBandwidth, append(size, 2)...); err != nil {
		return err
	}
	if err := s.conn.AnnounceChunkSize(); err != nil {
		return err
	}
	err := s.conn.WriteCommand(false, "_result", cmd.Transaction,
		amf0.Object{
			{Key: "fmsVer", Value: "FMS/3,5,3,888"}, {Key: "capabilities", Value: 127.0}, {Key: "mode", Value: 1.0},
		},
		amf0.Object{
			{Key: "level", Value: "status"},
			{Key: "code", Value: "NetConnection.Connect.Success"},
			{Key: "description", Value: "Connection succeeded"},
			{Key: "objectEncoding", Value: 0.0},
			{Key: "data", Value: amf0.ECMAArray{
				{Key: "version", Value: "3,5,3,888"},
				{Key: "srs_version", Value: "7.0.18"},
				{Key: "srs_server_ip", Value: "127.0.0.1"},
				{Key: "srs_pid", Value: s.origin.PID()},
				{Key: "srs_id", Value: s.origin.Service()},
			}},
		})
	if err != nil {
		return err
	}
	return s.conn.WriteCommand(false, "onBWDone", 0.0, nil)
}

// key is the stream's name in the hub, without query.
func (s *rtmpSession) key(name string) string {
	app, _, _ := strings.Cut(s.app, "?")
	name, _, _ = strings.Cut(name, "?")
	return strings.Trim(app, "/") + "/" + name
}

func (s *rtmpSession) saw(kind, name string) {
	s.origin.saw(Seen{
		Kind: kind, Remote: s.raw.RemoteAddr().String(), Client: s.client,
		Connect: s.connect, TCURL: s.tcURL, App: s.app, Name: name,
	})
}

func refusal(r *Status) amf0.Object {
	return amf0.Object{
		{Key: "level", Value: "error"}, {Key: "code", Value: r.Code}, {Key: "description", Value: r.Description},
	}
}

func status(code, description string) amf0.Object {
	return amf0.Object{
		{Key: "level", Value: "status"},
		{Key: "code", Value: code},
		{Key: "description", Value: description},
		{Key: "clientid", Value: "ASAICiss"},
	}
}

func (s *rtmpSession) onPublish(cmd mediatest.Command) error {
	name := cmd.Text(1)
	s.saw("publish", name)
	if err := s.strike(AtStart); err != nil {
		return err
	}
	refused := s.script.RefusePublish
	if refused == nil && !s.origin.hub.publish(s.key(name)) {
		refused = &Status{Code: "NetStream.Publish.BadName", Description: "Stream already publishing"}
	}
	if refused != nil {
		if err := s.conn.WriteCommand(true, "onStatus", 0.0, nil, refusal(refused)); err != nil {
			return err
		}
		return errScripted
	}
	s.publishing = s.key(name)
	started := status("NetStream.Publish.Start", "Started publishing stream.")
	if err := s.conn.WriteCommand(true, "onFCPublish", 0.0, nil, started[1:3]); err != nil {
		return err
	}
	if err := s.conn.WriteCommand(true, "onStatus", 0.0, nil, started); err != nil {
		return err
	}
	return s.strike(AfterSuccess)
}

func (s *rtmpSession) onUnpublish(cmd mediatest.Command) error {
	if s.publishing != "" {
		s.origin.hub.unpublish(s.publishing)
		s.publishing = ""
	}
	stopped := status("NetStream.Unpublish.Success", "Stop publishing stream.")
	if err := s.conn.WriteCommand(true, "onFCUnpublish", 0.0, nil, stopped[1:3]); err != nil {
		return err
	}
	if err := s.conn.WriteCommand(false, "_result", cmd.Transaction, nil, amf0.Undefined{}); err != nil {
		return err
	}
	return s.conn.WriteCommand(true, "onStatus", 0.0, nil, stopped)
}

func (s *rtmpSession) onPlay(cmd mediatest.Command) error {
	name := cmd.Text(1)
	s.saw("play", name)
	if err := s.strike(AtStart); err != nil {
		return err
	}
	if r := s.script.RefusePlay; r != nil {
		if err := s.conn.WriteCommand(true, "onStatus", 0.0, nil, refusal(r)); err != nil {
			return err
		}
		return errScripted
	}
	if err := s.conn.WriteControl(mediatest.TypeUserControl, 0, 0, 0, 0, 0, 1); err != nil { // StreamBegin 1
		return err
	}
	for _, st := range []amf0.Object{
		status("NetStream.Play.Reset", "Playing and resetting stream."),
		status("NetStream.Play.Start", "Started playing stream."),
	} {
		if err := s.conn.WriteCommand(true, "onStatus", 0.0, nil, st); err != nil {
			return err
		}
	}
	if err := s.conn.WriteData("|RtmpSampleAccess", true, true); err != nil {
		return err
	}
	if err := s.strike(AfterSuccess); err != nil {
		return err
	}
	return s.play(s.key(name))
}

// play sends the stream until the client leaves.
func (s *rtmpSession) play(key string) error {
	tags, leave := s.origin.hub.play(key)
	defer leave()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			m, err := s.conn.ReadMessage()
			if err != nil {
				return
			}
			if cmd, err := mediatest.ParseCommand(m); err == nil && (cmd.Name == "deleteStream" || cmd.Name == "closeStream") {
				return
			}
		}
	}()
	defer func() {
		_ = s.raw.Close()
		<-gone
	}()
	for {
		select {
		case t, ok := <-tags:
			if !ok {
				return errScripted
			}
			if err := s.conn.WriteTag(t); err != nil {
				return err
			}
		case <-gone:
			return nil
		}
	}
}
