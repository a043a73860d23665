package e2e

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"srsx/test/peertest"
	"srsx/test/rtctest"
	"srsx/test/srttest"
)

// udpFlows is 25 streams published and played by WebRTC, and as many by SRT.
type udpFlows struct {
	rtc        []*rtctest.Client // players
	publishers []*srttest.Publisher
	srt        []*srttest.Player
}

const udpStreams = 25

func startUDPFlows(t *testing.T, publish, play *peertest.Peer) udpFlows {
	t.Helper()
	f := udpFlows{rtc: startWebRTCFlows(t, publish, play, "webrtc", udpStreams)}
	f.publishers, f.srt = startSRTFlows(t, publish, play, udpStreams)
	return f
}

// requireWhole wants all flows to go on as if nothing had happened.
func (f udpFlows) requireWhole(t *testing.T) {
	t.Helper()
	requireAllFlowing(t, f.rtc, 50)
	requireSRTWhole(t, f.srt, 25)
	requireSRTUncut(t, f.publishers)
}

// startUDPFleet runs three peers, two origins of WebRTC and two of SRT.
func startUDPFleet(t *testing.T) (*fleet, [2]*rtctest.Origin) {
	t.Helper()
	f := startSRTFleet(t, srttest.StartOrigin(t, srttest.OriginConfig{}), srttest.StartOrigin(t, srttest.OriginConfig{}))
	var origins [2]*rtctest.Origin
	for i := range origins {
		origins[i] = rtctest.Start(t, rtctest.Config{Register: f.peers[0].Register()})
	}
	f.awaitWebRTC(t, origins[:]...)
	return f, origins
}

func TestLeaderIsKilledWhileUDPFlows(t *testing.T) {
	f, _ := startUDPFleet(t)
	doomed := f.leader(t, 0)
	a, b := f.peers[(doomed+1)%3], f.peers[(doomed+2)%3]
	flows := startUDPFlows(t, a, b)
	f.peers[doomed].Kill()
	flows.requireWhole(t)
	// A new one waits for the next leader no longer than its caller does.
	late, err := srttest.Call(b.SRT, srttest.Publish("live/late"), "")
	if err != nil {
		t.Errorf("a new stream of SRT after the leader's death: %v", err)
	} else {
		_ = late.Close()
	}
	requireAllFlowing(t, startWebRTCFlows(t, b, a, "late", 1), 20)
	flows.requireWhole(t)
}

// Those that flow through a peer that ends are told, where the protocol has a word
// for it, or go on through its next run. The others do not notice.
func TestPeerIsRestartedWhileUDPFlows(t *testing.T) {
	f, _ := startUDPFleet(t)
	a, b := f.peers[0], f.peers[1]
	flows := startUDPFlows(t, a, a)
	through := startWebRTCFlows(t, a, b, "through", 5)
	var broken []*srttest.Player
	for i := range 5 {
		broken = append(broken, srttest.StartPlayer(t, b.SRT, srtName(i)))
	}
	requireSRTWhole(t, broken, 10)
	b.Signal(t, syscall.SIGTERM)
	if code := b.Code(t, 40*time.Second); code != 0 {
		t.Errorf("%s ended with %d; want 0", b.Node, code)
	}
	ended := time.Now()
	for i, p := range broken {
		peertest.Eventually(t, 10*time.Second, fmt.Sprintf("player %d is told", i), func() bool { return p.Seen().Err != nil })
	}
	if took := time.Since(ended); took > 3*time.Second {
		t.Errorf("players learnt %v later that their peer has ended; want a shutdown, not their own timeout", took)
	}
	f.again(t, 1)
	for i, p := range through {
		before := len(p.Received())
		peertest.Eventually(t, 30*time.Second, fmt.Sprintf("flow %d goes on through the restarted peer", i), func() bool {
			return len(p.Received()) > before+20
		})
	}
	for i := range broken {
		broken[i] = srttest.StartPlayer(t, f.peers[1].SRT, srtName(i))
	}
	requireSRTWhole(t, broken, 10)
	flows.requireWhole(t)
}

func TestOriginIsSilentWhileUDPFlows(t *testing.T) {
	f, origins := startUDPFleet(t)
	flows := startUDPFlows(t, f.peers[0], f.peers[1])
	at := f.peers[0].Placements(t)
	var elsewhere []*rtctest.Client
	for i, p := range flows.rtc {
		if at[fmt.Sprintf("live/webrtc%d", i)].Origin != origins[0].Server() {
			elsewhere = append(elsewhere, p)
		}
	}
	if n, all := len(elsewhere), len(flows.rtc); n == 0 || n == all {
		t.Fatalf("%d of %d streams are at one of two origins; want some at each", n, all)
	}
	flows.rtc = elsewhere
	origins[0].Silence(true)
	flows.requireWhole(t)
}
