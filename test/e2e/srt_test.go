package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
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
		fmt.Fprintf(&conf, "  - {id: o%d, address: 127.0.0.1, rtmp: [%q], srt: [%q]}\n", i+1, o.TCP(), o.Addr())
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
	args := append([]string{"-hide_banner", "-loglevel", "error", "-srt_streamid", streamID}, options...)
	cmd := exec.CommandContext(ctx, part(t, "ffmpeg"), append(append(args, "-i", "srt://"+addr), decoded(seconds)...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("ffmpeg plays %s: %v\n%s", streamID, err, errs.String())
	}
	return framesOf(t, out.String())
}

func TestSRTIsPublishedAndPlayed(t *testing.T) {
	origin := srttest.StartOrigin(t, srttest.OriginConfig{})
	peer := srtPeer(t, origin)
	encodeSRT(t, peer.SRT, srttest.Publish("live/cam"))
	peertest.Eventually(t, 20*time.Second, "publisher", publishing(t, peer, "live/cam"))
	peertest.Eventually(t, 20*time.Second, "the origin has it", func() bool { return origin.Publishing("live/cam") })
	requireContinuous(t, decodeSRT(t, peer.SRT, srttest.Request("live/cam"), 3), 3)
}
