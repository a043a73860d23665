package e2e

import (
	"os"
	"regexp"
	"testing"
	"time"

	"srsx/test/peertest"
	"srsx/test/rtctest"
	"srsx/test/srttest"
)

// eachWebRTC is eachSRS for WebRTC.
func eachWebRTC(t *testing.T, test func(t *testing.T, peer *peertest.Peer)) {
	t.Helper()
	imitate := func(t *testing.T, peer *peertest.Peer) srs {
		t.Helper()
		rtctest.Start(t, rtctest.Config{Server: "vid-e2e0001", Register: peer.Register()})
		return srs{}
	}
	eachOf(t, imitate, func(t *testing.T, peer *peertest.Peer, _ srs) { test(t, peer) })
}

func TestSRSCarriesWebRTC(t *testing.T) {
	eachWebRTC(t, func(t *testing.T, peer *peertest.Peer) {
		publisher := rtctest.Publish(t, rtctest.Dial{URL: "http://" + peer.API + whip, H264: true})
		player := rtctest.Play(t, rtctest.Dial{URL: "http://" + peer.API + whep})
		requireFlowing(t, player, 0, 100)
		for _, c := range []*rtctest.Client{player, publisher} {
			if route := regexp.MustCompile(`(?m)^a=ice-ufrag:[a-z2-7]{32}\r$`); !route.MatchString(c.Answer) {
				t.Errorf("the answer is\n%s; want a ufrag that is a route", c.Answer)
			}
		}
		requireDeleted(t, player, publisher)
		requireNoWebRTC(t, peer)
	})
}

func TestSRSCarriesSRT(t *testing.T) {
	imitated := srttest.StartOrigin(t, srttest.OriginConfig{})
	starts := map[string]func(*testing.T) *peertest.Peer{
		"imitation": func(t *testing.T) *peertest.Peer { t.Helper(); return srtPeer(t, imitated) },
	}
	if os.Getenv("SRS_BIN") != "" {
		starts["SRS_BIN"] = func(t *testing.T) *peertest.Peer {
			t.Helper()
			peer := peertest.Start(t, peertest.Options{Config: srsConfig})
			realSRS(t, peer)
			peer.AwaitOrigins(t, 1)
			return peer
		}
	}
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			peer := start(t)
			encodeSRT(t, peer.SRT, srttest.Publish("live/cam"))
			peertest.Eventually(t, 20*time.Second, "publisher", publishing(t, peer, "live/cam"))
			requireContinuous(t, decodeSRT(t, peer.SRT, srttest.Request("live/cam"), 3), 3)
		})
	}
}
