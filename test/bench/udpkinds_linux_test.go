package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/pion/stun/v4"
	"golang.org/x/sys/unix"

	"srsx/proxy/srt/wire"
	"srsx/proxy/webrtc/sdp"
	"srsx/test/peertest"
)

// udpKind is a protocol of media.
type udpKind struct {
	name string
	size int // of a datagram, in bytes
	// header writes what a receiver is addressed by.
	header func(b []byte, id uint32, number uint64)
	// answer is the origin's, to what is no media; nil: none.
	answer func(p []byte) []byte
	// joins returns how a client comes in at a peer.
	joins func(tb testing.TB, p *peertest.Peer, to direction) func(f *udpFlow, stream string) error
}

func udpKinds() []udpKind {
	return []udpKind{
		{"SRT", 1332, srtHeader, srtAnswer, joinSRT}, // seven packets of TS
		{"WebRTC", 1212, rtpHeader, nil, joinWebRTC},
	}
}

func srtHeader(b []byte, id uint32, number uint64) {
	binary.BigEndian.PutUint32(b, uint32(number)&^(1<<31))
	binary.BigEndian.PutUint32(b[4:], 3<<30) // a message of its own
	binary.BigEndian.PutUint32(b[12:], id)
}

func rtpHeader(b []byte, id uint32, number uint64) {
	b[0], b[1] = 0x80, 96
	binary.BigEndian.PutUint16(b[2:], uint16(number))
	binary.BigEndian.PutUint32(b[8:], id)
}

// cookieOfOrigin is what makes an answered induction out of a handshake.
const cookieOfOrigin = 0x5a5a5a5a

// srtAnswer answers handshakes as far as a relay looks at them.
func srtAnswer(p []byte) []byte {
	h, err := wire.ParseHandshake(p)
	if err != nil {
		return nil
	}
	client := h.SocketID
	if h.Kind == wire.Induction {
		return h.Induced(cookieOfOrigin).Append(nil)
	}
	h.Destination, h.SocketID, h.Extension = client, originID(client), 0
	return h.Append(nil)
}

// joinSRT has callers do the handshake.
func joinSRT(_ testing.TB, _ *peertest.Peer, to direction) func(*udpFlow, string) error {
	mode := [...]string{up: "publish", down: "request"}[to]
	return func(f *udpFlow, stream string) error {
		if err := giveUpReading(f.socket, unix.Timeval{Sec: 3}); err != nil {
			return err
		}
		h := wire.Handshake{SocketID: f.id, MTU: 1500, Window: 8192}.Inducing()
		h, err := say(f.socket, h.Append(nil))
		if err != nil {
			return fmt.Errorf("induction: %w", err)
		}
		if !h.Induces() {
			return fmt.Errorf("induction is answered by %+v", h)
		}
		const config = 4 // there is a stream id
		h.Destination, h.SocketID, h.Kind, h.Extension = 0, f.id, wire.Conclusion, config
		conclusion := appendStreamID(h.Append(nil), fmt.Sprintf("#!::h=127.0.0.1,r=live/%s,m=%s", stream, mode))
		if h, err = say(f.socket, conclusion); err != nil {
			return fmt.Errorf("conclusion: %w", err)
		}
		if h.Kind != wire.Conclusion || h.SocketID != f.originID {
			return fmt.Errorf("conclusion is answered by %+v", h)
		}
		return nil
	}
}

// appendStreamID appends the extension: words whose bytes are reversed.
func appendStreamID(p []byte, id string) []byte {
	for len(id)%4 != 0 {
		id += "\x00"
	}
	p = append(p, 0, 5, 0, byte(len(id)/4))
	for word := range slices.Chunk([]byte(id), 4) {
		slices.Reverse(word)
		p = append(p, word...)
	}
	return p
}

// say sends a handshake and returns the answer.
func say(socket int, p []byte) (wire.Handshake, error) {
	if _, err := unix.Write(socket, p); err != nil {
		return wire.Handshake{}, err
	}
	b := make([]byte, wire.MaxHandshake)
	for {
		n, err := unix.Read(socket, b)
		switch {
		case err == nil:
			return wire.ParseHandshake(b[:n])
		case !errors.Is(err, unix.EINTR):
			return wire.Handshake{}, err
		}
	}
}

const description = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=ice-lite\r\n" +
	"m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:%s\r\na=ice-pwd:%s\r\n" +
	"a=setup:%s\r\na=mid:0\r\na=rtcp-mux\r\na=rtpmap:96 H264/90000\r\n"

// joinWebRTC has clients make their offers; what opens the relay to a client is
// its first check, which carries the answer's credentials.
func joinWebRTC(tb testing.TB, p *peertest.Peer, to direction) func(*udpFlow, string) error {
	tb.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: joiners}
	tb.Cleanup(transport.CloseIdleConnections)
	path := [...]string{up: "whip", down: "whep"}[to]
	return func(f *udpFlow, stream string) error {
		own := fmt.Sprintf("c%08x", f.id)
		offer := strings.NewReader(fmt.Sprintf(description, own, strings.Repeat("p", 24), "actpass"))
		request, err := http.NewRequestWithContext(context.Background(), http.MethodPost,
			fmt.Sprintf("http://%s/rtc/v1/%s/?app=live&stream=%s", p.API, path, stream), offer)
		if err != nil {
			return err
		}
		request.Header.Set("Content-Type", "application/sdp")
		response, err := transport.RoundTrip(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		answer, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusCreated {
			return fmt.Errorf("%s is answered by %s: %s %w", path, response.Status, answer, err)
		}
		credentials, ok := sdp.CredentialsOf(answer)
		if !ok {
			return errors.New("answer has no credentials")
		}
		f.check, err = checkBy(credentials, own)
		return err
	}
}

// nominates is the attribute without which a relay has to guess the path.
type nominates struct{}

// AddTo implements [stun.Setter].
func (nominates) AddTo(m *stun.Message) error {
	m.Add(stun.AttrUseCandidate, nil)
	return nil
}

func checkBy(c sdp.Credentials, own string) ([]byte, error) {
	m, err := stun.Build(stun.TransactionID, stun.BindingRequest, stun.NewUsername(c.Ufrag+":"+own), nominates{},
		stun.NewShortTermIntegrity(c.Password), stun.Fingerprint)
	if err != nil {
		return nil, err
	}
	return m.Raw, nil
}

// startAPI runs the origin's API until the test ends and returns host:port. It
// answers offers by the credentials that it is asked to use, as SRS does.
func startAPI(tb testing.TB) string {
	tb.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		w.Header().Set("Content-Type", "application/sdp")
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprintf(w, description, q.Get("ice-ufrag"), q.Get("ice-pwd"), "passive")
	}))
	tb.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// portOf returns the port of host:port.
func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}
