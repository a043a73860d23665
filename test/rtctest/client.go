package rtctest

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// Dial says how a client reaches its stream.
type Dial struct {
	URL      string // of WHIP or WHEP, or of SRS's older API
	Stream   string // streamurl of the older API; empty: WHIP or WHEP
	Bearer   string
	Header   http.Header
	Settings func(*webrtc.SettingEngine) // default: UDP over loopback
	// Answer, if set, may change the answer before it is applied.
	Answer func(answer string) string
	// NoCandidates leaves the client's candidates out of the offer.
	NoCandidates bool
	// Every is the time between two packets of a publisher; default 10 ms.
	Every time.Duration
	// H264 publishes what looks like H.264, the codec that SRS prefers; default: VP8.
	H264 bool
}

// MediaAt is an Answer that has a client send its media to another peer than the one
// that answered: both are the host:port of a peer's media on 127.0.0.1.
func MediaAt(from, to string) func(answer string) string {
	port := func(addr string) string { return " " + strings.TrimPrefix(addr, "127.0.0.1:") + " typ host" }
	return func(answer string) string { return strings.ReplaceAll(answer, port(from), port(to)) }
}

// Client is a pion client of a stream.
type Client struct {
	PC       *webrtc.PeerConnection
	Resource string // absolute URL; empty: the answer named none
	Reply    Reply  // to the offer
	Offer    string
	Answer   string

	dial Dial
	ends context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	received []Received // guarded by mu
	states   []webrtc.ICEConnectionState
}

// Received is a packet that came to a player.
type Received struct {
	Sequence uint16
	Number   uint64 // by the publisher's own count
	Took     time.Duration
}

// A payload is a slice of no key frame in H.264, its number and when it was sent.
const (
	packetSize = 1000 // bytes of payload
	sliceType  = 0x61 // NAL unit header
	atNumber   = 1
	atTime     = 9
)

func newClient(dial Dial) (*Client, error) {
	var settings webrtc.SettingEngine
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetICETimeouts(2*time.Second, 8*time.Second, 500*time.Millisecond)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4})
	settings.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	if dial.Settings != nil {
		dial.Settings(&settings)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(settings)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return nil, err
	}
	c := &Client{PC: pc, dial: dial}
	pc.OnICEConnectionStateChange(func(s webrtc.ICEConnectionState) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.states = append(c.states, s)
	})
	return c, nil
}

// Publish publishes numbered packets as video until the test ends.
func Publish(tb testing.TB, dial Dial) *Client {
	tb.Helper()
	c, err := TryPublish(tb, dial)
	if err != nil {
		tb.Fatalf("publish %s: %v", dial.URL, err)
	}
	return c
}

// TryPublish is Publish that may fail.
func TryPublish(tb testing.TB, dial Dial) (*Client, error) {
	tb.Helper()
	c, err := newClient(dial)
	if err != nil {
		return nil, err
	}
	tb.Cleanup(c.Close)
	track, sender, err := c.addTrack()
	if err != nil {
		return nil, err
	}
	if err = c.signal(tb); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.ends = cancel
	c.done.Go(func() { c.send(ctx, track) })
	c.done.Go(func() {
		for {
			if _, _, err := sender.ReadRTCP(); err != nil {
				return
			}
		}
	})
	return c, nil
}

func (c *Client) addTrack() (*webrtc.TrackLocalStaticRTP, *webrtc.RTPSender, error) {
	codec := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}
	if c.dial.H264 {
		codec.MimeType = webrtc.MimeTypeH264
		codec.SDPFmtpLine = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"
	}
	track, err := webrtc.NewTrackLocalStaticRTP(codec, "video", "stream")
	if err != nil {
		return nil, nil, err
	}
	transceiver, err := c.PC.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return nil, nil, err
	}
	if c.dial.H264 {
		const payloadType = 106 // pion's for this profile
		err = transceiver.SetCodecPreferences([]webrtc.RTPCodecParameters{{RTPCodecCapability: codec, PayloadType: payloadType}})
	}
	return track, transceiver.Sender(), err
}

func (c *Client) send(ctx context.Context, track *webrtc.TrackLocalStaticRTP) {
	every := c.dial.Every
	if every == 0 {
		every = 10 * time.Millisecond
	}
	pace := time.NewTicker(every)
	defer pace.Stop()
	payload := make([]byte, packetSize)
	payload[0] = sliceType
	for n := uint64(0); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		binary.BigEndian.PutUint64(payload[atNumber:], n)
		binary.BigEndian.PutUint64(payload[atTime:], uint64(time.Now().UnixNano()))
		_ = track.WriteRTP(&rtp.Packet{
			Header:  rtp.Header{Version: 2, SequenceNumber: uint16(n), Timestamp: uint32(n * uint64(90*every/time.Millisecond)), Marker: true},
			Payload: payload,
		})
	}
}

// Play plays a stream and keeps what comes until the test ends.
func Play(tb testing.TB, dial Dial) *Client {
	tb.Helper()
	c, err := TryPlay(tb, dial)
	if err != nil {
		tb.Fatalf("play %s: %v", dial.URL, err)
	}
	return c
}

// TryPlay is Play that may fail.
func TryPlay(tb testing.TB, dial Dial) (*Client, error) {
	tb.Helper()
	c, err := newClient(dial)
	if err != nil {
		return nil, err
	}
	tb.Cleanup(c.Close)
	_, err = c.PC.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
	if err != nil {
		return nil, err
	}
	c.PC.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := track.ReadRTP()
			if err != nil {
				return
			}
			if len(p.Payload) != packetSize {
				continue
			}
			sent := time.Unix(0, int64(binary.BigEndian.Uint64(p.Payload[atTime:])))
			c.mu.Lock()
			c.received = append(c.received, Received{p.SequenceNumber, binary.BigEndian.Uint64(p.Payload[atNumber:]), time.Since(sent)})
			c.mu.Unlock()
		}
	})
	return c, c.signal(tb)
}

// signal does offer and answer.
func (c *Client) signal(tb testing.TB) error {
	tb.Helper()
	offer, err := c.PC.CreateOffer(nil)
	if err != nil {
		return err
	}
	gathered := webrtc.GatheringCompletePromise(c.PC)
	if err = c.PC.SetLocalDescription(offer); err != nil {
		return err
	}
	<-gathered
	c.Offer = c.PC.LocalDescription().SDP
	if c.dial.NoCandidates {
		c.Offer = offer.SDP
	}
	if c.dial.Stream != "" {
		err = c.askLegacy()
	} else {
		err = c.ask()
	}
	if err != nil {
		return err
	}
	answer := c.Answer
	if c.dial.Answer != nil {
		answer = c.dial.Answer(answer)
	}
	return c.PC.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer})
}

// ask is WHIP and WHEP.
func (c *Client) ask() (err error) {
	c.Reply, err = Call(http.MethodPost, c.dial.URL, c.Offer, c.dial.header("application/sdp"))
	if err != nil {
		return err
	}
	c.Answer = c.Reply.Body
	if c.Reply.Status != http.StatusCreated {
		return fmt.Errorf("status %d: %s", c.Reply.Status, c.Answer)
	}
	if location := c.Reply.Header.Get("Location"); location != "" {
		at, err := c.Reply.URL.Parse(location)
		if err != nil {
			return err
		}
		c.Resource = at.String()
	}
	return nil
}

// askLegacy is SRS's older API.
func (c *Client) askLegacy() error {
	body, err := json.Marshal(map[string]string{"api": c.dial.URL, "streamurl": c.dial.Stream, "sdp": c.Offer})
	if err != nil {
		return err
	}
	c.Reply, err = Call(http.MethodPost, c.dial.URL, string(body), c.dial.header("application/json"))
	if err != nil {
		return err
	}
	var said struct {
		Code int
		SDP  string
	}
	if err = json.Unmarshal([]byte(c.Reply.Body), &said); err != nil || c.Reply.Status != http.StatusOK || said.Code != 0 {
		return fmt.Errorf("status %d: %s", c.Reply.Status, c.Reply.Body)
	}
	c.Answer = said.SDP
	return nil
}

func (d Dial) header(contentType string) http.Header {
	h := d.Header.Clone()
	if h == nil {
		h = make(http.Header)
	}
	h.Set("Content-Type", contentType)
	if d.Bearer != "" {
		h.Set("Authorization", "Bearer "+d.Bearer)
	}
	return h
}

// Reply is an answer of HTTP, whole.
type Reply struct {
	Status int
	Header http.Header
	Body   string
	URL    *url.URL // that was asked
}

// Call makes a request.
func Call(method, to, body string, header http.Header) (Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(body))
	if err != nil {
		return Reply{}, err
	}
	if header != nil {
		request.Header = header
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return Reply{}, err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	return Reply{response.StatusCode, response.Header, string(b), response.Request.URL}, err
}

// ResourceAt returns the client's resource at another peer, host:port.
func (c *Client) ResourceAt(host string) string {
	u, err := url.Parse(c.Resource)
	if err != nil {
		return ""
	}
	u.Host = host
	return u.String()
}

// Delete ends the session by its resource and returns the status.
func (c *Client) Delete(tb testing.TB, resource string) int {
	tb.Helper()
	reply, err := Call(http.MethodDelete, resource, "", c.dial.header(""))
	if err != nil {
		tb.Fatalf("DELETE %s: %v", resource, err)
	}
	return reply.Status
}

// Restart restarts ICE by a PATCH of the resource.
func (c *Client) Restart(tb testing.TB, resource string) {
	tb.Helper()
	offer, err := c.PC.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	if err != nil {
		tb.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(c.PC)
	if err = c.PC.SetLocalDescription(offer); err != nil {
		tb.Fatal(err)
	}
	<-gathered
	local := c.PC.LocalDescription().SDP
	var fragment strings.Builder
	fmt.Fprintf(&fragment, "a=ice-ufrag:%s\r\na=ice-pwd:%s\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n",
		attribute(local, "ice-ufrag"), attribute(local, "ice-pwd"))
	for line := range strings.Lines(local) {
		if strings.HasPrefix(line, "a=candidate:") {
			fragment.WriteString(line)
		}
	}
	reply, err := Call(http.MethodPatch, resource, fragment.String(), c.dial.header("application/trickle-ice-sdpfrag"))
	if err != nil || reply.Status != http.StatusOK {
		tb.Fatalf("PATCH %s: %v, %d %s", resource, err, reply.Status, reply.Body)
	}
	var answer strings.Builder
	for line := range strings.Lines(c.PC.RemoteDescription().SDP) {
		switch {
		case strings.HasPrefix(line, "a=ice-ufrag:"):
			line = "a=ice-ufrag:" + attribute(reply.Body, "ice-ufrag") + "\r\n"
		case strings.HasPrefix(line, "a=ice-pwd:"):
			line = "a=ice-pwd:" + attribute(reply.Body, "ice-pwd") + "\r\n"
		}
		answer.WriteString(line)
	}
	if err = c.PC.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer.String()}); err != nil {
		tb.Fatalf("answer to the restart: %v", err)
	}
}

// Received returns the packets so far.
func (c *Client) Received() []Received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Received(nil), c.received...)
}

// States returns the states of ICE so far.
func (c *Client) States() []webrtc.ICEConnectionState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]webrtc.ICEConnectionState(nil), c.states...)
}

// Close ends the client.
func (c *Client) Close() {
	if c.ends != nil {
		c.ends()
	}
	_ = c.PC.Close()
	c.done.Wait()
}
