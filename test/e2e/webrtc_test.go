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
			for _, c := range []*rtctest.Client{player, publisher} {
				if status := c.Delete(t, c.Resource); status != http.StatusOK {
					t.Errorf("DELETE %s = %d; want 200", c.Resource, status)
				}
			}
			if n := origin.Sessions(); n != 0 {
				t.Errorf("%d sessions at the origin after DELETE; want none", n)
			}
			peertest.Eventually(t, 10*time.Second, "no session is left", func() bool {
				return peer.Metric(t, "srsx_sessions", "whip")+peer.Metric(t, "srsx_sessions", "whep")+peer.Metric(t, "srsx_webrtc_flows", "") == 0
			})
		})
	}
}
