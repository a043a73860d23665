package rtctest

import (
	"crypto/tls"
	"fmt"
	"hash/fnv"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/srtp/v3"
)

// liteSession is DTLS and SRTP with one client, over datagrams of the engine's.
type liteSession struct {
	engine   *lite
	session  *session
	ufrag    string
	password string
	media    map[string]*liteMedia // by kind
	packets  chan []byte           // of DTLS
	done     chan struct{}
	once     sync.Once

	mu        sync.Mutex
	link      link          // guarded by mu, as all below: of the last check
	in, out   *srtp.Context // nil: no handshake yet
	videoSSRC uint32        // of what the client sends
}

// liteMedia is one media of an answer.
type liteMedia struct {
	kind    string
	payload uint8
	ssrc    uint32 // of what is sent to the client
}

const liteProfile = dtls.SRTP_AES128_CM_HMAC_SHA1_80

func newLiteSession(e *lite, s *session, offer, ufrag, password string) (*liteSession, string, error) {
	var o sdp.SessionDescription
	if err := o.UnmarshalString(offer); err != nil {
		return nil, "", err
	}
	state := &liteSession{
		engine: e, session: s, ufrag: ufrag, password: password, media: make(map[string]*liteMedia),
		packets: make(chan []byte, 256), done: make(chan struct{}),
	}
	var b strings.Builder
	b.WriteString("v=0\r\no=SRS/7.0.18(Kai) 107408542208384 2 IN IP4 0.0.0.0\r\ns=SRSPublishSession\r\nt=0 0\r\na=ice-lite\r\n")
	if group, ok := o.Attribute("group"); ok {
		b.WriteString("a=group:" + group + "\r\n")
	}
	b.WriteString("a=msid-semantic: WMS " + s.stream + "\r\n")
	for _, m := range o.MediaDescriptions {
		state.answerMedia(&b, m)
	}
	return state, b.String(), nil
}

// answerMedia writes one media as SRS does: the first codec that it knows.
func (s *liteSession) answerMedia(b *strings.Builder, m *sdp.MediaDescription) {
	kind := m.MediaName.Media
	codecs := map[string][]string{"audio": {"opus/48000/2"}, "video": {"VP8/90000", "H264/90000"}}[kind]
	payload, codec := "", ""
	for _, want := range codecs {
		for _, a := range m.Attributes {
			if p, c := cut(a.Value, " "); a.Key == "rtpmap" && codec == "" && strings.EqualFold(c, want) {
				payload, codec = p, c
			}
		}
	}
	mid, _ := m.Attribute("mid")
	if codec == "" {
		fmt.Fprintf(b, "m=%s 0 %s %s\r\nc=IN IP4 0.0.0.0\r\na=mid:%s\r\na=inactive\r\n", kind, strings.Join(m.MediaName.Protos, "/"), m.MediaName.Formats[0], mid)
		return
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(s.session.stream + kind))
	media := &liteMedia{kind: kind, payload: uint8(atoi(payload)), ssrc: hash.Sum32()}
	s.media[kind] = media
	fmt.Fprintf(b, "m=%s 9 %s %s\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:%s\r\na=ice-pwd:%s\r\na=fingerprint:sha-256 %s\r\na=setup:passive\r\na=mid:%s\r\n",
		kind, strings.Join(m.MediaName.Protos, "/"), payload, s.ufrag, s.password, s.engine.fingerprint, mid)
	if s.session.publish {
		b.WriteString("a=recvonly\r\n")
	} else {
		b.WriteString("a=sendonly\r\n")
	}
	fmt.Fprintf(b, "a=rtcp-mux\r\na=rtcp-rsize\r\na=rtpmap:%s %s\r\n", payload, codec)
	if kind == "video" {
		fmt.Fprintf(b, "a=rtcp-fb:%[1]s nack\r\na=rtcp-fb:%[1]s nack pli\r\n", payload)
	}
	if !s.session.publish {
		fmt.Fprintf(b, "a=ssrc:%[1]d cname:%[2]s\r\na=ssrc:%[1]d msid:live %[2]s\r\n", media.ssrc, kind)
	}
	at := addrPort(s.engine.origin.udp.LocalAddr())
	fmt.Fprintf(b, "a=candidate:0 1 udp 2130706431 %s %d typ host generation 0\r\n", at.Addr(), at.Port())
}

func (s *liteSession) setLink(l link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.link = l
}

// send sends to the address of the last check.
func (s *liteSession) send(b []byte) {
	s.mu.Lock()
	to := s.link
	s.mu.Unlock()
	s.engine.send(to, b)
}

// receive takes DTLS, SRTP or SRTCP.
func (s *liteSession) receive(b []byte) {
	if len(b) < 2 {
		return
	}
	if b[0] >= 20 && b[0] < 64 {
		select {
		case s.packets <- b:
		default: // as a network would
		}
		return
	}
	if b[1] >= 192 && b[1] < 224 {
		s.receiveRTCP(b)
	} else if p, kind := s.decrypt(b); p != nil {
		s.engine.origin.hub.spread(s.session, kind, p)
	}
}

// decrypt returns a packet of a media that was agreed on; nil for any other.
func (s *liteSession) decrypt(b []byte) (p *rtp.Packet, kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.in == nil {
		return nil, ""
	}
	plain, err := s.in.DecryptRTP(nil, b, nil)
	p = &rtp.Packet{}
	if err != nil || p.Unmarshal(plain) != nil {
		return nil, ""
	}
	for _, m := range s.media {
		if m.payload == p.PayloadType {
			if m.kind == "video" {
				s.videoSSRC = p.SSRC
			}
			return p, m.kind
		}
	}
	return nil, ""
}

func (s *liteSession) receiveRTCP(b []byte) {
	s.mu.Lock()
	if s.in == nil {
		s.mu.Unlock()
		return
	}
	plain, err := s.in.DecryptRTCP(nil, b, nil)
	s.mu.Unlock()
	if err != nil {
		return
	}
	packets, err := rtcp.Unmarshal(plain)
	if err != nil {
		return
	}
	if slices.ContainsFunc(packets, func(p rtcp.Packet) bool { _, is := p.(*rtcp.PictureLossIndication); return is }) {
		s.engine.origin.hub.wantKeyFrame(s.session)
	}
}

func (s *liteSession) deliver(kind string, p *rtp.Packet) {
	m := s.media[kind]
	if m == nil {
		return
	}
	header := p.Header.Clone()
	header.PayloadType, header.SSRC = m.payload, m.ssrc
	header.Extension, header.Extensions = false, nil
	plain, err := (&rtp.Packet{Header: header, Payload: p.Payload}).Marshal()
	if err != nil {
		return
	}
	s.mu.Lock()
	if s.out == nil {
		s.mu.Unlock()
		return
	}
	b, err := s.out.EncryptRTP(nil, plain, nil)
	s.mu.Unlock()
	if err == nil {
		s.send(b)
	}
}

func (s *liteSession) askForKeyFrame() {
	s.mu.Lock()
	if s.out == nil {
		s.mu.Unlock()
		return
	}
	plain, err := (&rtcp.PictureLossIndication{MediaSSRC: s.videoSSRC}).Marshal()
	if err == nil {
		plain, err = s.out.EncryptRTCP(nil, plain, nil)
	}
	s.mu.Unlock()
	if err == nil {
		s.send(plain)
	}
}

// run does the handshake, and then waits for the client's goodbye.
func (s *liteSession) run() {
	conn, err := dtls.Server(dtlsConn{s}, &net.UDPAddr{IP: net.IPv4zero, Port: 1}, &dtls.Config{ //nolint:staticcheck // the options have no more for this
		Certificates: []tls.Certificate{s.engine.certificate}, SRTPProtectionProfiles: []dtls.SRTPProtectionProfile{liteProfile},
		ClientAuth: dtls.RequireAnyClientCert, FlightInterval: 100 * time.Millisecond,
	})
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	if conn.Handshake() != nil {
		return
	}
	state, ok := conn.ConnectionState()
	if !ok {
		return
	}
	config := srtp.Config{Profile: srtp.ProtectionProfileAes128CmHmacSha1_80}
	if config.ExtractSessionKeysFromDTLS(&state, false) != nil {
		return
	}
	in, err := srtp.CreateContext(config.Keys.RemoteMasterKey, config.Keys.RemoteMasterSalt, config.Profile)
	if err != nil {
		return
	}
	out, err := srtp.CreateContext(config.Keys.LocalMasterKey, config.Keys.LocalMasterSalt, config.Profile)
	if err != nil {
		return
	}
	s.mu.Lock()
	s.in, s.out = in, out
	s.mu.Unlock()
	_, _ = conn.Read(make([]byte, 2048)) // nothing but the end of it
	s.engine.origin.end(s.session)
}

func (s *liteSession) close() { s.once.Do(func() { close(s.done) }) }

// dtlsConn is a session's datagrams of DTLS as a net.PacketConn.
type dtlsConn struct{ *liteSession }

func (c dtlsConn) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-c.packets:
		return copy(b, p), &net.UDPAddr{IP: net.IPv4zero, Port: 1}, nil
	case <-c.done:
		return 0, nil, io.EOF
	}
}

func (c dtlsConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case <-c.done:
		return 0, net.ErrClosed
	default:
		c.send(append([]byte(nil), b...))
		return len(b), nil
	}
}

func (c dtlsConn) Close() error {
	c.close()
	return nil
}
func (dtlsConn) LocalAddr() net.Addr              { return &net.UDPAddr{IP: net.IPv4zero, Port: 2} }
func (dtlsConn) SetDeadline(time.Time) error      { return nil }
func (dtlsConn) SetReadDeadline(time.Time) error  { return nil }
func (dtlsConn) SetWriteDeadline(time.Time) error { return nil }

func cut(text, sep string) (before, after string) {
	before, after, _ = strings.Cut(text, sep)
	return before, after
}
