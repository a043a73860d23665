package main

import (
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// contract is every setting that users may rely on: flag, environment, default.
func contract() [][3]string {
	return [][3]string{
		{"lb", "PROXY_LOAD_BALANCER_TYPE", "memory"},
		{"rtmp", "PROXY_RTMP_SERVER", "11935"},
		{"http", "PROXY_HTTP_SERVER", "18080"},
		{"api", "PROXY_HTTP_API", "11985"},
		{"rtc", "PROXY_WEBRTC_SERVER", "18000"},
		{"srt", "PROXY_SRT_SERVER", "20080"},
		{"system-api", "PROXY_SYSTEM_API", "12025"},
		{"cluster", "PROXY_CLUSTER", "12026"},
		{"gossip", "PROXY_GOSSIP", "12027"},
		{"node", "PROXY_NODE", ""},
		{"advertise", "PROXY_ADVERTISE", ""},
		{"data-dir", "PROXY_DATA_DIR", "./srsx-data"},
		{"join", "PROXY_JOIN", ""},
		{"retry-join", "PROXY_RETRY_JOIN", ""},
		{"bootstrap-expect", "PROXY_BOOTSTRAP_EXPECT", "0"},
		{"non-voter", "PROXY_NON_VOTER", "false"},
		{"encrypt", "PROXY_ENCRYPT", ""},
		{"cluster-name", "PROXY_CLUSTER_NAME", "srsx"},
		{"origin-allow", "PROXY_ORIGIN_ALLOW", "127.0.0.0/8,::1,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"},
		{"trusted", "PROXY_TRUSTED", "127.0.0.0/8,::1"},
		{"token", "PROXY_TOKEN", ""},
		{"register-token", "PROXY_REGISTER_TOKEN", ""},
		{"ready-grace", "PROXY_READY_GRACE", "15s"},
		{"check", "", ""},
		{"origin-ttl", "PROXY_ORIGIN_SERVER_TTL", "30s"},
		{"static", "PROXY_STATIC_FILES", ""},
		{"place-timeout", "PROXY_PLACE_TIMEOUT", "5s"},
		{"relay-tick", "PROXY_RELAY_TICK", "5ms"},
		{"role", "PROXY_ROLE", "proxy"},
		{"redis-host", "PROXY_REDIS_HOST", "127.0.0.1"},
		{"redis-port", "PROXY_REDIS_PORT", "6379"},
		{"redis-password", "PROXY_REDIS_PASSWORD", ""},
		{"redis-db", "PROXY_REDIS_DB", "0"},
		{"", "PROXY_GRACE_QUIT_TIMEOUT", "20s"},
		{"", "PROXY_FORCE_QUIT_TIMEOUT", "30s"},
		{"", "PROXY_DEFAULT_BACKEND_ENABLED", ""},
		{"", "PROXY_DEFAULT_BACKEND_IP", ""},
		{"", "PROXY_DEFAULT_BACKEND_RTMP", ""},
		{"", "PROXY_DEFAULT_BACKEND_HTTP", ""},
		{"", "PROXY_DEFAULT_BACKEND_API", ""},
		{"", "PROXY_DEFAULT_BACKEND_RTC", ""},
		{"", "PROXY_DEFAULT_BACKEND_SRT", ""},
		{"", "GO_PPROF", ""},
	}
}

func TestEverySettingOfTheContractIsTaken(t *testing.T) {
	known := make(map[[3]string]bool)
	for _, s := range settings() {
		known[[3]string{s.name, s.env, s.standard}] = true
	}
	for _, want := range contract() {
		if !known[want] {
			t.Errorf("no setting with flag %q, environment %q and default %q", want[0], want[1], want[2])
			continue
		}
		flag, env, standard := want[0], want[1], want[2]
		if standard == "" {
			continue
		}
		if code, _, errs := commandIn(map[string]string{env: standard}, "agent", "-check"); code != exitDone {
			t.Errorf("%s=%s: %d %s", env, standard, code, errs)
		}
		if flag == "" {
			continue
		}
		file := writeFile(t, flag+": "+`"`+standard+`"`+"\n")
		for _, args := range [][]string{{"-" + flag + "=" + standard}, {"--" + flag + "=" + standard}, {"-config", file}} {
			if code, out, errs := command(append([]string{"agent", "-check"}, args...)...); code != exitDone || errs != "" || strings.Count(out, "\n") != 1 {
				t.Errorf("agent -check %v = %d, %s%s", args, code, out, errs)
			}
		}
	}
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "srsx.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagEnvironmentFileDefaultInThisOrder(t *testing.T) {
	t.Chdir(t.TempDir())
	path := writeFile(t, "node: from-file\norigin-ttl: 4s\nrtmp: 4\nhttp: off\nready-grace: 0\nplace-timeout: 4s\n")
	dotenv := "# a comment\n\nPROXY_ORIGIN_SERVER_TTL=3s\nexport PROXY_RTMP_SERVER=\"3\"\nPROXY_NODE='from-dotenv'\nPROXY_PLACE_TIMEOUT=\n"
	if err := os.WriteFile(".env", []byte(dotenv), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := source{
		flags: map[string]string{"rtmp": "1"},
		env:   environment(map[string]string{"PROXY_RTMP_SERVER": "2", "PROXY_ORIGIN_SERVER_TTL": "2s", "PROXY_ADVERTISE": "from-env"}),
		path:  path,
	}.load()
	if err != nil {
		t.Fatal(err)
	}
	for _, check := range []struct {
		what      string
		got, want any
	}{
		{"flag before environment", c.rtmp, ":1"},
		{"environment before .env", c.originTTL, 2 * time.Second},
		{"environment before default", c.advertise, "from-env"},
		{".env before file", c.node, "from-dotenv"},
		{"file before default", c.http, ""},
		{"a bare zero", c.readyGrace, time.Duration(0)},
		{"an empty variable is not there", c.placeTimeout, 4 * time.Second},
		{"default", c.systemAPI, ":12025"},
	} {
		if check.got != check.want {
			t.Errorf("%s: %v; want %v", check.what, check.got, check.want)
		}
	}
}

func TestAnEmptyListenerIsOff(t *testing.T) {
	c, err := source{
		flags: map[string]string{"rtmp": ""}, env: environment(map[string]string{"PROXY_HTTP_SERVER": ""}),
		path: writeFile(t, "api:\nsystem-api: \"off\"\n"),
	}.load()
	if err != nil || c.rtmp+c.http+c.api+c.systemAPI != "" {
		t.Errorf("listeners = %q %q %q %q, %v; want them all off", c.rtmp, c.http, c.api, c.systemAPI, err)
	}
}

func TestTheFileSaysWhatNoFlagCan(t *testing.T) {
	c, err := source{env: noEnv, path: writeFile(t, `
vhosts: [one.example, two.example]
trusted: [10.0.0.0/8, "::1"]
token: 0123
rules:
  - {match: "*/live/*", pool: big, backup: small}
origins:
  - id: named
    rtmp: ["media.internal:1935"]
    http: ["10.0.0.5:8080"]
    weight: 50
    max_streams: 7
    labels: [big, fast]
  - {id: inner, address: 10.0.0.7, labels: [small]}
limits: {origins: 5, sessions: -1, placement_rate: 2.5}
`)}.load()
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.staticOrigins()
	if err != nil || len(list) != 1 {
		t.Fatalf("static origins = %v, %v; want one", list, err)
	}
	o := list[0].Origin
	if !o.Static || o.IP != "media.internal" || o.Endpoints.RTMP[0] != "media.internal:1935" || o.Weight != 50 || o.MaxStreams != 7 ||
		!reflect.DeepEqual(o.Labels, []string{"big", "fast"}) {
		t.Errorf("static origin = %+v", o)
	}
	if over := c.overrides()["inner"]; over.Address != "10.0.0.7" {
		t.Errorf("override = %+v", over)
	}
	if p := c.policy(); len(p.Rules) != 1 || p.Rules[0].Backup != "small" {
		t.Errorf("policy = %+v", p)
	}
	if l := c.sections.Limits; l.state().Origins != 5 || l.state().Placements != maxPlacements || l.clients().Sessions != -1 || l.PlacementRate != 2.5 {
		t.Errorf("limits = %+v", l)
	}
	if c.token != "0123" || len(c.trusted) != 2 || len(c.sections.VHosts) != 2 {
		t.Errorf("token %q, trusted %v, vhosts %v", c.token, c.trusted, c.sections.VHosts)
	}
}

func TestATakenPortNamesPortAndFlag(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	for _, name := range []string{"rtmp", "http", "api", "system-api", "pprof"} {
		var env map[string]string
		args := []string{"agent", "-data-dir", t.TempDir()}
		want := "-" + name
		for _, flag := range []string{"rtmp", "http", "api", "system-api"} {
			value := "off"
			if flag == name {
				value = addr
			}
			args = append(args, "-"+flag, value)
		}
		if name == "pprof" {
			env, want = map[string]string{"GO_PPROF": addr}, "GO_PPROF"
		}
		code, _, errs := commandIn(env, args...)
		if code != exitRefused || !strings.Contains(errs, want) || !strings.Contains(errs, addr) || !strings.Contains(errs, "in use") ||
			strings.Count(errs, "\n") != 1 {
			t.Errorf("%s taken: %d %q; want one line with %s, %s and the reason", name, code, errs, want, addr)
		}
	}
}
