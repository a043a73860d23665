package rtctest_test

import (
	"testing"
	"time"

	"srsx/test/peertest"
	"srsx/test/rtctest"
)

// The origins serve their own clients directly, or tests of a proxy before them
// say nothing.
func TestOriginsServe(t *testing.T) {
	for name, config := range map[string]rtctest.Config{"as SRS": {}, "full ICE": {Full: true}} {
		t.Run(name, func(t *testing.T) {
			o := rtctest.Start(t, config)
			base := "http://" + o.API() + "/rtc/v1/"
			rtctest.Publish(t, rtctest.Dial{URL: base + "whip/?app=live&stream=cam"})
			player := rtctest.Play(t, rtctest.Dial{URL: base + "whep/?app=live&stream=cam"})
			peertest.Eventually(t, 20*time.Second, "packets at the player", func() bool { return len(player.Received()) > 100 })
			if status := player.Delete(t, player.Resource); status != 200 {
				t.Errorf("DELETE = %d; want 200", status)
			}
		})
	}
}
