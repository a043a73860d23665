package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"srsx/lb"
	"srsx/proxy/admin"
)

const registerPath = "/api/v1/srs/register"

func heartbeat(server, pid, ip, rtmp string) string {
	return fmt.Sprintf(`{"device_id":"d","ip":%q,"server":%q,"service":"s%s","pid":%q,"rtmp":[%q],"http":["8080"],"api":["127.0.0.1:1985"],"srt":["udp://0.0.0.0:10080"],"rtc":["udp://0.0.0.0:8000","tcp://0.0.0.0:8000"],"new_field":{"x":[1]}}`,
		ip, server, pid, pid, rtmp)
}

// register sends a heartbeat as from an address and returns status and error.
func (a api) register(body, from string) (status int, text string) {
	status, reply := a.call("POST", registerPath, body, from)
	text, _ = reply["error"].(string)
	return status, text
}

func TestSRSRegistersAndIsShown(t *testing.T) {
	a := start(t, nil)
	status, body := a.call("POST", registerPath, heartbeat("vid-1", "7", "10.0.0.5", "tcp://0.0.0.0:1935"), "10.0.0.5")
	if status != 200 || body["code"] != 0.0 || body["pid"] == "" {
		t.Fatalf("register = %d %v", status, body)
	}
	_, body = a.call("GET", "/api/v1/origins", "", "127.0.0.1")
	text, _ := json.Marshal(body)
	for _, want := range []string{
		`"total":1`, `"alive":1`, `"id":"vid-1"`, `"state":"up"`, `"rtmp":["10.0.0.5:1935"]`, `"http":["10.0.0.5:8080"]`,
		`"api":["127.0.0.1:1985"]`, `"srt":["udp://10.0.0.5:10080"]`, `"rtc":["udp://10.0.0.5:8000","tcp://10.0.0.5:8000"]`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("origins = %s; want %s in it", text, want)
		}
	}
}

func TestEveryFormOfAnEndpointIsUnderstood(t *testing.T) {
	for form, want := range map[string]string{
		"1935":                    "10.0.0.5:1935",
		":1935":                   "10.0.0.5:1935",
		"tcp://:1935":             "10.0.0.5:1935",
		"tcp://0.0.0.0:1935":      "10.0.0.5:1935",
		"tcp://[::]:1935":         "10.0.0.5:1935",
		"*:1935":                  "10.0.0.5:1935",
		"10.0.0.6:1936":           "10.0.0.6:1936",
		"[fd00::1]:1935":          "[fd00::1]:1935",
		"tcp://[fd00::1]:1935":    "[fd00::1]:1935",
		"[::ffff:10.0.0.7]:1935":  "[::ffff:10.0.0.7]:1935",
		"tcp://media.example:935": "media.example:935",
	} {
		r, err := admin.OriginRules{}.Registration(admin.Heartbeat{
			IP: "10.0.0.5", Server: "v", Service: "s", PID: "1", RTMP: []string{form}, SRT: []string{"udp://0.0.0.0:8000"},
		})
		if err != nil || r.Origin.Endpoints.RTMP[0] != want || r.Origin.Endpoints.SRT[0] != "udp://10.0.0.5:8000" {
			t.Errorf("%s = %v, %v; want %s", form, r.Origin.Endpoints, err, want)
		}
	}
	r, err := admin.OriginRules{}.Registration(admin.Heartbeat{
		IP: "fd00::9", Server: "v", Service: "s", PID: "1", RTMP: []string{"1935"}, RTC: []string{"8000", "tcp://[::]:8000"},
	})
	if want := "[fd00::9]:1935 udp://[fd00::9]:8000 tcp://[fd00::9]:8000"; err != nil ||
		r.Origin.Endpoints.RTMP[0]+" "+strings.Join(r.Origin.Endpoints.RTC, " ") != want {
		t.Errorf("origin on IPv6 = %v, %v; want %s", r.Origin.Endpoints, err, want)
	}
}

func TestBadRegistrationsGetOneClearError(t *testing.T) {
	a := start(t, nil)
	const identity = `"ip":"10.0.0.5","server":"v","service":"s","pid":"1"`
	for body, want := range map[string]string{
		`{}`:                                     "field ip is missing",
		`null`:                                   "field ip is missing",
		`[]`:                                     "body",
		`"x"`:                                    "body",
		`not json`:                               "body",
		`{` + identity + `} trailing`:            "body",
		`{"ip":1}`:                               "field ip is a number; want a string",
		`{"ip":"10.0.0.5","server":["v"]}`:       "field server is a array; want a string",
		`{` + identity + `,"rtmp":"1935"}`:       "field rtmp is a string; want a list of strings",
		`{` + identity + `,"rtmp":[1935]}`:       "want a string",
		`{` + identity + `,"rtmp":{"a":1}}`:      "field rtmp is a object",
		`{` + identity + `}`:                     "heartbeat { ports on; }",
		`{` + identity + `,"rtmp":[]}`:           "field rtmp is missing",
		`{"server":"v","rtmp":["1935"]}`:         "field ip is missing",
		heartbeat("v", "1", "10.0.0.5", "x"):     "field rtmp has no port",
		heartbeat("v", "1", "10.0.0.5", "0"):     "field rtmp has no port",
		heartbeat("v", "1", "10.0.0.5", "65536"): "field rtmp has no port",
		heartbeat("v", "1", "10.0.0.5", "::1"):   "field rtmp has no port",
		heartbeat("v", "1", "10.0.0.5", "http://10.0.0.5:80"):                      "neither tcp nor udp",
		heartbeat("v", "1", "10.0.0.5", "udp://10.0.0.5:80"):                       "not served over UDP",
		heartbeat(strings.Repeat("v", 300), "1", "10.0.0.5", "1935"):               "field server is too long",
		`{` + identity + `,"rtmp":["1"` + strings.Repeat(`,"1"`, 40) + `]}`:        "more than 32 endpoints",
		`{` + identity + `,"rtmp":["1"],"x":"` + strings.Repeat("x", 70000) + `"}`: "64 KB",
	} {
		status, text := a.register(body, "10.0.0.9")
		if status < 400 || status >= 500 || !strings.Contains(text, want) {
			t.Errorf("%.90s: %d %q; want a refusal with %q", body, status, text, want)
		}
	}
	if status, text := a.register(`{"ip":"10.0.0.5","server":"a\u0007","service":"s","pid":"1","rtmp":["1"]}`, "10.0.0.9"); status != 400 ||
		!strings.Contains(text, "control characters") {
		t.Errorf("a control character in the id = %d %q; want it refused", status, text)
	}
	if n := len(a.balancer.Origins()); n != 0 {
		t.Errorf("%d origins came of it; want none", n)
	}
}

// SRS looks at no answer: the log is where an operator finds out.
func TestARefusedRegistrationIsLoggedButNotWithoutEnd(t *testing.T) {
	var log bytes.Buffer
	a := start(t, func(c *admin.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 200 {
		a.register(`{}`, "10.0.0.5:1")
	}
	lines := strings.Count(log.String(), "registration refused")
	if lines == 0 || lines > 30 || !strings.Contains(log.String(), "10.0.0.5:1") || !strings.Contains(log.String(), "field ip is missing") {
		t.Errorf("%d lines, log = %.500s; want a few, with client and reason", lines, log.String())
	}
}

func TestUnknownFieldsAndNumbersAreTaken(t *testing.T) {
	a := start(t, nil)
	status, text := a.register(`{"ip":"10.0.0.5","server":"v","service":"s","pid":22366,"rtmp":["1935"],"later":{"a":[1,null]},"summaries":"odd"}`, "10.0.0.5")
	if status != 200 {
		t.Fatalf("register = %d %s", status, text)
	}
	if o, _ := a.balancer.Origin("v"); o.Incarnation.PID != "22366" || o.Load != nil {
		t.Errorf("origin = %+v; want pid 22366 and no load", o)
	}
	a.register(`{"ip":"10.0.0.5","server":"v","service":"s","pid":"22366","rtmp":["1935"],"summaries":{"data":{"system":{"cpu_percent":0.25,"conn_srs":7}}}}`, "10.0.0.5")
	if o, _ := a.balancer.Origin("v"); o.Load == nil || o.Load.CPUPercent != 25 || o.Load.Connections != 7 {
		t.Errorf("load = %+v; want 25 percent and 7 connections", o.Load)
	}
}

func TestAnOriginLivesOnlyWhereItMay(t *testing.T) {
	a := start(t, func(c *admin.Config) {
		c.Origins.Own = append(c.Origins.Own, netip.MustParseAddrPort("[::]:18080"), netip.MustParseAddrPort("127.0.0.1:12025"))
		c.Origins.OwnNames = []string{"peer1", "10.9.9.9"}
		c.Origins.Overrides = map[string]admin.Override{"named": {Address: "media.internal"}, "loop": {Address: "Peer1."}, "local": {Address: "localhost"}}
	})
	for _, test := range []struct {
		name, server, ip, rtmp, want string // want empty: taken
	}{
		{"a private network", "v", "10.0.0.5", "1935", ""},
		{"the caller's own address", "v", "203.0.113.9", "1935", ""},
		{"the caller's own, mapped", "w", "::ffff:203.0.113.9", "1935", ""},
		{"elsewhere", "x", "8.8.8.8", "1935", "origin-allow"},
		{"elsewhere by its endpoint", "x", "10.0.0.5", "8.8.8.8:1935", "origin-allow"},
		{"link-local", "x", "169.254.169.254", "1935", "no origin may live"},
		{"link-local, mapped", "x", "::ffff:169.254.169.254", "1935", "no origin may live"},
		{"link-local IPv6", "x", "fe80::1", "1935", "no origin may live"},
		{"a zone", "x", "fe80::1%eth0", "1935", "no origin may live"},
		{"multicast", "x", "224.0.0.1", "1935", "no origin may live"},
		{"multicast IPv6", "x", "ff02::1", "1935", "no origin may live"},
		{"unspecified", "x", "0.0.0.0", "1935", "no origin may live"},
		{"unspecified IPv6", "x", "::", "1935", "no origin may live"},
		{"broadcast", "x", "255.255.255.255", "1935", "no origin may live"},
		{"a name", "x", "example.com", "1935", "not an IP address"},
		{"a name by its endpoint", "x", "10.0.0.5", "example.com:1935", "not an IP address"},
		{"an old form of a number", "x", "127.1", "1935", "not an IP address"},
		{"a name from the configuration", "named", "172.17.0.2", "1935", ""},
		{"a name from another's entry", "x", "media.internal", "1935", "not an IP address"},
		{"own listener", "x", "127.0.0.1", "11935", "own listener"},
		{"own listener, another loopback", "x", "127.0.0.9", "11935", "own listener"},
		{"own listener, mapped", "x", "::ffff:127.0.0.1", "11935", "own listener"},
		{"own listener, IPv6", "x", "::1", "11935", "own listener"},
		{"own listener on IPv6, by IPv4", "x", "127.0.0.1", "18080", "own listener"},
		{"own listener of one address", "x", "127.0.0.1", "12025", "own listener"},
		{"own listener of one address, mapped", "x", "::ffff:127.0.0.1", "12025", "own listener"},
		{"own listener by an endpoint", "x", "10.0.0.5", "[::ffff:127.0.0.1]:11935", "own listener"},
		{"own address as others know it", "x", "10.9.9.9", "11935", "own listener"},
		{"own name from the configuration", "loop", "10.0.0.5", "11935", "own listener"},
		{"localhost from the configuration", "local", "10.0.0.5", "12025", "own listener"},
		{"another port of this host", "y", "127.0.0.1", "1935", ""},
	} {
		body := fmt.Sprintf(`{"ip":%q,"server":%q,"service":"s","pid":"1","rtmp":[%q]}`, test.ip, test.server, test.rtmp)
		status, text := a.register(body, "203.0.113.9")
		if test.want == "" && status != 200 || test.want != "" && (status < 400 || !strings.Contains(text, test.want)) {
			t.Errorf("%s: %d %q; want %q", test.name, status, text, test.want)
		}
		a.removeAll(t)
	}
}

func (a api) removeAll(t *testing.T) {
	t.Helper()
	for _, o := range a.balancer.Origins() {
		if err := a.balancer.Remove(t.Context(), o.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAddressOverrideReplacesTheInnerAddress(t *testing.T) {
	a := start(t, func(c *admin.Config) {
		c.Origins.Overrides = map[string]admin.Override{"d": {Address: "192.168.1.7"}} // by device id
	})
	status, text := a.register(heartbeat("v", "1", "172.17.0.2", "172.17.0.2:1935"), "203.0.113.9")
	o, _ := a.balancer.Origin("v")
	if status != 200 || o.IP != "192.168.1.7" || o.Endpoints.RTMP[0] != "192.168.1.7:1935" || o.Endpoints.HTTP[0] != "192.168.1.7:8080" {
		t.Errorf("register = %d %s: %+v; want it at 192.168.1.7", status, text, o)
	}
}

func TestALiveOriginIsNotTakenOverFromElsewhere(t *testing.T) {
	const home, stranger, ip = "203.0.113.5", "203.0.113.66", "10.0.0.5" // the origin is behind NAT
	dead := func(context.Context, lb.Origin) error { return context.DeadlineExceeded }
	a := startWith(t, dead, func(c *admin.Config) { c.Access.Token = "operator" })
	beat := func(pid, port string) string { return heartbeat("v", pid, ip, port) }
	for _, step := range []struct {
		name, body, from string
		header           []string
		want             int
	}{
		{"the first", beat("1", "1935"), home, nil, 200},
		{"another run from elsewhere", beat("2", "1936"), stranger, nil, 409},
		{"the same run with other endpoints from elsewhere", beat("1", "1936"), stranger, nil, 409},
		{"a repetition from elsewhere", beat("1", "1935"), stranger, nil, 200},
		{"which gives no right to more", beat("2", "1936"), stranger, nil, 409},
		{"another run from where the first came from", beat("2", "1936"), home, nil, 200},
		{"from the address at which it lives", beat("3", "1937"), ip, nil, 200},
		{"from elsewhere with the token", beat("4", "1938"), stranger, []string{"Authorization", "Bearer operator"}, 200},
	} {
		if status, reply := a.call("POST", registerPath, step.body, step.from, step.header...); status != step.want {
			t.Errorf("%s: %d %v; want %d", step.name, status, reply, step.want)
		}
	}
}

func TestAStaticOriginIsNotTakenOver(t *testing.T) {
	a := start(t, nil)
	r, err := admin.OriginRules{}.Static(admin.Heartbeat{Server: "v", Service: "static", PID: "0", RTMP: []string{"10.0.0.5:1935"}})
	if err != nil || r.Origin.IP != "10.0.0.5" {
		t.Fatalf("Static = %+v, %v; want it to live at its endpoint", r, err)
	}
	if err := a.balancer.Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if status, text := a.register(heartbeat("v", "1", "10.0.0.5", "1935"), "10.0.0.5"); status != http.StatusConflict || !strings.Contains(text, "static") {
		t.Errorf("register = %d %s; want it refused: the configuration has the word", status, text)
	}
}

func TestAStaticOriginNeedsAnAddressWhereAnEndpointHasNone(t *testing.T) {
	b := admin.Heartbeat{Server: "v", RTMP: []string{"media:1935"}, HTTP: []string{"8080"}}
	if _, err := (admin.OriginRules{}).Static(b); err == nil || !strings.Contains(err.Error(), "field http has no host") {
		t.Errorf("Static = %v; want an error that names the endpoint", err)
	}
	b.IP = "10.0.0.5"
	if r, err := (admin.OriginRules{}).Static(b); err != nil || r.Origin.Endpoints.HTTP[0] != "10.0.0.5:8080" || r.Origin.Endpoints.RTMP[0] != "media:1935" {
		t.Errorf("Static = %+v, %v", r.Origin.Endpoints, err)
	}
}

// SRS's timer loop waits for the answer.
func TestAHangingProbeDoesNotHoldUpTheAnswer(t *testing.T) {
	a := startWith(t, func(ctx context.Context, _ lb.Origin) error {
		<-ctx.Done()
		return ctx.Err()
	}, nil)
	a.register(heartbeat("v", "1", "10.0.0.5", "1935"), "10.0.0.5")
	began := time.Now()
	if status, text := a.register(heartbeat("v", "2", "10.0.0.5", "1936"), "10.0.0.5"); status != 200 {
		t.Errorf("register = %d %s; want the new run in the place of one that hangs", status, text)
	}
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the answer took %s; want it at once", took)
	}
}

func TestTooManyOriginsAreRefused(t *testing.T) {
	a := start(t, nil)
	refused := 0
	for i := range 10_000 {
		if status, _ := a.register(heartbeat(fmt.Sprint("vid-", i), "1", "10.0.0.5", "1935"), "10.0.0.5"); status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 {
		t.Error("10,000 registrations at once from one address were all taken")
	}
}

func FuzzRegistration(f *testing.F) {
	f.Add(heartbeat("v", "1", "10.0.0.5", "tcp://:1935"))
	f.Add(`{"ip":"::1","server":"v","service":"s","pid":1,"rtmp":["[::1]:1935"],"summaries":{"cpu_percent":0.5}}`)
	f.Fuzz(func(t *testing.T, body string) {
		var beat admin.Heartbeat
		if json.Unmarshal([]byte(body), &beat) != nil {
			return
		}
		r, err := admin.OriginRules{}.Registration(beat)
		if err == nil && (r.Origin.ID == "" || len(r.Origin.Endpoints.RTMP) == 0) {
			t.Fatalf("taken without an id or RTMP: %+v", r)
		}
	})
}
