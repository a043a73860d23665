package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"srsx/test/mediatest"
	"srsx/test/origintest"
	"srsx/test/peertest"
)

// srs is an origin that registers by itself. Its restart is a new incarnation
// on the same ports.
type srs struct {
	rtmp    string // host:port
	restart func()
}

// srsConfig: SRS registers the address of the first interface, where it does not
// listen.
const srsConfig = "origins: [{id: vid-e2e0001, address: 127.0.0.1}]\n"

// eachSRS runs a test with the imitation of SRS, and with SRS itself where
// SRS_BIN names it.
func eachSRS(t *testing.T, test func(t *testing.T, peer *peertest.Peer, origin srs)) {
	t.Helper()
	eachOf(t, imitatedSRS, test)
}

// eachOf is eachSRS with another imitation.
func eachOf(t *testing.T, imitate func(*testing.T, *peertest.Peer) srs, test func(*testing.T, *peertest.Peer, srs)) {
	t.Helper()
	start := map[string]func(*testing.T, *peertest.Peer) srs{"imitation": imitate}
	if os.Getenv("SRS_BIN") != "" {
		start["SRS_BIN"] = realSRS
	}
	for name, start := range start {
		t.Run(name, func(t *testing.T) {
			peer := peertest.Start(t, peertest.Options{Config: srsConfig})
			origin := start(t, peer)
			peer.AwaitOrigins(t, 1)
			test(t, peer, origin)
		})
	}
}

func imitatedSRS(t *testing.T, peer *peertest.Peer) srs {
	t.Helper()
	o := origintest.Start(t, origintest.Config{Server: "vid-e2e0001", DeviceID: "e2e", Register: peer.Register()})
	return srs{rtmp: o.RTMP(), restart: func() { o.Restart(t) }}
}

func realSRS(t *testing.T, peer *peertest.Peer) srs {
	t.Helper()
	dir, rtmp := t.TempDir(), "127.0.0.1:"+peertest.FreePort(t)
	conf := fmt.Sprintf(`
listen %[1]s; daemon off; srs_log_tank console; pid %[2]s/srs.pid; max_connections 900; server_id vid-e2e0001;
http_server { enabled on; listen 127.0.0.1:%[3]s; dir %[2]s/html; }
http_api { enabled on; listen 127.0.0.1:%[4]s; }
rtc_server { enabled on; listen %[6]s; candidate 127.0.0.1; }
srt_server { enabled on; listen %[7]s; }
heartbeat { enabled on; interval 9; url %[5]s; device_id e2e; ports on; summaries on; }
stats { network 0; }
vhost __defaultVhost__ {
  rtc { enabled on; }
  srt { enabled on; srt_to_rtmp on; }
  http_remux { enabled on; mount [vhost]/[app]/[stream].flv; }
  hls { enabled on; hls_fragment 1; hls_td_ratio 1.5; hls_window 8; hls_path %[2]s/html; }
}
`, rtmp, dir, peertest.FreePort(t), peertest.FreePort(t), peer.Register(), peertest.FreePort(t), peertest.FreePort(t))
	file := filepath.Join(dir, "srs.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var process *peertest.Process
	run := func() {
		process = peertest.Run(t, peertest.Command{Path: os.Getenv("SRS_BIN"), Args: []string{"-c", file}, Dir: dir})
		awaitPort(t, process, rtmp)
	}
	run()
	return srs{rtmp: rtmp, restart: func() { process.Kill(); run() }}
}

func TestSRSRegistersAndCarriesStreams(t *testing.T) {
	eachSRS(t, func(t *testing.T, peer *peertest.Peer, _ srs) {
		o, ok := peer.Origins(t)["vid-e2e0001"]
		if !ok || o.Service == "" || o.PID == "" || len(o.Endpoints["rtmp"])*len(o.Endpoints["http"])*len(o.Endpoints["api"]) != 1 {
			t.Fatalf("origins = %+v; want one with service, pid, RTMP, HTTP and API", peer.Origins(t))
		}
		encode(t, "rtmp://"+peer.RTMP+"/live/cam?token=t0p")
		peertest.Eventually(t, 20*time.Second, "publisher", publishing(t, peer, "live/cam"))
		awaitOK(t, "http://"+peer.HTTP+"/live/cam.flv")
		for _, play := range []string{"rtmp://" + peer.RTMP + "/live/cam", "http://" + peer.HTTP + "/live/cam.flv"} {
			frames, _ := decode(t, play, 2)
			requireContinuous(t, frames, 2)
		}
	})
}

// lines returns the lines of a text document behind a URL that are no tags.
func lines(t *testing.T, where *url.URL) (found []*url.URL, text string) {
	t.Helper()
	text = string(get(t, where.String()))
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			u, err := where.Parse(line)
			if err != nil {
				t.Fatalf("line of %s: %v", where, err)
			}
			found = append(found, u)
		}
	}
	return found, text
}

func get(t *testing.T, where string) []byte {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, where, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("GET %s = %s, %v", where, response.Status, err)
	}
	return body
}

func TestSRSKeepsItsHLSContextThroughThePeer(t *testing.T) {
	eachSRS(t, func(t *testing.T, peer *peertest.Peer, origin srs) {
		encode(t, "rtmp://"+peer.RTMP+"/live/cam")
		first := "http://" + peer.HTTP + "/live/cam.m3u8?token=p4"
		awaitOK(t, first)
		where, err := url.Parse(first)
		if err != nil {
			t.Fatal(err)
		}
		children, master := lines(t, where)
		if len(children) != 1 || children[0].Query().Get("hls_ctx") == "" || children[0].Query().Get("token") != "p4" {
			t.Fatalf("master = %q; want one child with hls_ctx and the viewer's token", master)
		}
		if children[0].Host != peer.HTTP || strings.Contains(master, origin.rtmp) {
			t.Fatalf("master leads to %s; want the peer", children[0].Host)
		}
		segments, media := lines(t, children[0])
		if len(segments) == 0 || !strings.Contains(media, "#EXT-X-MEDIA-SEQUENCE") {
			t.Fatalf("media playlist = %q; want segments", media)
		}
		for _, segment := range segments {
			body := get(t, segment.String())
			if len(body) == 0 || len(body)%188 != 0 || body[0] != 0x47 {
				t.Errorf("segment %s has %d bytes; want packets of MPEG-TS", segment.Path, len(body))
			}
		}
	})
}

func TestRestartedSRSLosesItsPlacements(t *testing.T) {
	eachSRS(t, func(t *testing.T, peer *peertest.Peer, origin srs) {
		before := peer.Origins(t)["vid-e2e0001"]
		encoder := startEncoders(t, live(peer.RTMP), "s", 1)[0]
		peertest.Eventually(t, 20*time.Second, "publisher", encoder.publishing)
		placed := peer.Placements(t)["live/s000"]
		encoder.forget()
		origin.restart()
		peertest.Eventually(t, 20*time.Second, "new incarnation", func() bool {
			now := peer.Origins(t)["vid-e2e0001"]
			return now.State == "up" && now.Service+now.PID != before.Service+before.PID
		})
		// It may come back before the new run has registered, and is sent away then.
		peertest.Eventually(t, 20*time.Second, "the encoder is back, by a newer placement", func() bool {
			_, cuts := encoder.measured()
			return cuts > 0 && encoder.publishing() && peer.Placements(t)["live/s000"].Epoch > placed.Epoch
		})
	})
}

func TestSecondPublisherHearsSRSItself(t *testing.T) {
	eachSRS(t, func(t *testing.T, peer *peertest.Peer, origin srs) {
		encode(t, "rtmp://"+peer.RTMP+"/live/cam")
		awaitOK(t, "http://"+peer.HTTP+"/live/cam.flv")
		said := make(map[string]string)
		for who, addr := range map[string]string{"origin": origin.rtmp, "peer": peer.RTMP} {
			c, err := mediatest.Dial(t.Context(), live(addr))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			err = c.Publish("cam")
			if err == nil {
				t.Fatalf("a second publisher was accepted by the %s", who)
			}
			if status := (*mediatest.StatusError)(nil); errors.As(err, &status) {
				said[who] = status.Code
			}
		}
		if said["origin"] != "" && said["peer"] != said["origin"] {
			t.Errorf("the peer says %q; want the origin's %q", said["peer"], said["origin"])
		}
		if said["peer"] == "" {
			t.Error("the peer gives no status; want one even where the origin only closes")
		}
	})
}
