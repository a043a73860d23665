package e2e

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
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
		// The origin sends nothing while it finds its way anew, so what it sent
		// meanwhile is gone.
		before := len(player.Received())
		peertest.Eventually(t, 20*time.Second, "media after the restart", func() bool { return len(player.Received()) > before+20 })
		requireFlowing(t, player, len(player.Received()), 100)
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

// startWebRTCFlows publishes n streams at one peer and plays each at another.
func startWebRTCFlows(t *testing.T, publish, play *peertest.Peer, prefix string, n int) []*rtctest.Client {
	t.Helper()
	const (
		atOnce = 5 // DTLS takes a busy machine a while
		// every leaves a machine of two processors enough of them that it is not
		// itself what loses packets.
		every = 40 * time.Millisecond
	)
	players, errs := make([]*rtctest.Client, n), make([]error, n)
	places := make(chan struct{}, atOnce)
	var starting sync.WaitGroup
	for i := range n {
		starting.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			query := fmt.Sprintf("/?app=live&stream=%s%d", prefix, i)
			if _, errs[i] = rtctest.TryPublish(t, rtctest.Dial{URL: "http://" + publish.API + "/rtc/v1/whip" + query, Every: every}); errs[i] == nil {
				players[i], errs[i] = rtctest.TryPlay(t, rtctest.Dial{URL: "http://" + play.API + "/rtc/v1/whep" + query})
			}
		})
	}
	starting.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	requireAllFlowing(t, players, 20)
	return players
}

// requireFlowing waits for n more packets and wants no more of them lost, from an
// index on, than a busy machine drops of UDP.
func requireFlowing(t *testing.T, player *rtctest.Client, from, n int) {
	t.Helper()
	requireMore(t, player, from, len(player.Received())+n)
}

// requireAllFlowing is requireFlowing for many at once.
func requireAllFlowing(t *testing.T, players []*rtctest.Client, n int) {
	t.Helper()
	wanted := make([]int, len(players))
	for i, p := range players {
		wanted[i] = len(p.Received()) + n
	}
	for i, p := range players {
		requireMore(t, p, 0, wanted[i])
	}
}

func requireMore(t *testing.T, player *rtctest.Client, from, wanted int) {
	t.Helper()
	peertest.Eventually(t, 30*time.Second, "packets at the player", func() bool { return len(player.Received()) >= wanted })
	all := player.Received()[from:]
	most := len(all)/50 + 5
	if sent := int(all[len(all)-1].Number-all[0].Number) + 1; sent-len(all) > most {
		t.Errorf("%d of %d packets came; want at most %d lost", len(all), sent, most)
	}
}
