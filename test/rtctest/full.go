package rtctest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// full is an engine with full ICE, made of pion: it checks what it knows of the
// client, and would send there.
type full struct {
	origin *Origin
	api    *webrtc.API
}

func newFull(tb testing.TB, o *Origin) *full {
	tb.Helper()
	var settings webrtc.SettingEngine
	settings.SetICEUDPMux(ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: o.udp}))
	settings.SetIncludeLoopbackCandidate(true)
	settings.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	var media webrtc.MediaEngine
	if err := media.RegisterDefaultCodecs(); err != nil {
		tb.Fatal(err)
	}
	var interceptors interceptor.Registry
	if err := webrtc.RegisterDefaultInterceptors(&media, &interceptors); err != nil {
		tb.Fatal(err)
	}
	return &full{origin: o, api: webrtc.NewAPI(
		webrtc.WithSettingEngine(settings), webrtc.WithMediaEngine(&media), webrtc.WithInterceptorRegistry(&interceptors),
	)}
}

// fullSession is a peer connection and what it plays.
type fullSession struct {
	pc     *webrtc.PeerConnection
	offer  string
	tracks map[string]*webrtc.TrackLocalStaticRTP // by kind

	mu   sync.Mutex
	ssrc uint32 // guarded by mu; of the video that comes in
}

func (e *full) answer(s *session, offer, _, _ string) (string, error) {
	pc, err := e.api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		return "", err
	}
	state := &fullSession{pc: pc, offer: offer, tracks: make(map[string]*webrtc.TrackLocalStaticRTP)}
	if s.publish {
		pc.OnTrack(func(track *webrtc.TrackRemote, _ *webrtc.RTPReceiver) { e.take(s, state, track) })
	} else if err = e.addTracks(s, state, offer); err != nil {
		return "", err
	}
	s.state = state
	answer, err := state.negotiate(offer)
	if err != nil {
		_ = pc.Close()
		return "", err
	}
	return answer, nil
}

func (state *fullSession) negotiate(offer string) (string, error) {
	if err := state.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: offer}); err != nil {
		return "", err
	}
	answer, err := state.pc.CreateAnswer(nil)
	if err != nil {
		return "", err
	}
	gathered := webrtc.GatheringCompletePromise(state.pc)
	if err = state.pc.SetLocalDescription(answer); err != nil {
		return "", err
	}
	<-gathered
	return state.pc.LocalDescription().SDP, nil
}

func (e *full) take(s *session, state *fullSession, track *webrtc.TrackRemote) {
	if track.Kind() == webrtc.RTPCodecTypeVideo {
		state.mu.Lock()
		state.ssrc = uint32(track.SSRC())
		state.mu.Unlock()
	}
	for {
		p, _, err := track.ReadRTP()
		if err != nil {
			return
		}
		e.origin.hub.spread(s, track.Kind().String(), p)
	}
}

func (e *full) addTracks(s *session, state *fullSession, offer string) error {
	for kind, mime := range map[string]string{"video": webrtc.MimeTypeVP8, "audio": webrtc.MimeTypeOpus} {
		if !strings.Contains(offer, "m="+kind+" ") {
			continue
		}
		track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: mime}, kind, "stream")
		if err != nil {
			return err
		}
		sender, err := state.pc.AddTrack(track)
		if err != nil {
			return err
		}
		state.tracks[kind] = track
		e.origin.done.Go(func() {
			for {
				packets, _, err := sender.ReadRTCP()
				if err != nil {
					return
				}
				for _, p := range packets {
					if _, ok := p.(*rtcp.PictureLossIndication); ok {
						e.origin.hub.wantKeyFrame(s)
					}
				}
			}
		})
	}
	return nil
}

func (state *fullSession) deliver(kind string, p *rtp.Packet) {
	if track := state.tracks[kind]; track != nil {
		_ = track.WriteRTP(p.Clone())
	}
}

func (state *fullSession) askForKeyFrame() {
	state.mu.Lock()
	ssrc := state.ssrc
	state.mu.Unlock()
	_ = state.pc.WriteRTCP([]rtcp.Packet{&rtcp.PictureLossIndication{MediaSSRC: ssrc}})
}

// restart puts the fragment's credentials into the first offer.
func (e *full) restart(s *session, fragment string) (string, error) {
	state, ok := s.state.(*fullSession)
	ufrag, password := attribute(fragment, "ice-ufrag"), attribute(fragment, "ice-pwd")
	if !ok || ufrag == "" {
		return "", nil // candidates only
	}
	if strings.Contains(fragment, "a=candidate:") {
		return "", errors.New("the origin learns the client's addresses")
	}
	var offer strings.Builder
	for line := range strings.Lines(state.offer) {
		switch {
		case strings.HasPrefix(line, "a=ice-ufrag:"):
			line = "a=ice-ufrag:" + ufrag + "\r\n"
		case strings.HasPrefix(line, "a=ice-pwd:"):
			line = "a=ice-pwd:" + password + "\r\n"
		}
		offer.WriteString(line)
	}
	answer, err := state.negotiate(offer.String())
	if err != nil {
		return "", err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "a=ice-ufrag:%s\r\na=ice-pwd:%s\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n",
		attribute(answer, "ice-ufrag"), attribute(answer, "ice-pwd"))
	for line := range strings.Lines(answer) {
		if strings.HasPrefix(line, "a=candidate:") {
			out.WriteString(line)
		}
	}
	return out.String(), nil
}

func (*full) close(s *session) {
	if state, ok := s.state.(*fullSession); ok {
		_ = state.pc.Close()
	}
}
