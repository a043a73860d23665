package e2e

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"srsx/test/netns"
	"srsx/test/peertest"
	"srsx/test/srttest"
)

const lossyFlows = 5

// What the network loses the two ends make good by themselves: a peer between
// them is in the way of none of it. Direct flows beside show what they can.
func TestSRTRecoversWhatIsLostAsItDoesDirectly(t *testing.T) {
	for _, percent := range []int{1, 10} {
		t.Run(fmt.Sprintf("%d percent", percent), func(t *testing.T) {
			lan := netns.New(t)
			crowd, at, originHost := lan.Host(t), lan.Host(t), lan.Host(t)
			var origin *srttest.Origin
			within(t, originHost, func() {
				origin = srttest.StartOrigin(t, srttest.OriginConfig{Addr: originHost.IP() + ":10080"})
			})
			peer := peertest.Start(t, peertest.Options{Config: srtOrigins(origin), Host: at})
			peer.AwaitOrigins(t, 1)
			var direct, proxied []*srttest.Player
			within(t, crowd, func() {
				direct = startLossy(t, origin, origin.Addr(), "direct")
				proxied = startLossy(t, origin, peer.SRT, "proxied")
			})
			crowd.Lose(t, percent)
			originHost.Lose(t, percent)
			requireSRTWhole(t, append(direct, proxied...), 200)
			for _, end := range []*netns.Host{crowd, originHost} {
				if end.Lost(t) == 0 {
					t.Error("the network has lost nothing")
				}
			}
		})
	}
}

func within(t *testing.T, h *netns.Host, f func()) {
	t.Helper()
	if err := h.At(func() error { f(); return nil }); err != nil {
		t.Fatal(err)
	}
}

// startLossy publishes and plays streams by one address.
func startLossy(t *testing.T, origin *srttest.Origin, addr, prefix string) (players []*srttest.Player) {
	t.Helper()
	for i := range lossyFlows {
		name := fmt.Sprintf("live/%s%d", prefix, i)
		srttest.StartPublisher(t, addr, name)
		peertest.Eventually(t, 30*time.Second, name+" is published", func() bool { return origin.Publishing(name) })
		players = append(players, srttest.StartPlayer(t, addr, name))
	}
	return players
}

// Haivision's own programs: a live stream by one and a file by the other, for
// which libsrt speaks the same protocol in another way.
func TestSRTProgramsPassLiveStreams(t *testing.T) {
	origin := srttest.StartOrigin(t, srttest.OriginConfig{Passphrase: "correct-horse"})
	peer := srtPeer(t, origin)
	transmit, ffmpeg := part(t, "srt-live-transmit"), part(t, "ffmpeg")
	uri := func(id string) string {
		return "'srt://" + peer.SRT + "?passphrase=correct-horse&pbkeylen=32&streamid=" + id + "'"
	}
	peertest.Run(t, peertest.Command{Path: "/bin/sh", Args: []string{"-c", fmt.Sprintf(
		"%s -hide_banner -loglevel warning -re -f lavfi -i testsrc2=s=320x240:r=%d -f lavfi -i sine=440:r=44100 "+
			"-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 25 -threads 1 -c:a aac -f mpegts - | "+
			"%s -q -chunk:1316 file://con %s", ffmpeg, videoRate, transmit, uri("#!::r=live/cam,m=publish"))}})
	peertest.Eventually(t, 20*time.Second, "the origin has it", func() bool { return origin.Publishing("live/cam") })
	out := peertest.Shell(t, t.TempDir(), fmt.Sprintf("%s -q -to:8 %s file://con 2>/dev/null | %s -hide_banner -loglevel error -f mpegts -i - %s",
		transmit, uri("#!::r=live/cam,m=request"), ffmpeg, strings.Join(decoded(3), " ")))
	requireContinuous(t, framesOf(t, out), 3)
}

func TestSRTFilesArriveWhole(t *testing.T) {
	file := make([]byte, 8<<20)
	for i := range file {
		file[i] = byte(rand.Uint32())
	}
	want := sha256.Sum256(file)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, options := range []string{"", "&passphrase=correct-horse&pbkeylen=32"} {
		out := filepath.Join(t.TempDir(), "in")                                                 // the sender's stream id is the name of its file
		port, tcp := peertest.FreePort(t), srttest.StartOrigin(t, srttest.OriginConfig{}).TCP() // whose TCP port is the other's liveness
		receiver := peertest.Run(t, peertest.Command{
			Path: part(t, "srt-file-transmit"), Args: []string{"srt://127.0.0.1:" + port + "?mode=listener" + options, "file://" + filepath.Dir(out) + "/"},
		})
		peer := peertest.Start(t, peertest.Options{Config: fmt.Sprintf("origins: [{id: files, rtmp: [%q], srt: [\"127.0.0.1:%s\"]}]\n", tcp, port)})
		peer.AwaitOrigins(t, 1)
		peertest.Shell(t, dir, part(t, "srt-file-transmit")+" file://"+filepath.Join(dir, "in")+" 'srt://"+peer.SRT+"?streamid=in"+options+"'")
		if code := receiver.Code(t, 30*time.Second); code != 0 {
			t.Errorf("receiver ended with %d:\n%s", code, receiver.Output())
		}
		got, err := os.ReadFile(out)
		if err != nil || sha256.Sum256(got) != want {
			t.Errorf("%d bytes arrived, %v; want the %d that were sent", len(got), err, len(file))
		}
	}
}
