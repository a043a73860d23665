package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bluenviron/gortmplib/pkg/amf0"

	"srsx/cluster/keyring"
	"srsx/proxy"
	"srsx/test/mediatest"
	"srsx/test/origintest"
)

const (
	elsewhere    = "203.0.113.9" // an address that is not in -origin-allow
	registerPath = "/api/v1/srs/register"
)

func heartbeat(server, pid, ip, rtmp string) string {
	return fmt.Sprintf(`{"ip":%q,"server":%q,"service":"s%s","pid":%q,"rtmp":[%q]}`, ip, server, pid, pid, rtmp)
}

// Behind a load balancer on this host that speaks the PROXY protocol it is the
// client's address that counts, not the balancer's.
func TestStrangersMayOnlyRegisterAndLook(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-token", "secret"}})
	for _, address := range []string{elsewhere, "2001:db8::9"} {
		stranger := p.from(address)
		for path, want := range map[string]int{
			"/livez": 200, "/readyz": 200, "/metrics": 200, "/api/v1/versions": 200,
			"/api/v1/origins": 401, "/api/v1/origins/x": 401, "/api/v1/placements": 401, "/api/v1/placements/v/a/n": 401,
			"/api/v1/placements/v/a/n/explain": 401, "/api/v1/placements/v/a/n/history": 401, "/api/v1/sessions": 401,
			"/api/v1/members": 401, "/api/v1/status/leader": 401, "/api/v1/events": 401,
		} {
			if status, body := stranger.call(t, "GET", path, ""); status != want {
				t.Errorf("%s: GET %s = %d %s; want %d", address, path, status, body, want)
			}
			if want == http.StatusUnauthorized && path != "/api/v1/events" {
				if status, body := stranger.with("Authorization", "Bearer secret").call(t, "GET", path, ""); status == want {
					t.Errorf("%s: GET %s with the token = %d %s", address, path, status, body)
				}
				if status, _ := stranger.with("Authorization", "Bearer wrong").call(t, "GET", path, ""); status != want {
					t.Errorf("%s: GET %s with a wrong token = %d; want %d", address, path, status, want)
				}
				if status, body := p.here().call(t, "GET", path, ""); status == want {
					t.Errorf("this host: GET %s = %d %s", path, status, body)
				}
			}
		}
		for _, write := range [][2]string{
			{"PUT", "/api/v1/origins/x/drain"},
			{"PUT", "/api/v1/origins/x/ready"},
			{"PUT", "/api/v1/origins/x/weight"},
			{"DELETE", "/api/v1/origins/x"},
			{"PUT", "/api/v1/placements/v/a/n"},
			{"DELETE", "/api/v1/placements/v/a/n"},
			{"DELETE", "/api/v1/sessions/1"},
		} {
			if status, body := stranger.call(t, write[0], write[1], `{}`); status != http.StatusUnauthorized {
				t.Errorf("%s: %s %s = %d %s; want 401", address, write[0], write[1], status, body)
			}
		}
		if status, body := stranger.call(t, "POST", registerPath, heartbeat("v"+address, "1", address, "1935")); status != http.StatusOK {
			t.Errorf("%s registers itself = %d %s", address, status, body)
		}
	}
	// What a proxy on this host forwards is not from this host.
	for _, header := range []string{"X-Forwarded-For", "X-Real-IP", "Forwarded"} {
		if status, _ := p.here().with(header, "127.0.0.1").call(t, "GET", "/api/v1/origins", ""); status != http.StatusUnauthorized {
			t.Errorf("with %s: %d; want 401", header, status)
		}
	}
}

func TestTheProxyProtocolIsBelievedOnlyFromTrusted(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-trusted", "192.0.2.0/24"}})
	conn, err := net.Dial("tcp", p.system)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\nGET /api/v1/members HTTP/1.1\r\nHost: %s\r\n\r\n", p.system); err != nil {
		t.Fatal(err)
	}
	// Bytes left unread may reset the connection, and the answer be lost.
	if answer, _ := io.ReadAll(conn); len(answer) > 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.1 400 ")) {
		t.Errorf("a PROXY header from an address that is not trusted = %s; want it refused as no HTTP", answer)
	}
}

func TestARegisterTokenStandsInThePath(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-register-token", "t0"}})
	beat := heartbeat("v", "1", elsewhere, "1935")
	for path, want := range map[string]int{
		registerPath: 401, registerPath + "/": 404, registerPath + "/t1": 401, registerPath + "?token=t0": 401, registerPath + "/t0": 200,
	} {
		if status, body := p.from(elsewhere).call(t, "POST", path, beat); status != want {
			t.Errorf("%s = %d %s; want %d", path, status, body, want)
		}
	}
	if status, _ := p.here().call(t, "POST", registerPath, beat); status != http.StatusUnauthorized {
		t.Errorf("without the token from this host = %d; want 401: it is needed from everywhere", status)
	}
	open := startPeer(t, options{})
	if status, body := open.from(elsewhere).call(t, "POST", registerPath+"/any", beat); status != http.StatusOK {
		t.Errorf("a token where none is needed = %d %s; want it taken", status, body)
	}
}

func TestBrowsersAreNotMadeToWrite(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-advertise", "peer.example"}})
	own := "http://" + p.system
	for _, test := range []struct {
		name, method, path, body string
		header                   []string
		want                     int
	}{
		{"a form of another site", "PUT", "/api/v1/origins/x/ready", "x=1", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		{"plain text", "PUT", "/api/v1/origins/x/ready", "{}", []string{"Content-Type", "text/plain"}, 415},
		{"registering by plain text", "POST", registerPath, heartbeat("v", "1", "127.0.0.1", "1"), []string{"Content-Type", "text/plain"}, 415},
		{"JSON with a charset", "PUT", "/api/v1/origins/x/ready", "{}", []string{"Content-Type", "application/json; charset=utf-8"}, 404},
		{"a page of another site", "PUT", "/api/v1/origins/x/ready", "{}", []string{"Origin", "http://evil.example"}, 403},
		{"a page of another site deletes", "DELETE", "/api/v1/origins/x", "", []string{"Origin", "http://evil.example"}, 403},
		{"a page of another site registers", "POST", registerPath, heartbeat("v", "1", "127.0.0.1", "1"), []string{"Origin", "http://evil.example"}, 403},
		{"a page without a site", "DELETE", "/api/v1/origins/x", "", []string{"Origin", "null"}, 403},
		{"a page of another port", "DELETE", "/api/v1/origins/x", "", []string{"Origin", "http://127.0.0.1:1"}, 403},
		{"our own page", "DELETE", "/api/v1/origins/x", "", []string{"Origin", own}, 404},
		{"a rebound name", "GET", "/api/v1/origins", "", []string{"Host", "evil.example"}, 403},
		{"a rebound name and its page", "DELETE", "/api/v1/origins/x", "", []string{"Host", "evil.example", "Origin", "http://evil.example"}, 403},
		{"a rebound name registers", "POST", registerPath, heartbeat("v", "1", "127.0.0.1", "1"), []string{"Host", "evil.example", "Origin", "http://evil.example"}, 403},
		{"localhost", "GET", "/api/v1/origins", "", []string{"Host", "localhost:12025"}, 200},
		{"the advertised name", "GET", "/api/v1/origins", "", []string{"Host", "peer.example"}, 200},
		{"the node's name", "GET", "/api/v1/origins", "", []string{"Host", "peer1:12025"}, 200},
		{"IPv6", "GET", "/api/v1/origins", "", []string{"Host", "[::1]:12025"}, 200},
	} {
		c := p.here()
		for i := 0; i < len(test.header); i += 2 {
			c = c.with(test.header[i], test.header[i+1])
		}
		if status, body := c.call(t, test.method, test.path, test.body); status != test.want {
			t.Errorf("%s: %d %s; want %d", test.name, status, body, test.want)
		}
	}
	if n := len(p.origins(t)); n != 0 {
		t.Errorf("%d origins came of it; want none", n)
	}
}

func TestAnOriginLivesAtItsOwnAddressOrInOriginAllow(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-origin-allow", "10.0.0.0/8,127.0.0.1"}})
	_, rtmpPort, _ := strings.Cut(p.rtmp, ":")
	for _, test := range []struct {
		ip, rtmp, caller string
		want             int
	}{
		{elsewhere, "1935", elsewhere, 200},
		{elsewhere, "1935", "203.0.113.10", 403},
		{"10.1.2.3", "1935", elsewhere, 200},
		{"192.168.1.1", "1935", elsewhere, 403}, // in the default, not here
		{"127.0.0.1", rtmpPort, elsewhere, 403},
		{"::ffff:127.0.0.1", rtmpPort, elsewhere, 403},
		{"10.1.2.3", p.system, elsewhere, 403},
		{"169.254.169.254", "80", "169.254.169.254", 403},
	} {
		beat := heartbeat("v", "1", test.ip, test.rtmp)
		if status, body := p.from(test.caller).call(t, "POST", registerPath, beat); status != test.want {
			t.Errorf("%s:%s from %s = %d %s; want %d", test.ip, test.rtmp, test.caller, status, body, test.want)
		}
		p.here().call(t, "DELETE", "/api/v1/origins/v", "")
	}
}

func TestAnAddressOverrideServesAnOriginInAContainer(t *testing.T) {
	o := origintest.Start(t, origintest.Config{Server: "inner"})
	p := startPeer(t, options{config: "origins:\n  - {id: inner, address: 127.0.0.1, weight: 30}\n"})
	_, port, _ := strings.Cut(o.RTMP(), ":")
	if status, body := p.from(elsewhere).call(t, "POST", registerPath, heartbeat("inner", "1", "172.17.0.2", port)); status != http.StatusOK {
		t.Fatalf("register = %d %s", status, body)
	}
	if got := p.origins(t)["inner"]; got.IP != "127.0.0.1" || got.Weight != 30 {
		t.Errorf("origin = %+v; want it at the address of the configuration", got)
	}
	p.publish(t, "one")
	if !o.Publishing("live/one") {
		t.Error("the stream did not reach the origin")
	}
}

func TestARelayLoopIsRefused(t *testing.T) {
	dir := t.TempDir()
	p := startPeer(t, options{flags: []string{"-data-dir", dir}})
	p.originAt(t, origintest.Config{})
	id, err := os.ReadFile(filepath.Join(dir, "node-id"))
	if err != nil {
		t.Fatal(err)
	}
	mark := "another," + strings.TrimSpace(string(id))
	r, err := http.NewRequest(http.MethodGet, "http://"+p.http+"/live/one.flv", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(proxy.HopHeader, mark)
	client := p.here().client
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusLoopDetected {
		t.Errorf("HTTP with our own mark = %s; want 508", response.Status)
	}
	relay, err := mediatest.Dial(t.Context(), mediatest.Target{
		Addr: p.rtmp, TCURL: "rtmp://h/live", Connect: amf0.Object{{Key: proxy.HopProperty, Value: mark}},
	})
	if err == nil {
		err = relay.Play("one")
		relay.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "loop") {
		t.Errorf("RTMP with our own mark = %v; want it refused as a loop", err)
	}
}

func TestAnOpenPeerWarnsOnceAndSaysSo(t *testing.T) {
	cluster := func(host string) []string {
		return []string{"-bootstrap-expect", "1", "-cluster", host + ":0", "-gossip", host + ":0", "-advertise", "127.0.0.1"}
	}
	kept := t.TempDir()
	if _, err := keyring.Open(filepath.Join(kept, "keyring"), keyring.Generate()); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		flags    []string
		insecure bool
	}{
		"open":             {[]string{"-system-api", ":0"}, true},
		"with a token":     {[]string{"-system-api", "0.0.0.0:0", "-token", "t"}, true}, // anybody may still register
		"register token":   {[]string{"-system-api", ":0", "-register-token", "t"}, false},
		"on loopback only": {nil, false},
		"cluster":          {cluster("0.0.0.0"), true},
		"with a key":       {append(cluster("0.0.0.0"), "-encrypt", keyring.Generate().Encode()), false},
		"key kept before":  {append(cluster("0.0.0.0"), "-data-dir", kept), false},
		"cluster here":     {cluster("127.0.0.1"), false},
	} {
		p := startPeer(t, options{flags: test.flags})
		_, port, err := net.SplitHostPort(p.system)
		if err != nil {
			t.Fatal(err)
		}
		p.system = "127.0.0.1:" + port
		warnings := strings.Count(p.log.String(), "INSECURE")
		var data struct{ Members []struct{ Insecure bool } }
		p.get(t, "/api/v1/members", &data)
		if want := map[bool]int{true: 1}[test.insecure]; warnings != want || data.Members[0].Insecure != test.insecure {
			t.Errorf("%s: %d warnings, members say insecure=%v; want %v", name, warnings, data.Members[0].Insecure, test.insecure)
		}
		if out := p.must(t, "members"); !strings.Contains(out, "INSECURE") || strings.Contains(out, "true") != test.insecure {
			t.Errorf("%s: members prints %s", name, out)
		}
	}
}

func TestThePublicAPIPortShowsOnlyVersions(t *testing.T) {
	p := startPeer(t, options{})
	client := p.here().client
	for path, want := range map[string]int{
		"/api/v1/versions": 200, "/api/v1/origins": 404, "/api/v1/members": 404, "/metrics": 404, registerPath: 404, "/debug/pprof/": 404,
	} {
		response, err := client.Get("http://" + p.api + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s at -api = %d; want %d", path, response.StatusCode, want)
		}
	}
}
