package rtmp_test

import (
	"encoding/binary"
	"net"
	"testing"

	"github.com/bluenviron/gortmplib/pkg/amf0"

	"srsx/proxy/rtmp/wire"
	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

// started connects, creates a stream and publishes or plays on it.
func (p *peer) started(t *testing.T, verb, name string) *wire.Conn {
	t.Helper()
	c := p.talk(t)
	say(t, c, connectCommand(), command("createStream", 2, 0), command(verb, 3, 1, name))
	if code := hearStatus(t, c); code != "NetStream.Publish.Start" && code != "NetStream.Play.Reset" {
		t.Fatalf("%s: %s", verb, code)
	}
	return c
}

// Encoders that go on after a break do not all connect anew.
func TestStreamIsPublishedAgainOnItsConnection(t *testing.T) {
	for name, again := range map[string][]wire.Command{
		"close, publish": {command("closeStream", 0, 1), command("publish", 4, 1, "s")},
		"delete, create, publish": {
			command("FCUnpublish", 4, 0, "s"), command("deleteStream", 5, 0, 1.0),
			command("releaseStream", 6, 0, "s"), command("FCPublish", 7, 0, "s"),
			command("createStream", 8, 0), command("publish", 9, 1, "s?token=2"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, origintest.Script{}, nil)
			c := p.started(t, "publish", "s")
			say(t, c, again...)
			for code := ""; code != "NetStream.Publish.Start"; code = hearStatus(t, c) {
				if code != "" && code != "NetStream.Unpublish.Success" {
					t.Fatalf("status %s", code)
				}
			}
			if seen := len(p.origin.Seen("publish")); seen != 2 {
				t.Errorf("the origin saw %d publishes; want 2", seen)
			}
			if p.Sessions() != 1 {
				t.Errorf("%d sessions; want the one", p.Sessions())
			}
		})
	}
}

func TestLateCommandsOfPlayersReachTheOrigin(t *testing.T) {
	origin := record(t, nil)
	p := before(t, nil, origin.origin())
	c := p.talk(t)
	say(t, c, connectCommand(), command("createStream", 2, 0), command("play", 3, 1, "s"))
	hearStatus(t, c)
	late := []wire.Command{
		command("pause", 0, 1, true, 1000.0), command("seek", 0, 1, 5000.0), command("receiveAudio", 0, 1, false),
		command("receiveVideo", 0, 1, true), command("play", 0, 1, "s"), command("closeStream", 0, 1),
	}
	say(t, c, late...)
	_ = c.Close()
	heard := origin.Next(t)
	heard = heard[len(heard)-len(late):]
	for i, want := range late {
		if got, err := heard[i].Command(); err != nil || got.Name != want.Name || heard[i].StreamID != 1 {
			t.Errorf("the origin heard %q on stream %d, %v; want %s on 1", got.Name, heard[i].StreamID, err, want.Name)
		}
	}
}

// The client's first streams are made before the origin is known: it may number
// its own differently, as here, where the client publishes on its second.
func TestMessageStreamsAreTranslated(t *testing.T) {
	origin := record(t, nil)
	p := before(t, nil, origin.origin())
	c := p.talk(t)
	say(t, c, connectCommand(), command("createStream", 2, 0), command("createStream", 3, 0), command("publish", 4, 2, "s"))
	if status := hear(t, c, "onStatus"); status.StreamID != 2 {
		t.Errorf("status on stream %d; want the client's 2", status.StreamID)
	}
	frame := &wire.Message{Type: wire.TypeVideo, CSID: 6, StreamID: 2, Body: []byte{0x27}}
	buffer := &wire.Message{Type: wire.TypeUserControl, CSID: 2, Body: binary.BigEndian.AppendUint32([]byte{0, 3, 0, 0, 0, 2}, 100)}
	if err := c.Send(frame, buffer); err != nil {
		t.Fatal(err)
	}
	say(t, c, command("deleteStream", 5, 0, 2.0), command("createStream", 6, 0))
	for {
		answer := hear(t, c, "_result")
		if answer.Transaction != 6 {
			continue
		}
		if id := answer.Number(0); id != 3 { // the origin says 2, which the client knows already
			t.Errorf("the new stream is %v; want 3", id)
		}
		break
	}
	say(t, c, command("publish", 7, 3, "s"))
	hearStatus(t, c)
	_ = c.Close()

	var got []mediatest.Message
	for _, m := range origin.Next(t) {
		if parsed, err := m.Command(); err == nil && (parsed.Name == "connect" || parsed.Name == "createStream") {
			continue
		}
		got = append(got, m)
	}
	for i, want := range []struct {
		kind   uint8
		stream uint32
	}{{wire.TypeCommand, 1}, {wire.TypeVideo, 1}, {wire.TypeUserControl, 0}, {wire.TypeCommand, 0}, {wire.TypeCommand, 2}} {
		if got[i].Type != want.kind || got[i].StreamID != want.stream {
			t.Errorf("message %d is of type %d on stream %d; want %d on %d", i, got[i].Type, got[i].StreamID, want.kind, want.stream)
		}
	}
	if id := binary.BigEndian.Uint32(got[2].Body[2:]); id != 1 {
		t.Errorf("set buffer length is about stream %d; want 1", id)
	}
	if deleted, _ := got[3].Command(); deleted.Args[1] != 1.0 {
		t.Errorf("deleteStream is about %v; want 1", deleted.Args)
	}
}

// What this peer has answered itself is not answered a second time, also when
// the origin's answer comes late; what it has not comes from the origin.
func TestEachCommandIsAnsweredOnce(t *testing.T) {
	p := start(t, origintest.Script{}, nil)
	c := p.talk(t)
	say(t, c, connectCommand(), command("releaseStream", 2, 0, "s"), command("FCPublish", 3, 0, "s"),
		command("_checkbw", 4, 0), command("createStream", 5, 0), command("getStreamLength", 6, 0, "s"),
		command("publish", 7, 1, "s"))
	answers := make(map[float64]int)
	for range 6 {
		answers[hear(t, c, "_result").Transaction]++
	}
	hearStatus(t, c)
	say(t, c, command("FCUnpublish", 8, 0, "s"))
	answers[hear(t, c, "_result").Transaction]++
	for transaction := range 8 {
		if n := answers[float64(transaction+1)]; n != 1 && transaction+1 != 7 {
			t.Errorf("transaction %d was answered %d times", transaction+1, n)
		}
	}
}

// An origin may take its time with an answer that the client has.
func TestLateAnswersAreDropped(t *testing.T) {
	origin := record(t, func(conn net.Conn, _ string) {
		s := newSession()
		s.command(3, 0, "_result", 2.0, nil, amf0.Undefined{}) // to releaseStream
		s.status("NetStream.Publish.Start")
		s.command(3, 0, "_result", 3.0, nil, amf0.Undefined{}) // to FCPublish
		s.command(3, 0, "_result", 99.0, nil, amf0.Undefined{})
		_, _ = conn.Write(s.Bytes())
	})
	p := within(t, patience, patiently, origin.origin())
	c := p.talk(t)
	say(t, c, connectCommand(), command("releaseStream", 2, 0, "s"), command("FCPublish", 3, 0, "s"),
		command("createStream", 4, 0), command("publish", 5, 1, "s"))
	for _, want := range []float64{1, 2, 3, 4, 99} {
		if got := hear(t, c, "_result").Transaction; got != want {
			t.Errorf("answer to %v; want that to %v", got, want)
		}
	}
}

// A client that numbers no command has its stream all the same.
func TestClientThatCountsNothingIsServed(t *testing.T) {
	p := start(t, origintest.Script{}, nil) // answers all of these
	c := p.talk(t)
	say(t, c, connectCommand(), command("releaseStream", 0, 0, "s"), command("FCPublish", 0, 0, "s"),
		command("createStream", 0, 0), command("publish", 0, 1, "s"))
	if code := hearStatus(t, c); code != "NetStream.Publish.Start" {
		t.Errorf("status = %s; want NetStream.Publish.Start", code)
	}
}

func TestOneConnectionServesOneStream(t *testing.T) {
	for name, test := range map[string]struct {
		verb  string
		other wire.Command
		want  string
	}{
		"publish another": {"publish", command("publish", 4, 1, "other"), "NetStream.Publish.Rejected"},
		"play another":    {"play", command("play", 4, 1, "other"), "NetStream.Play.Failed"},
		"play one's own":  {"publish", command("play", 4, 1, "s"), "NetStream.Play.Failed"},
		"publish played":  {"play", command("publish", 4, 1, "s"), "NetStream.Publish.Rejected"},
		"publish nothing": {"publish", command("publish", 4, 1), "NetStream.Publish.Rejected"},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, origintest.Script{}, nil)
			c := p.started(t, test.verb, "s")
			say(t, c, test.other)
			code := hearStatus(t, c)
			for code == "NetStream.Play.Start" { // of the first
				code = hearStatus(t, c)
			}
			if code != test.want {
				t.Errorf("status = %s; want %s", code, test.want)
			}
			if seen := len(p.origin.Seen("publish")) + len(p.origin.Seen("play")); seen != 1 {
				t.Errorf("the origin saw %d starts; want the first alone", seen)
			}
			if p.Sessions() != 1 {
				t.Errorf("%d sessions; want the first to go on", p.Sessions())
			}
		})
	}
}

func TestSecondPublisherSeesTheOriginsRefusal(t *testing.T) {
	p := start(t, origintest.Script{}, nil)
	p.publish(t, "s")
	proxytest.Eventually(t, "first publisher", func() bool { return p.origin.Publishing("live/s") })
	c := p.talk(t)
	say(t, c, connectCommand(), command("createStream", 2, 0), command("publish", 3, 1, "s"))
	if code := hearStatus(t, c); code != "NetStream.Publish.BadName" {
		t.Errorf("status = %s; want the origin's NetStream.Publish.BadName", code)
	}
	proxytest.Eventually(t, "only the first goes on", func() bool { return p.Sessions() == 1 })
}
