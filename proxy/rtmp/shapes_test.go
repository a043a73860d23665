package rtmp_test

import (
	"bytes"
	"math/rand/v2"

	"github.com/bluenviron/gortmplib/pkg/amf0"

	"srsx/proxy/rtmp/wire"
	"srsx/test/mediatest"
)

// session writes what one client or origin sends, in its own chunks.
type session struct {
	mediatest.Chunks

	random *rand.Rand
}

func newSession() *session { return &session{random: rand.New(rand.NewPCG(1, 2))} }

// body is a payload that begins with head and goes on at random.
func (s *session) body(size int, head ...byte) []byte {
	b := make([]byte, max(size, len(head)))
	for i := range b {
		b[i] = byte(s.random.Uint32())
	}
	copy(b, head)
	return b
}

// command sends an AMF0 command with a full header.
func (s *session) command(csid, stream uint32, values ...any) {
	s.Send(0, 0, mediatest.Message{CSID: csid, Type: wire.TypeCommand, StreamID: stream, Body: amf(values...)})
}

// command3 sends a command as flash does once it has asked for AMF3: a zero
// byte, then AMF0.
func (s *session) command3(csid, stream uint32, values ...any) {
	body := append([]byte{0}, amf(values...)...)
	s.Send(0, 0, mediatest.Message{CSID: csid, Type: wire.TypeCommandAMF3, StreamID: stream, Body: body})
}

func (s *session) media(format byte, field, csid uint32, kind uint8, body []byte) {
	s.Send(format, field, mediatest.Message{CSID: csid, Type: kind, StreamID: 1, Body: body})
}

// begin says what encoders say before their media.
func (s *session) begin(connect amf0.Object) {
	s.command(3, 0, "connect", 1.0, append(amf0.Object{
		{Key: "app", Value: "live"}, {Key: "type", Value: "nonprivate"}, {Key: "tcUrl", Value: "rtmp://h/live"},
	}, connect...))
	s.command(3, 0, "releaseStream", 2.0, nil, "s")
	s.command(3, 0, "FCPublish", 3.0, nil, "s")
	s.command(3, 0, "createStream", 4.0, nil)
	s.command(8, 1, "publish", 5.0, nil, "s?token=1", "live")
}

func metadata() []byte {
	return amf("@setDataFrame", "onMetaData", amf0.ECMAArray{
		{Key: "width", Value: 1280.0}, {Key: "encoder", Value: "Lavf60.3.100"}, {Key: "stereo", Value: true},
	})
}

// clientShapes are whole sessions of publishers, in the manner of each.
func clientShapes() map[string][]byte {
	shapes := make(map[string][]byte)
	for name, write := range map[string]func(*session){
		"ffmpeg":                     likeFFmpeg,
		"librtmp and OBS":            likeLibrtmp,
		"GStreamer's rtmp2sink":      likeRTMP2Sink,
		"Larix":                      likeLarix,
		"flash":                      likeFlash,
		"no createStream":            bare,
		"one transaction for all":    alike,
		"every chunk stream":         begun(everyChunkStream),
		"interleaved":                begun(interleaved),
		"extended timestamps":        begun(extendedTimestamps),
		"timestamps that go back":    begun(backwards),
		"enhanced RTMP":              begun(enhanced),
		"aggregates, data and empty": begun(oddMessages),
		"large":                      begun(large),
	} {
		s := newSession()
		write(s)
		shapes[name] = s.Bytes()
	}
	return shapes
}

// likeFFmpeg: one chunk stream a kind, small chunks, deltas, and the shortest
// header that says it.
func likeFFmpeg(s *session) {
	s.begin(amf0.Object{{Key: "flashVer", Value: "FMLE/3.0 (compatible; Lavf59.27.100)"}})
	s.media(0, 0, 8, wire.TypeData, metadata())
	s.media(0, 0, 6, wire.TypeVideo, s.body(40, 0x17, 0))
	s.media(0, 0, 4, wire.TypeAudio, s.body(7, 0xaf, 0))
	s.media(1, 0, 6, wire.TypeVideo, s.body(5000, 0x17, 1))
	s.media(1, 23, 4, wire.TypeAudio, s.body(300, 0xaf, 1))
	for range 20 {
		s.media(1, 40, 6, wire.TypeVideo, s.body(100+s.random.IntN(2000), 0x27, 1))
		s.media(1, 23, 4, wire.TypeAudio, s.body(300, 0xaf, 1))
		s.media(2, 24, 4, wire.TypeAudio, s.body(300, 0xaf, 1))
		s.media(3, 24, 4, wire.TypeAudio, s.body(300, 0xaf, 1))
	}
	s.command(3, 0, "FCUnpublish", 6.0, nil, "s")
	s.command(3, 0, "deleteStream", 7.0, nil, 1.0)
}

// likeLibrtmp: everything on chunk stream 4, so that a sound which is earlier
// than the picture before it has a delta near 2^32.
func likeLibrtmp(s *session) {
	s.SetChunkSize(4096)
	s.begin(amf0.Object{
		{Key: "flashVer", Value: "FMLE/3.0 (compatible; FMSc/1.0)"},
		{Key: "swfUrl", Value: "rtmp://h/live"},
		{Key: "fourCcList", Value: amf0.StrictArray{"av01", "hvc1"}},
	})
	s.media(0, 0, 4, wire.TypeData, metadata())
	s.media(0, 0, 4, wire.TypeVideo, s.body(40, 0x17, 0))
	s.media(0, 0, 4, wire.TypeAudio, s.body(7, 0xaf, 0))
	for range 20 {
		s.media(1, 40, 4, wire.TypeVideo, s.body(9000, 0x27, 1))
		s.media(1, 0xffffffff-6, 4, wire.TypeAudio, s.body(300, 0xaf, 1)) // 7 ms back
	}
}

// likeRTMP2Sink: transactions 0 where no answer is awaited, the chunk size
// after publish, a header of format 3 for metadata that repeats.
func likeRTMP2Sink(s *session) {
	s.command(3, 0, "connect", 1.0, connectObject())
	s.Send(0, 0, mediatest.Message{CSID: 2, Type: wire.TypeWindowAckSize, Body: u32(5000000)})
	s.Send(1, 0, mediatest.Message{CSID: 3, Type: wire.TypeCommand, Body: amf("releaseStream", 0.0, nil, "s")})
	s.Send(1, 0, mediatest.Message{CSID: 3, Type: wire.TypeCommand, Body: amf("FCPublish", 0.0, nil, "s")})
	s.Send(1, 0, mediatest.Message{CSID: 3, Type: wire.TypeCommand, Body: amf("createStream", 2.0, nil)})
	s.command(3, 1, "publish", 0.0, nil, "s")
	s.SetChunkSize(128)
	s.media(0, 0, 4, wire.TypeData, metadata())
	s.media(3, 0, 4, wire.TypeData, metadata())
	s.media(0, 0, 6, wire.TypeVideo, s.body(9000, 0x17, 1))
	s.media(2, 186, 4, wire.TypeData, metadata())
	s.media(3, 186, 4, wire.TypeData, metadata())
}

// likeLarix: enhanced RTMP with all that its connect announces.
func likeLarix(s *session) {
	s.SetChunkSize(8192)
	s.begin(amf0.Object{
		{Key: "pageUrl", Value: "http://page/"},
		{Key: "capsEx", Value: 7.0},
		{Key: "videoFourCcInfoMap", Value: amf0.Object{{Key: "hvc1", Value: 7.0}, {Key: "*", Value: 1.0}}},
		{Key: "x-unknown", Value: amf0.StrictArray{1.0, nil, amf0.Undefined{}}},
	})
	s.media(0, 0, 10, wire.TypeVideo, s.body(100, 0x90, 'h', 'v', 'c', '1'))
	for range 10 {
		s.media(1, 33, 10, wire.TypeVideo, s.body(20000, 0x91, 'h', 'v', 'c', '1', 0, 0, 0))
		s.media(1, 33, 11, wire.TypeAudio, s.body(400, 0xaf, 1))
	}
}

// likeFlash: AMF3 commands, data as AMF3, shared objects, user control, and
// commands that other encoders do not know.
func likeFlash(s *session) {
	s.command(3, 0, "connect", 1.0, amf0.Object{
		{Key: "app", Value: "live"},
		{Key: "flashVer", Value: "WIN 32,0,0,465"},
		{Key: "swfUrl", Value: "http://page/p.swf"},
		{Key: "tcUrl", Value: "rtmp://h/live"},
		{Key: "pageUrl", Value: "http://page/"},
		{Key: "objectEncoding", Value: 3.0},
		{Key: "audioCodecs", Value: 3575.0},
		{Key: "videoCodecs", Value: 252.0},
		{Key: "videoFunction", Value: 1.0},
	}, "an argument of connect")
	s.command3(3, 0, "_checkbw", 2.0, nil)
	s.command3(3, 0, "createStream", 3.0, nil)
	s.command3(3, 0, "getStreamLength", 4.0, nil, "s")
	s.command3(3, 0, "FCSubscribe", 5.0, nil, "s")
	s.command3(3, 0, "custom", 0.0, nil, amf0.Object{{Key: "k", Value: 1.0}})
	s.command3(8, 1, "publish", 0.0, nil, "s", "live")
	s.Send(0, 0, mediatest.Message{CSID: 2, Type: wire.TypeUserControl, Body: append([]byte{0, 3}, append(u32(1), u32(300)...)...)})
	s.media(0, 0, 5, wire.TypeDataAMF3, append([]byte{0}, metadata()...))
	s.media(0, 0, 5, wire.TypeDataAMF3, []byte{0, 0x11, 0x0a, 0x0b, 1}) // AMF3 proper
	s.media(0, 5, 4, 16, s.body(50))                                    // shared object, AMF3
	s.media(0, 6, 4, 19, s.body(50))                                    // and AMF0
	s.media(0, 7, 6, wire.TypeVideo, s.body(1000, 0x12))                // H.263
	s.media(0, 7, 7, wire.TypeAudio, s.body(100, 0xb6))                 // Speex
	s.command3(8, 1, "receiveAudio", 0.0, nil, false)
	s.command3(8, 1, "closeStream", 0.0, nil)
}

// bare: publish and nothing before it but connect.
func bare(s *session) {
	s.command(3, 0, "connect", 1.0, connectObject())
	s.command(3, 0, "publish", 0.0, nil, "s")
	s.media(0, 0, 4, wire.TypeAudio, s.body(100, 0x2f))
}

// alike: a client that counts nothing.
func alike(s *session) {
	s.command(3, 0, "connect", 0.0, connectObject())
	s.command(3, 0, "createStream", 0.0, nil)
	s.command(3, 1, "publish", 0.0, nil, "s")
	s.media(0, 0, 4, wire.TypeAudio, s.body(100, 0x2f))
}

// everyChunkStream uses the ids at which their form changes.
func everyChunkStream(s *session) {
	for i, csid := range []uint32{3, 4, 62, 63, 64, 65, 318, 319, 320, 321, 575, 576, 65535, 65536, 65598, 65599} {
		s.media(0, uint32(i), csid, wire.TypeVideo, s.body(300, 0x27))
		s.media(1, 10, csid, wire.TypeVideo, s.body(200, 0x27))
		s.media(2, 10, csid, wire.TypeVideo, s.body(200, 0x27))
		s.media(3, 10, csid, wire.TypeVideo, s.body(200, 0x27))
	}
}

// interleaved: three messages in turns, with new chunk sizes in their midst.
func interleaved(s *session) {
	video := mediatest.Message{CSID: 6, Type: wire.TypeVideo, StreamID: 1, Body: s.body(20000, 0x17, 1)}
	audio := mediatest.Message{CSID: 400, Type: wire.TypeAudio, StreamID: 1, Body: s.body(900, 0xaf, 1)}
	data := mediatest.Message{CSID: 64, Type: wire.TypeData, StreamID: 1, Body: metadata()}
	for round := range uint32(4) {
		v := s.Start(0, round*40, video)
		a := s.Start(0, round*40+1, audio)
		for i := 0; len(v) > 0; i++ {
			if len(a) > 0 {
				a = s.Continue(audio.CSID, a)
			}
			switch i {
			case 1:
				s.SetChunkSize(1)
			case 5:
				s.Send(0, round*40+2, data)
				s.SetChunkSize(1000 + round)
			case 8:
				s.SetChunkSize(128)
			}
			v = s.Continue(video.CSID, v)
		}
		for len(a) > 0 {
			a = s.Continue(audio.CSID, a)
		}
	}
	// One that is given up: nobody sees it.
	s.Start(0, 500, video)
	s.Send(0, 0, mediatest.Message{CSID: 2, Type: wire.TypeAbort, Body: u32(video.CSID)})
	s.Send(0, 501, audio)
}

// extendedTimestamps: over 24 bits, over the end of 32, and repeated.
func extendedTimestamps(s *session) {
	for _, stamp := range []uint32{0xfffffe, 0xffffff, 0x1000000, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff} {
		s.media(0, stamp, 6, wire.TypeVideo, s.body(1000, 0x27))
		s.media(1, 40, 6, wire.TypeVideo, s.body(1000, 0x27))
		s.media(2, 40, 6, wire.TypeVideo, s.body(1000, 0x27))
		s.media(3, 40, 6, wire.TypeVideo, s.body(1000, 0x27))
	}
	for _, delta := range []uint32{0xfffffe, 0xffffff, 0x1000000} { // gaps of hours
		s.media(1, delta, 6, wire.TypeVideo, s.body(300, 0x27))
		s.media(3, delta, 6, wire.TypeVideo, s.body(300, 0x27))
		s.media(2, delta, 6, wire.TypeVideo, s.body(300, 0x27))
	}
}

// backwards: time that does not go on, as after a seek or from two clocks.
func backwards(s *session) {
	s.media(0, 1000, 6, wire.TypeVideo, s.body(100, 0x27))
	s.media(1, 0xffffffff-99, 6, wire.TypeVideo, s.body(100, 0x27)) // 900
	s.media(0, 10, 6, wire.TypeVideo, s.body(100, 0x27))
	s.media(2, 0xffffffff-19, 6, wire.TypeVideo, s.body(100, 0x27)) // 10 ms before zero
	s.media(0, 0, 6, wire.TypeVideo, s.body(100, 0x27))
}

// enhanced: each fourCC and packet type of enhanced RTMP, audio too.
func enhanced(s *session) {
	s.SetChunkSize(60000)
	stamp := uint32(0)
	for _, codec := range []string{"hvc1", "av01", "vp09", "avc1", "vvc1"} {
		for packet := range byte(8) {
			stamp += 10
			s.media(0, stamp, 6, wire.TypeVideo, s.body(500, append([]byte{0x90 | packet}, codec...)...))
		}
	}
	for _, codec := range []string{"Opus", "fLaC", "ac-3", "ec-3", "mp4a", ".mp3"} {
		stamp += 10
		s.media(0, stamp, 4, wire.TypeAudio, s.body(100, append([]byte{0x91}, codec...)...))
	}
	s.media(0, stamp, 6, wire.TypeVideo, s.body(900, 0x96, 0x21, 'h', 'v', 'c', '1', 1)) // many tracks, one codec
	s.media(0, stamp, 4, wire.TypeAudio, s.body(300, 0x95, 0x21, 'O', 'p', 'u', 's', 2))
	s.media(0, stamp, 6, wire.TypeVideo, s.body(60, 0x97, 1, 2, 3)) // ModEx
}

// oddMessages: what is allowed and seldom seen.
func oddMessages(s *session) {
	s.media(0, 100, 4, wire.TypeAggregate, s.body(3000, wire.TypeVideo, 0, 0, 10))
	s.media(0, 120, 4, wire.TypeAudio, nil)
	s.media(3, 120, 4, wire.TypeAudio, nil)
	s.media(1, 1, 6, wire.TypeVideo, s.body(50)) // begins without a full header
	s.media(0, 121, 6, wire.TypeVideo, []byte{0x17, 2, 0, 0, 0})
	s.media(0, 122, 8, wire.TypeData, amf("onTextData", amf0.Object{{Key: "text", Value: "hello"}}))
	s.media(0, 122, 8, wire.TypeData, []byte{0xff, 0xff}) // no AMF
	s.media(0, 123, 8, wire.TypeCommand, []byte{0xff})    // no command
	s.media(0, 123, 8, 99, s.body(10))                    // no type that anybody knows
	s.Send(0, 124, mediatest.Message{CSID: 4, Type: wire.TypeAudio, StreamID: 7, Body: s.body(10)})
	s.Send(0, 124, mediatest.Message{CSID: 4, Type: wire.TypeAudio, StreamID: 0xfffffffe, Body: s.body(10)})
}

// large: the largest message, and chunks larger than any message.
func large(s *session) {
	s.SetChunkSize(1<<31 - 1)
	s.media(0, 0, 6, wire.TypeVideo, bytes.Repeat([]byte{0x17}, wire.MaxMessage))
	s.media(1, 40, 6, wire.TypeVideo, s.body(1<<20, 0x27))
}

// begun puts what encoders say first before a shape's media.
func begun(media func(*session)) func(*session) {
	return func(s *session) {
		s.begin(nil)
		media(s)
	}
}

// originShapes are what origins send to players after play, up to the end of
// the stream.
func originShapes() map[string][]byte {
	shapes := make(map[string][]byte)
	for name, media := range map[string]func(*session){
		"every chunk stream":         everyChunkStream,
		"interleaved":                interleaved,
		"extended timestamps":        extendedTimestamps,
		"timestamps that go back":    backwards,
		"enhanced RTMP":              enhanced,
		"aggregates, data and empty": oddMessages,
		"large":                      large,
	} {
		s := newSession()
		s.event(0, 1) // stream begin
		s.status("NetStream.Play.Reset")
		s.status("NetStream.Play.Start")
		s.media(0, 0, 5, wire.TypeData, amf("|RtmpSampleAccess", true, true))
		media(s)
		s.event(1, 1) // stream EOF
		s.status("NetStream.Play.UnpublishNotify")
		shapes[name] = s.Bytes()
	}
	return shapes
}

// status sends a status as SRS forms it.
func (s *session) status(code string) {
	s.command(5, 1, "onStatus", 0.0, nil, amf0.Object{
		{Key: "level", Value: "status"},
		{Key: "code", Value: code},
		{Key: "description", Value: "as it is"},
		{Key: "clientid", Value: "ASAICiss"},
	})
}

// event sends a user control event about a stream.
func (s *session) event(kind byte, stream uint32) {
	s.Send(0, 0, mediatest.Message{CSID: 2, Type: wire.TypeUserControl, Body: append([]byte{0, kind}, u32(stream)...)})
}
