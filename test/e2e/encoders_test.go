package e2e

import (
	"testing"
	"time"

	"srsx/test/peertest"
)

// gstreamer publishes by one of GStreamer's RTMP sinks. Without latency flvmux
// writes whichever of picture and sound comes first and raises the timestamps
// of what comes late to the last one it wrote, so that it publishes some twice.
func gstreamer(t *testing.T, sink, url string) *peertest.Process {
	t.Helper()
	location := "location=" + url
	if sink == "rtmpsink" {
		location += " live=1" // librtmp: options follow the address
	}
	return peertest.Run(t, peertest.Command{Path: part(t, "gst-launch-1.0"), Args: []string{
		"-q", "flvmux", "name=mux", "streamable=true", "latency=500000000", "!", sink, location,
		"videotestsrc", "is-live=true", "!", "video/x-raw,width=320,height=240,framerate=25/1", "!",
		"x264enc", "tune=zerolatency", "speed-preset=ultrafast", "key-int-max=25", "threads=1", "!",
		"video/x-h264,profile=baseline", "!", "h264parse", "!", "mux.",
		"audiotestsrc", "is-live=true", "!", "audio/x-raw,rate=44100,channels=2", "!", "avenc_aac", "!", "aacparse", "!", "mux.",
	}})
}

func TestGStreamerPublishes(t *testing.T) {
	peer := startPeer(t, startLAL(t, "lal1"), startNginx(t, "nginx1"))
	for _, sink := range []string{"rtmpsink", "rtmp2sink"} {
		for _, app := range []string{"lal", "nginx"} {
			t.Run(sink+" to "+app, func(t *testing.T) {
				name := app + "/" + sink
				gstreamer(t, sink, "rtmp://"+peer.RTMP+"/"+name)
				peertest.Eventually(t, 20*time.Second, "publisher", publishing(t, peer, name))
				frames, _ := decode(t, "rtmp://"+peer.RTMP+"/"+name, 2)
				requireContinuous(t, frames, 2)
			})
		}
	}
}
