package e2e

import (
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	pion "github.com/pion/webrtc/v4"

	"srsx/test/peertest"
	"srsx/test/rtctest"
)

// only restricts a client to kinds of network.
func only(types ...pion.NetworkType) func(*pion.SettingEngine) {
	return func(s *pion.SettingEngine) { s.SetNetworkTypes(types) }
}

func TestWebRTCClientsOfEveryNetwork(t *testing.T) {
	ports := peertest.FreePorts(t)
	_, port, err := net.SplitHostPort(ports.RTC)
	if err != nil {
		t.Fatal(err)
	}
	ports.RTC = ":" + port
	peer := peertest.Start(t, peertest.Options{Ports: ports, Flags: []string{"-rtc-candidate", "127.0.0.1,127.0.0.2,::1"}})
	rtctest.Start(t, rtctest.Config{Register: peer.Register()})
	peer.AwaitOrigins(t, 1)
	rtctest.Publish(t, rtctest.Dial{URL: "http://" + peer.API + whip})
	for name, settings := range map[string]func(*pion.SettingEngine){
		"UDP": only(pion.NetworkTypeUDP4), "TCP": only(pion.NetworkTypeTCP4),
	} {
		t.Run(name, func(t *testing.T) {
			player := rtctest.Play(t, rtctest.Dial{URL: "http://" + peer.API + whep, Settings: settings})
			requireUnbroken(t, player, 50)
		})
	}
	// One with several addresses, and a peer with several, find a way each time.
	const runs = 50
	everything := only(pion.NetworkTypeUDP4, pion.NetworkTypeUDP6, pion.NetworkTypeTCP4, pion.NetworkTypeTCP6)
	for range runs {
		player := rtctest.Play(t, rtctest.Dial{URL: "http://" + peer.API + whep, Settings: everything})
		requireUnbroken(t, player, 5)
		player.Close()
	}
}

func TestICERestartAtAnotherPeer(t *testing.T) {
	f := startFleet(t, 3)
	origin := rtctest.Start(t, rtctest.Config{Register: f.peers[0].Register(), Full: true})
	f.awaitWebRTC(t, origin)
	rtctest.Publish(t, rtctest.Dial{URL: "http://" + f.peers[0].API + whip})
	player := rtctest.Play(t, rtctest.Dial{URL: "http://" + f.peers[1].API + whep})
	requireUnbroken(t, player, 50)
	for _, p := range f.peers {
		player.Restart(t, player.ResourceAt(p.API))
		time.Sleep(time.Second) // the origin sends nothing while it finds its way anew
		from := len(player.Received())
		requireFlowing(t, player, from, 100)
	}
	if states := player.States(); slices.Contains(states, pion.ICEConnectionStateFailed) {
		t.Errorf("ICE went through %v", states)
	}
}

func (f *fleet) awaitWebRTC(t *testing.T, origins ...*rtctest.Origin) {
	t.Helper()
	for _, p := range f.peers {
		for _, o := range origins {
			peertest.Eventually(t, 30*time.Second, "the origin is up at "+p.Node, func() bool { return p.Origins(t)[o.Server()].State == "up" })
		}
	}
}

const webrtcFlows = 25 // published, and as many played

// startWebRTCFlows publishes streams at one peer and plays each at another.
func startWebRTCFlows(t *testing.T, publish, play *peertest.Peer, prefix string, n int) (players []*rtctest.Client) {
	t.Helper()
	for i := range n {
		query := fmt.Sprintf("/?app=live&stream=%s%d", prefix, i)
		rtctest.Publish(t, rtctest.Dial{URL: "http://" + publish.API + "/rtc/v1/whip" + query})
		players = append(players, rtctest.Play(t, rtctest.Dial{URL: "http://" + play.API + "/rtc/v1/whep" + query}))
	}
	requireAllFlowing(t, players, 20)
	return players
}

// requireFlowing waits for n more packets and wants no more of them lost, from an
// index on, than a busy machine drops of UDP. Whatever cuts a flow costs a hundred.
func requireFlowing(t *testing.T, player *rtctest.Client, from, n int) {
	t.Helper()
	before := len(player.Received())
	peertest.Eventually(t, 30*time.Second, "packets at the player", func() bool { return len(player.Received()) >= before+n })
	all := player.Received()[from:]
	most := len(all)/100 + 5
	if sent := int(all[len(all)-1].Number-all[0].Number) + 1; sent-len(all) > most {
		t.Errorf("%d of %d packets came; want at most %d lost", len(all), sent, most)
	}
}

func requireAllFlowing(t *testing.T, players []*rtctest.Client, n int) {
	t.Helper()
	for _, p := range players {
		requireFlowing(t, p, 0, n)
	}
}

func TestLeaderIsKilledWhileWebRTCFlows(t *testing.T) {
	f := startFleet(t, 3)
	f.awaitWebRTC(t, rtctest.Start(t, rtctest.Config{Register: f.peers[0].Register()}))
	doomed := f.leader(t, 0)
	a, b := f.peers[(doomed+1)%3], f.peers[(doomed+2)%3]
	players := startWebRTCFlows(t, a, b, "s", webrtcFlows)
	f.peers[doomed].Kill()
	requireAllFlowing(t, players, 100)
	requireAllFlowing(t, startWebRTCFlows(t, b, a, "late", 1), 20)
	requireAllFlowing(t, players, 20)
}

// A peer that is restarted takes the flows that came to it up again.
func TestPeerIsRestartedWhileWebRTCFlows(t *testing.T) {
	f := startFleetOf(t, 3, fleet{env: []string{"PROXY_GRACE_QUIT_TIMEOUT=1s"}})
	f.awaitWebRTC(t, rtctest.Start(t, rtctest.Config{Register: f.peers[0].Register()}))
	a, b := f.peers[0], f.peers[1]
	players := startWebRTCFlows(t, a, a, "s", 5)
	through := startWebRTCFlows(t, a, b, "through", 5)
	b.Kill()
	requireAllFlowing(t, players, 20)
	before := make([]int, len(through))
	for i, p := range through {
		before[i] = len(p.Received())
	}
	f.again(t, 1)
	for i, p := range through {
		peertest.Eventually(t, 30*time.Second, fmt.Sprintf("flow %d goes on through the restarted peer", i), func() bool {
			return len(p.Received()) > before[i]+20
		})
	}
	requireAllFlowing(t, players, 20)
}

func TestOriginIsSilentWhileWebRTCFlows(t *testing.T) {
	peer := peertest.Start(t, peertest.Options{})
	origins := []*rtctest.Origin{rtctest.Start(t, rtctest.Config{Register: peer.Register()}), rtctest.Start(t, rtctest.Config{Register: peer.Register()})}
	peer.AwaitOrigins(t, len(origins))
	players := startWebRTCFlows(t, peer, peer, "s", 10)
	origins[0].Silence(true)
	at := peer.Placements(t)
	served := 0
	for i, p := range players {
		if at[fmt.Sprintf("live/s%d", i)].Origin == origins[1].Server() {
			requireFlowing(t, p, 0, 50)
			served++
		}
	}
	if served == 0 || served == len(players) {
		t.Errorf("%d of %d streams are at one of two origins; want some at each", served, len(players))
	}
}
