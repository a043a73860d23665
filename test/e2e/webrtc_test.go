package e2e

import (
	"net/http"
	"testing"
	"time"

	"srsx/test/peertest"
	"srsx/test/rtctest"
)

const (
	whip = "/rtc/v1/whip/?app=live&stream=cam"
	whep = "/rtc/v1/whep/?app=live&stream=cam"
)

// requireUnbroken waits for n more packets and wants each of them in its order.
func requireUnbroken(t *testing.T, player *rtctest.Client, n int) {
	t.Helper()
	before := len(player.Received())
	peertest.Eventually(t, 30*time.Second, "packets at the player", func() bool { return len(player.Received()) >= before+n })
	all := player.Received()
	for i, got := range all[1:] {
		if last := all[i]; got.Sequence != last.Sequence+1 || got.Number != last.Number+1 {
			t.Fatalf("packet %d has sequence %d, number %d; the one before %d, %d", i, got.Sequence, got.Number, last.Sequence, last.Number)
		}
	}
}

// requireDeleted ends sessions and wants each to have been there.
func requireDeleted(t *testing.T, clients ...*rtctest.Client) {
	t.Helper()
	for _, c := range clients {
		if status := c.Delete(t, c.Resource); status != http.StatusOK {
			t.Errorf("DELETE %s = %d; want 200", c.Resource, status)
		}
	}
}

// requireNoWebRTC waits until no session and no flow is left at any peer.
func requireNoWebRTC(t *testing.T, peers ...*peertest.Peer) {
	t.Helper()
	for _, p := range peers {
		peertest.Eventually(t, 20*time.Second, "no session is left at "+p.Node, func() bool {
			return p.Metric(t, "srsx_sessions", "whip")+p.Metric(t, "srsx_sessions", "whep")+p.Metric(t, "srsx_webrtc_flows", "") == 0
		})
	}
}

func TestWHIPAndWHEPThroughAPeer(t *testing.T) {
	for name, config := range map[string]rtctest.Config{
		"as SRS": {}, "credentials of its own": {OwnCredentials: true}, "full ICE": {Full: true}, "TCP only": {TCPOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			peer := peertest.Start(t, peertest.Options{})
			config.Register = peer.Register()
			origin := rtctest.Start(t, config)
			peer.AwaitOrigins(t, 1)
			publisher := rtctest.Publish(t, rtctest.Dial{URL: "http://" + peer.API + whip})
			player := rtctest.Play(t, rtctest.Dial{URL: "http://" + peer.API + whep})
			requireUnbroken(t, player, 100)
			requireDeleted(t, player, publisher)
			if n := origin.Sessions(); n != 0 {
				t.Errorf("%d sessions at the origin after DELETE; want none", n)
			}
			requireNoWebRTC(t, peer)
		})
	}
}

// Signalling, media and the end of a session, each at another peer.
func TestWebRTCAtThreePeers(t *testing.T) {
	f := startFleet(t, 3)
	for name, config := range map[string]rtctest.Config{
		"as SRS": {}, "credentials of its own": {OwnCredentials: true}, "full ICE": {Full: true},
	} {
		t.Run(name, func(t *testing.T) {
			config.Register = f.peers[0].Register()
			origin := rtctest.Start(t, config)
			for _, p := range f.peers {
				peertest.Eventually(t, 30*time.Second, "the origin is up at "+p.Node, func() bool { return p.Origins(t)[origin.Server()].State == "up" })
			}
			defer func() { f.peers[0].CLI(t, "origin", "remove", origin.Server()) }()

			a, b, c := f.peers[0], f.peers[1], f.peers[2]
			publisher := rtctest.Publish(t, rtctest.Dial{URL: "http://" + a.API + whip, Answer: rtctest.MediaAt(a.RTC, b.RTC)})
			player := rtctest.Play(t, rtctest.Dial{URL: "http://" + c.API + whep, Answer: rtctest.MediaAt(c.RTC, a.RTC)})
			requireUnbroken(t, player, 100)
			// The peer that carries the media is the one that has the session.
			peertest.Eventually(t, 10*time.Second, "sessions where the media is", func() bool {
				return b.Metric(t, "srsx_sessions", "whip") == 1 && a.Metric(t, "srsx_sessions", "whep") == 1 &&
					a.Metric(t, "srsx_sessions", "whip")+c.Metric(t, "srsx_sessions", "") == 0
			})
			for _, client := range []*rtctest.Client{player, publisher} {
				if status := client.Delete(t, client.ResourceAt(c.API)); status != http.StatusOK {
					t.Errorf("DELETE at a third peer = %d; want 200", status)
				}
			}
			if n := origin.Sessions(); n != 0 {
				t.Errorf("%d sessions at the origin after DELETE; want none", n)
			}
			requireNoWebRTC(t, f.peers...)
		})
	}
}
