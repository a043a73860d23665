package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"

	pion "github.com/pion/webrtc/v4"

	"srsx/test/peertest"
	"srsx/test/rtctest"
)

func TestOlderAPIOfSRS(t *testing.T) {
	eachWebRTC(t, func(t *testing.T, peer *peertest.Peer) {
		api := "http://" + peer.API + "/rtc/v1/"
		url := "webrtc://" + peer.API + "/live/cam?token=t0p"
		publisher := rtctest.Publish(t, rtctest.Dial{URL: api + "publish/", Stream: url, H264: true})
		player := rtctest.Play(t, rtctest.Dial{URL: api + "play/", Stream: url})
		requireFlowing(t, player, 0, 100)
		if got := peer.Placements(t); len(got) != 1 || got["live/cam"].Origin == "" {
			t.Errorf("placements = %v; want live/cam", got)
		}
		for name, text := range map[string]string{"sdp": publisher.Reply.Body, "sessionid": publisher.Reply.Body} {
			if !strings.Contains(text, `"`+name+`"`) {
				t.Errorf("the envelope %s lacks %s", text, name)
			}
		}
		// There is no call to end a session: it ends with its client.
		player.Close()
		publisher.Close()
		requireNoWebRTC(t, peer)
	})
}

// Origins of other makes have paths of their own, and clients ask in their form
// or in SRS's.
func TestWebRTCByPathTemplates(t *testing.T) {
	for name, paths := range map[string]rtctest.Config{
		"MediaMTX": {WHIP: "/{app}/{stream}/whip", WHEP: "/{app}/{stream}/whep"},
		"LiveKit":  {WHIP: "/w/{stream}", WHEP: "/r/{stream}"},
	} {
		t.Run(name, func(t *testing.T) {
			config := paths
			config.Server, config.Full = "vid-e2e0002", true
			peer := peertest.Start(t, peertest.Options{Config: fmt.Sprintf(
				"origins: [{id: %s, address: 127.0.0.1, whip: %q, whep: %q}]\n", config.Server, config.WHIP, config.WHEP)})
			config.Register = peer.Register()
			origin := rtctest.Start(t, config)
			peer.AwaitOrigins(t, 1)
			publisher := rtctest.Publish(t, rtctest.Dial{URL: "http://" + peer.API + "/live/cam/whip"})
			player := rtctest.Play(t, rtctest.Dial{URL: "http://" + peer.API + whep})
			requireUnbroken(t, player, 50)
			general := rtctest.Play(t, rtctest.Dial{URL: "http://" + peer.API + "/live/cam/whep"})
			requireUnbroken(t, general, 50)
			requireDeleted(t, general, player, publisher)
			if n := origin.Sessions(); n != 0 {
				t.Errorf("%d sessions at the origin after DELETE; want none", n)
			}
			requireNoWebRTC(t, peer)
		})
	}
}

// A client may ask an origin with SRS's paths in the form of others.
func TestGeneralFormReachesSRS(t *testing.T) {
	eachWebRTC(t, func(t *testing.T, peer *peertest.Peer) {
		publisher := rtctest.Publish(t, rtctest.Dial{URL: "http://" + peer.API + "/live/cam/whip", H264: true})
		player := rtctest.Play(t, rtctest.Dial{URL: "http://" + peer.API + "/live/cam/whep"})
		requireFlowing(t, player, 0, 50)
		requireDeleted(t, player, publisher)
		requireNoWebRTC(t, peer)
	})
}

func TestWebRTCOverIPv6(t *testing.T) {
	ports := peertest.FreePorts(t)
	_, port, err := net.SplitHostPort(ports.RTC)
	if err != nil {
		t.Fatal(err)
	}
	ports.RTC = ":" + port
	peer := peertest.Start(t, peertest.Options{Ports: ports, Flags: []string{"-rtc-candidate", "::1"}})
	rtctest.Start(t, rtctest.Config{Register: peer.Register()})
	peer.AwaitOrigins(t, 1)
	// pion has no candidate for ::1 of its own accord.
	over6 := func(s *pion.SettingEngine) {
		conn, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		s.SetNetworkTypes([]pion.NetworkType{pion.NetworkTypeUDP6})
		s.SetICEUDPMux(pion.NewICEUDPMux(nil, conn))
	}
	rtctest.Publish(t, rtctest.Dial{URL: "http://" + peer.API + whip, Settings: over6})
	player := rtctest.Play(t, rtctest.Dial{URL: "http://" + peer.API + whep, Settings: over6})
	requireUnbroken(t, player, 100)
}
