package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"srsx/test/peertest"
)

// origin is a real media server. Neither lalserver nor nginx can register, so
// that they are static origins of the configuration.
type origin struct {
	*peertest.Process

	id, pool   string
	rtmp, http string // host:port
}

func awaitPort(t *testing.T, p *peertest.Process, addr string) {
	t.Helper()
	peertest.Eventually(t, 20*time.Second, addr+" accepts", func() bool {
		select {
		case <-p.Done():
			t.Fatalf("ended before it listened:\n%s", p.Output())
		default:
		}
		conn, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// startLAL runs lalserver: RTMP, HTTP-FLV and HTTP-TS for every app, HLS for
// the app hls.
func startLAL(t *testing.T, id string) origin {
	t.Helper()
	dir := t.TempDir()
	o := origin{id: id, pool: "lal", rtmp: "127.0.0.1:" + peertest.FreePort(t), http: "127.0.0.1:" + peertest.FreePort(t)}
	conf, err := json.Marshal(map[string]any{
		"conf_version": "v0.4.1",
		"rtmp":         map[string]any{"enable": true, "addr": o.rtmp, "gop_num": 1},
		"default_http": map[string]any{"http_listen_addr": o.http},
		"httpflv":      map[string]any{"enable": true, "url_pattern": "/", "gop_num": 1},
		"httpts":       map[string]any{"enable": true, "url_pattern": "/", "gop_num": 1},
		"hls": map[string]any{
			"enable": true, "url_pattern": "/hls/", "out_path": filepath.Join(dir, "hls") + "/",
			"fragment_duration_ms": 1000, "fragment_num": 6, "delete_threshold": 6, "cleanup_mode": 1,
		},
		"server_id": id,
		"log":       map[string]any{"level": 4, "filename": filepath.Join(dir, "lal.log"), "is_to_stdout": true, "assert_behavior": 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "lal.json")
	if err := os.WriteFile(file, conf, 0o600); err != nil {
		t.Fatal(err)
	}
	o.Process = peertest.Run(t, peertest.Command{Path: part(t, "lalserver"), Args: []string{"-c", file}, Dir: dir})
	awaitPort(t, o.Process, o.rtmp)
	awaitPort(t, o.Process, o.http)
	return o
}

// startNginx runs nginx with the rtmp module: RTMP, and HLS for the app nginx.
func startNginx(t *testing.T, id string) origin {
	t.Helper()
	dir := t.TempDir()
	o := origin{id: id, pool: "nginx", rtmp: "127.0.0.1:" + peertest.FreePort(t), http: "127.0.0.1:" + peertest.FreePort(t)}
	module, err := filepath.Glob("/usr/lib/nginx/modules/ngx_rtmp_module.so")
	if err != nil || len(module) != 1 {
		t.Fatal("nginx's rtmp module is not installed: make deps")
	}
	conf := fmt.Sprintf(`
load_module %[1]s;
daemon off; master_process off; worker_processes 1;
pid %[2]s/nginx.pid; error_log stderr warn;
events { worker_connections 2048; }
rtmp { server {
  listen %[3]s; chunk_size 4096;
  application live { live on; }
  application nginx { live on; hls on; hls_path %[2]s/nginx; hls_fragment 1s; hls_playlist_length 10s; }
} }
http {
  types { application/vnd.apple.mpegurl m3u8; video/mp2t ts; }
  access_log off; root %[2]s;
  client_body_temp_path %[2]s/b; proxy_temp_path %[2]s/p; fastcgi_temp_path %[2]s/f;
  uwsgi_temp_path %[2]s/u; scgi_temp_path %[2]s/s;
  server { listen %[4]s; location / { add_header Cache-Control no-cache; } }
}
`, module[0], dir, o.rtmp, o.http)
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	o.Process = peertest.Run(t, peertest.Command{Path: part(t, "nginx"), Args: []string{"-p", dir, "-c", file}, Dir: dir})
	awaitPort(t, o.Process, o.rtmp)
	awaitPort(t, o.Process, o.http)
	return o
}

// startPeer runs a peer in front of origins. Streams of the apps lal and hls
// go to the lalservers, of the app nginx to nginx, of any other anywhere.
func startPeer(t *testing.T, origins ...origin) *peertest.Peer {
	t.Helper()
	var conf strings.Builder
	conf.WriteString("rules:\n")
	for app, pool := range map[string]string{"lal": "lal", "hls": "lal", "nginx": "nginx"} {
		fmt.Fprintf(&conf, "  - {match: \"__defaultVhost__/%s/*\", pool: %s}\n", app, pool)
	}
	conf.WriteString("origins:\n")
	for _, o := range origins {
		fmt.Fprintf(&conf, "  - {id: %s, address: 127.0.0.1, rtmp: [%q], http: [%q], labels: [%s]}\n", o.id, o.rtmp, o.http, o.pool)
	}
	conf.WriteString("limits: {placement_rate_per_client: 1000}\n")
	peer := peertest.Start(t, peertest.Options{Config: conf.String(), Flags: []string{"-origin-ttl", "5s"}})
	peer.AwaitOrigins(t, len(origins))
	return peer
}
