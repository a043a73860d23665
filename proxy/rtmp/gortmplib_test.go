package rtmp_test

import (
	"context"
	"io"
	"net"
	"net/url"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/bluenviron/gortmplib"
	"github.com/bluenviron/gortmplib/pkg/amf0"
	"github.com/bluenviron/gortmplib/pkg/message"

	"srsx/test/proxytest"
)

// someMedia is media as gortmplib understands it: what it sends on one side of
// a peer it has to read as the same on the other.
func someMedia() []message.Message {
	const stream, video, audio = 0x1000000, 6, 4 // message stream 1, as it spells it
	var list []message.Message
	for i := range 50 {
		at := time.Duration(i*40) * time.Millisecond
		payload := make([]byte, 1+i*400)
		payload[i*400] = byte(i)
		hevc := &message.VideoExCodedFrames{
			ChunkStreamID: video, DTS: at, MessageStreamID: stream, FourCC: message.FourCCHEVC,
			PTSDelta: 80 * time.Millisecond, Payload: append([]byte{0, 0, 0, 1}, payload...),
		}
		opus := &message.AudioExCodedFrames{ChunkStreamID: audio, DTS: at, MessageStreamID: stream, FourCC: message.FourCCOpus, Payload: payload}
		list = append(list, hevc, opus,
			&message.VideoExMultitrack{TrackID: 2, Wrapped: &message.VideoExFramesX{
				ChunkStreamID: video, DTS: at, MessageStreamID: stream, FourCC: message.FourCCAV1, Payload: append([]byte{1}, payload...),
			}},
			&message.Video{
				ChunkStreamID: video, DTS: at, MessageStreamID: stream, Codec: message.CodecH264, IsKeyFrame: i == 0,
				Type: message.VideoTypeAU, AU: append([]byte{0, 0, 0, 1}, payload...),
			},
			&message.DataAMF0{ChunkStreamID: 4, MessageStreamID: stream, Payload: amf0.Data{"onTextData", float64(i)}},
		)
	}
	return append(list, &message.VideoExSequenceEnd{ChunkStreamID: video, MessageStreamID: stream, FourCC: message.FourCCHEVC})
}

// readMedia reads as many messages as sent, and compares.
func readMedia(t *testing.T, read func() (message.Message, error), sent []message.Message) {
	t.Helper()
	for i, want := range sent {
		got, err := read()
		for err == nil && notMedia(got) {
			got, err = read()
		}
		if err != nil {
			t.Errorf("message %d of %d: %v", i, len(sent), err)
			return
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("message %d is %T %+v; want %T %+v", i, got, got, want, want)
			return
		}
	}
}

func notMedia(m message.Message) bool {
	switch m.(type) {
	case *message.CommandAMF0, *message.SetChunkSize, *message.SetWindowAckSize, *message.SetPeerBandwidth,
		*message.UserControlStreamBegin, *message.Acknowledge:
		return true
	default:
		return false
	}
}

// gortmplib publishes to itself through a peer, and plays from itself.
func TestAnotherImplementationOnBothSides(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	sent := someMedia()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			server := &gortmplib.ServerConn{RW: conn}
			if server.Initialize() != nil {
				_ = conn.Close() // a probe
				continue
			}
			if err := server.Accept(); err != nil {
				t.Errorf("origin: accept: %v", err)
			} else if server.Publish {
				readMedia(t, server.Read, sent)
			} else {
				writeMedia(t, server.Write, sent)
			}
			hangUp(conn)
		}
	})
	defer serving.Wait()
	defer ln.Close()
	p := within(t, patience, patiently, proxytest.StaticOrigin("o", ln.Addr().String(), ""))
	u := &url.URL{Scheme: "rtmp", Host: p.addr, Path: "/live/s"}
	for _, publish := range []bool{true, false} {
		c := &gortmplib.Client{URL: u, Publish: publish}
		if err := c.Initialize(context.Background()); err != nil {
			t.Fatalf("client, publish %v: %v", publish, err)
		}
		_ = c.NetConn().SetDeadline(time.Now().Add(patience))
		if publish {
			writeMedia(t, c.Write, sent)
		} else {
			readMedia(t, c.Read, sent)
		}
		hangUp(c.NetConn())
		p.awaitNoSessions(t)
	}
}

// hangUp ends a connection as its library should: closed with bytes unread, it
// would be reset, and what was written last be lost.
func hangUp(conn net.Conn) {
	_ = conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // all here are
	_, _ = io.Copy(io.Discard, conn)
	_ = conn.Close()
}

func writeMedia(t *testing.T, write func(message.Message) error, sent []message.Message) {
	t.Helper()
	for _, m := range sent {
		if err := write(m); err != nil {
			t.Errorf("write: %v", err)
			return
		}
	}
}
