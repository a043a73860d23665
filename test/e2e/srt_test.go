package e2e

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"srsx/test/peertest"
	"srsx/test/srttest"
)

// srtPeer runs a peer in front of SRT origins.
func srtPeer(t *testing.T, origins ...*srttest.Origin) *peertest.Peer {
	t.Helper()
	peer := peertest.Start(t, peertest.Options{Config: srtOrigins(origins...)})
	peer.AwaitOrigins(t, len(origins))
	return peer
}

// srtOrigins is the configuration of origins: o1, o2, ...
func srtOrigins(origins ...*srttest.Origin) string {
	var conf strings.Builder
	conf.WriteString("origins:\n")
	for i, o := range origins {
		fmt.Fprintf(&conf, "  - {id: o%d, rtmp: [%q], srt: [%q], labels: [srttest]}\n", i+1, o.TCP(), o.Addr())
	}
	return conf.String()
}

// encodeSRT publishes a test picture and a tone by ffmpeg until the test ends.
func encodeSRT(t *testing.T, addr, streamID string, options ...string) *peertest.Process {
	t.Helper()
	args := append([]string{
		"-hide_banner", "-loglevel", "warning", "-re",
		"-f", "lavfi", "-i", fmt.Sprintf("testsrc2=s=320x240:r=%d", videoRate), "-f", "lavfi", "-i", "sine=440:r=44100",
		"-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", "25", "-threads", "1",
		"-c:a", "aac", "-b:a", "64k", "-f", "mpegts", "-srt_streamid", streamID,
	}, options...)
	return peertest.Run(t, peertest.Command{Path: part(t, "ffmpeg"), Args: append(args, "srt://"+addr)})
}

// decodeSRT plays a stream by ffmpeg for some seconds.
func decodeSRT(t *testing.T, addr, streamID string, seconds int, options ...string) []frame {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	args := append([]string{"-hide_banner", "-loglevel", "error", "-analyzeduration", "1M", "-srt_streamid", streamID}, options...)
	cmd := exec.CommandContext(ctx, part(t, "ffmpeg"), append(append(args, "-i", "srt://"+addr), decoded(seconds)...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("ffmpeg plays %s: %v\n%s", streamID, err, errs.String())
	}
	return framesOf(t, out.String())
}

func TestSRTIsPublishedAndPlayed(t *testing.T) {
	for name, options := range map[string][]string{
		"clear":   nil,
		"AES-128": {"-passphrase", "correct horse", "-pbkeylen", "16"},
		"AES-256": {"-passphrase", "correct horse", "-pbkeylen", "32"},
	} {
		t.Run(name, func(t *testing.T) {
			config := srttest.OriginConfig{}
			if options != nil {
				config.Passphrase = options[1]
			}
			origin := srttest.StartOrigin(t, config)
			peer := srtPeer(t, origin)
			encodeSRT(t, peer.SRT, srttest.Publish("live/cam"), options...)
			peertest.Eventually(t, 20*time.Second, "the origin has it", func() bool { return origin.Publishing("live/cam") })
			if p := peer.Placements(t)["live/cam"]; !p.Publishing || p.Origin != "o1" {
				t.Errorf("placement = %+v; want it published at o1", p)
			}
			requireContinuous(t, decodeSRT(t, peer.SRT, srttest.Request("live/cam"), 3, options...), 3)
			for _, seen := range origin.Seen() {
				if seen.Encrypted != (options != nil) {
					t.Errorf("%+v; want it encrypted: %v", seen, options != nil)
				}
			}
			if in, out := peer.Metric(t, "srsx_media_bytes_total", `direction="in",kind="srt"`), peer.Metric(t, "srsx_media_bytes_total", `direction="out",kind="srt"`); in == 0 || out == 0 {
				t.Errorf("%v bytes counted in, %v out", in, out)
			}
		})
	}
}

// libsrt says for which reason it was refused. It has words for its own, and one
// for all of those that only applications have.
func TestLibsrtLearnsWhyItIsRefused(t *testing.T) {
	origin := srttest.StartOrigin(t, srttest.OriginConfig{Passphrase: "correct horse", Reject: func(id string) uint32 {
		if strings.Contains(id, "forbidden") {
			return 2403
		}
		return 0
	}})
	peer := srtPeer(t, origin)
	const applications = "Application-defined rejection reason"
	for options, want := range map[string]string{
		"streamid=live/forbidden":                    applications,
		"streamid=#!::r=live/cam,m=bidirectional":    applications,
		"streamid=live/cam&passphrase=wrong+one+one": "Incorrect passphrase",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		out, _ := exec.CommandContext(ctx, part(t, "srt-live-transmit"), "-a:no", "-ll:note", "srt://"+peer.SRT+"?"+options, "file://con").CombinedOutput()
		cancel()
		if !strings.Contains(string(out), want) {
			t.Errorf("srt-live-transmit with %s says\n%s; want %s in it", options, out, want)
		}
	}
	for _, reason := range []string{"forbidden", "bad_mode", "badsecret"} {
		if n := peer.Metric(t, "srsx_srt_rejections_total", `"`+reason+`"`); n == 0 {
			t.Errorf("no rejection is counted for %s", reason)
		}
	}
}

func TestSRTPublishedAtOnePeerPlaysAtAnother(t *testing.T) {
	a, b := srttest.StartOrigin(t, srttest.OriginConfig{}), srttest.StartOrigin(t, srttest.OriginConfig{})
	f := startSRTFleet(t, a, b)
	for i, name := range []string{"live/one", "live/two"} {
		encodeSRT(t, f.peers[i].SRT, srttest.Publish(name))
		peertest.Eventually(t, 20*time.Second, name+" is published", func() bool { return a.Publishing(name) || b.Publishing(name) })
		for j := range 2 {
			requireContinuous(t, decodeSRT(t, f.peers[(i+1+j)%3].SRT, srttest.Request(name), 2), 2)
		}
	}
	if a.Publishing("live/one") == a.Publishing("live/two") {
		t.Error("both streams are at one origin; want one at each")
	}
}

// startSRTFleet runs three peers in front of origins.
func startSRTFleet(t *testing.T, origins ...*srttest.Origin) *fleet {
	t.Helper()
	f := startFleetOf(t, 3, fleet{config: srtOrigins(origins...), env: []string{"PROXY_GRACE_QUIT_TIMEOUT=1s"}})
	for _, p := range f.peers {
		p.AwaitOrigins(t, len(origins))
	}
	return f
}

const srtFlows = 50

func srtName(i int) string { return fmt.Sprintf("live/s%02d", i) }

// startSRTFlows publishes streams at one peer and plays each at another.
func startSRTFlows(t *testing.T, publish, play *peertest.Peer, n int) (publishers []*srttest.Publisher, players []*srttest.Player) {
	t.Helper()
	for i := range n {
		publishers = append(publishers, srttest.StartPublisher(t, publish.SRT, srtName(i)))
	}
	for i := range n {
		players = append(players, srttest.StartPlayer(t, play.SRT, srtName(i)))
	}
	requireSRTWhole(t, players, 10)
	return publishers, players
}

// requireSRTWhole checks that players get more messages than before, and all but
// those that a busy machine has too late for the latency of the connection.
func requireSRTWhole(t *testing.T, players []*srttest.Player, more uint32) {
	t.Helper()
	starts := make([]srttest.Played, len(players))
	for i, p := range players {
		starts[i] = p.Seen()
	}
	for i, p := range players {
		peertest.Eventually(t, 30*time.Second, fmt.Sprintf("player %d goes on", i), func() bool {
			seen := p.Seen()
			return seen.Err != nil || seen.Messages >= starts[i].Messages+more
		})
		if seen := p.Seen(); seen.Err != nil || seen.Lost > seen.Messages/25 {
			t.Errorf("player %d = %+v; want hardly any lost", i, seen)
		}
	}
}

func requireSRTUncut(t *testing.T, publishers []*srttest.Publisher) {
	t.Helper()
	for i, p := range publishers {
		if err := p.Err(); err != nil {
			t.Errorf("publisher %d was cut off: %v", i, err)
		}
	}
}

// A process that hangs still has a kernel that accepts packets, and says
// nothing. What flows elsewhere does not notice.
func TestOriginHangsWhileSRTFlows(t *testing.T) {
	good := srttest.StartOrigin(t, srttest.OriginConfig{})
	tcp, err := net.Listen("tcp", "127.0.0.1:0") // its liveness
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	port := peertest.FreePort(t)
	hung := peertest.Run(t, peertest.Command{
		Path: "/bin/sh", Args: []string{"-c", "exec " + part(t, "srt-live-transmit") + " -q 'srt://127.0.0.1:" + port + "?mode=listener' file://con > /dev/null"},
	})
	config := srtOrigins(good) + fmt.Sprintf("  - {id: hung, rtmp: [%q], srt: [\"127.0.0.1:%s\"], labels: [hung]}\n", tcp.Addr(), port) +
		"rules: [{match: \"__defaultVhost__/hung/*\", pool: hung}, {match: \"*/*/*\", pool: srttest}]\n"
	peer := peertest.Start(t, peertest.Options{Config: config})
	peer.AwaitOrigins(t, 2)
	publishers, players := startSRTFlows(t, peer, peer, srtFlows)
	victim, err := srttest.Call(peer.SRT, srttest.Publish("hung/cam"), "")
	if err != nil {
		t.Fatal(err)
	}
	defer victim.Close() //nolint:errcheck // it ends either way
	hung.Signal(t, syscall.SIGSTOP)
	started := time.Now()
	if conn, err := srttest.Call(peer.SRT, srttest.Publish("hung/late"), ""); err == nil {
		_ = conn.Close()
		t.Error("a caller was connected to an origin that hangs")
	}
	if took := time.Since(started); took > 3500*time.Millisecond {
		t.Errorf("it was refused after %v", took)
	}
	requireSRTWhole(t, players, 50)
	requireSRTUncut(t, publishers)
}
