package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/lb/liveness"
	"srsx/lb/memlb"
	"srsx/proxy"
	"srsx/proxy/admin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type api struct {
	*admin.Server
	balancer *memlb.Balancer
}

// start serves an API before whose balancer every origin is alive: the addresses
// of these tests are not to be dialed.
func start(t *testing.T, change func(*admin.Config)) api {
	t.Helper()
	return startWith(t, func(context.Context, lb.Origin) error { return nil }, change)
}

func startWith(t *testing.T, probe liveness.Prober, change func(*admin.Config)) api {
	t.Helper()
	b := memlb.New(memlb.Config{Peer: "p", Probe: probe})
	t.Cleanup(func() { _ = b.Close() })
	allow, err := proxy.ParseNetworks("127.0.0.0/8", "::1", "10.0.0.0/8")
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(admin.NewCollector(b))
	config := admin.Config{
		Balancer: b, Sessions: proxy.NewRouter(b, proxy.RouterConfig{}), Gatherer: registry, Version: "test",
		Members: func() []admin.Member {
			return []admin.Member{{Name: "p", State: "alive", Role: "leader", Leader: true}}
		},
		Origins: admin.OriginRules{Allow: allow, Own: []netip.AddrPort{netip.MustParseAddrPort("0.0.0.0:11935")}},
	}
	if change != nil {
		change(&config)
	}
	return api{admin.NewServer(config), b}
}

// call sends a request as from an address and returns status and body.
func (a api) call(method, path, body, from string, header ...string) (int, map[string]any) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.RemoteAddr, r.Host = from+":5000", "127.0.0.1:12025"
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
			continue
		}
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	var decoded map[string]any
	d := json.NewDecoder(w.Body)
	if err := d.Decode(&decoded); err != nil {
		return w.Code, nil
	}
	if _, err := d.Token(); err != io.EOF {
		return w.Code, map[string]any{"error": "more than one reply"}
	}
	return w.Code, decoded
}

func TestWhoMayDoWhat(t *testing.T) {
	a := start(t, func(c *admin.Config) { c.Access = admin.Access{Token: "secret"} })
	for _, test := range []struct {
		name, method, path, from string
		header                   []string
		want                     int
	}{
		{"livez from anywhere", "GET", "/livez", "9.9.9.9", nil, 200},
		{"readyz from anywhere", "GET", "/readyz", "9.9.9.9", nil, 200},
		{"versions from anywhere", "GET", "/api/v1/versions", "9.9.9.9", nil, 200},
		{"metrics from anywhere", "GET", "/metrics", "9.9.9.9", nil, 200},
		{"origins from elsewhere", "GET", "/api/v1/origins", "9.9.9.9", nil, 401},
		{"origins with the token", "GET", "/api/v1/origins", "9.9.9.9", []string{"Authorization", "Bearer secret"}, 200},
		{"origins with a wrong token", "GET", "/api/v1/origins", "127.0.0.1", []string{"Authorization", "Bearer wrong"}, 401},
		{"origins from this host", "GET", "/api/v1/origins", "127.0.0.1", nil, 200},
		{"IPv6 loopback", "GET", "/api/v1/origins", "[::1]", nil, 200},
		{"a proxy on this host", "GET", "/api/v1/origins", "127.0.0.1", []string{"X-Forwarded-For", "127.0.0.1"}, 401},
		{"a rebound name", "GET", "/api/v1/origins", "127.0.0.1", []string{"Host", "evil.example"}, 403},
		{"localhost", "GET", "/api/v1/origins", "127.0.0.1", []string{"Host", "localhost:12025"}, 200},
		{"another site's page", "DELETE", "/api/v1/origins/x", "127.0.0.1", []string{"Origin", "http://evil.example"}, 403},
		{"our own page", "DELETE", "/api/v1/origins/x", "127.0.0.1", []string{"Origin", "http://127.0.0.1:12025"}, 404},
		{"a form", "PUT", "/api/v1/origins/x/ready", "127.0.0.1", []string{"Content-Type", "text/plain"}, 415},
		{"unknown path", "GET", "/nothing", "127.0.0.1", nil, 404},
		{"a path that is not clean", "GET", "//livez", "127.0.0.1", nil, 404},
		{"a path that goes up", "GET", "/api/v1/x/../origins", "127.0.0.1", nil, 404},
		{"wrong method", "POST", "/api/v1/origins", "127.0.0.1", nil, 405},
	} {
		if got, body := a.call(test.method, test.path, "", test.from, test.header...); got != test.want {
			t.Errorf("%s: %d %v; want %d", test.name, got, body, test.want)
		}
	}
}

func TestRegisterTokenStandsInThePath(t *testing.T) {
	a := start(t, func(c *admin.Config) { c.Access = admin.Access{RegisterToken: "t0"} })
	beat := heartbeat("vid-1", "1", "10.0.0.5", "1935")
	for path, want := range map[string]int{
		"/api/v1/srs/register": 401, "/api/v1/srs/register/wrong": 401, "/api/v1/srs/register/t0": 200,
	} {
		if got, body := a.call("POST", path, beat, "10.0.0.5"); got != want {
			t.Errorf("%s: %d %v; want %d", path, got, body, want)
		}
	}
}

func TestOperatorsSteerByAPI(t *testing.T) {
	a := start(t, nil)
	for _, id := range []string{"a", "b"} {
		a.call("POST", "/api/v1/srs/register", heartbeat(id, "1", "10.0.0.5", "1935"), "10.0.0.5")
	}
	lease, err := a.balancer.Acquire(t.Context(), lb.Want{Stream: lb.Stream{VHost: lb.DefaultVHost, App: "a/b", Name: "s"}})
	if err != nil {
		t.Fatal(err)
	}
	to := "a"
	if lease.Origin.ID == "a" {
		to = "b"
	}
	const path = "/api/v1/placements/__defaultVhost__/a%2Fb/s"
	for _, step := range []struct {
		method, path, body string
		want               int
	}{
		{"GET", path, "", 200},
		{"GET", path + "/explain", "", 200},
		{"GET", path + "/explain?protocol=nonsense", "", 400},
		{"PUT", path, `{"origin":"` + to + `"}`, 200},
		{"PUT", path, `{"origin":"nobody"}`, 404},
		{"GET", path + "/history", "", 200},
		{"DELETE", path, "", 200},
		{"GET", path, "", 404},
		{"PUT", "/api/v1/origins/a/drain", `{"deadline":"1h"}`, 200},
		{"PUT", "/api/v1/origins/a/drain", `{"deadline":"soon"}`, 400},
		{"PUT", "/api/v1/origins/a/ready", `{}`, 200},
		{"PUT", "/api/v1/origins/a/weight", `{"weight":5}`, 200},
		{"PUT", "/api/v1/origins/a/weight", `{}`, 400},
		{"DELETE", "/api/v1/origins/a", "", 200},
		{"DELETE", "/api/v1/origins/a", "", 404},
		{"DELETE", "/api/v1/sessions/99", "", 404},
		{"GET", "/api/v1/placements?start=x", "", 400},
		{"GET", "/api/v1/status/leader", "", 200},
	} {
		if got, body := a.call(step.method, step.path, step.body, "127.0.0.1"); got != step.want {
			t.Errorf("%s %s: %d %v; want %d", step.method, step.path, got, body, step.want)
		}
	}
}

func TestDrainingPeerIsNotReady(t *testing.T) {
	a := start(t, nil)
	a.Drain()
	if status, _ := a.call("GET", "/readyz", "", "9.9.9.9"); status != 503 {
		t.Errorf("readyz = %d; want 503", status)
	}
	if status, _ := a.call("GET", "/livez", "", "9.9.9.9"); status != 200 {
		t.Errorf("livez = %d; want 200", status)
	}
}

func TestEventsReachTheClientLive(t *testing.T) {
	a := start(t, nil)
	server := httptest.NewServer(a)
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	seen := make(chan string, 10)
	done := make(chan error, 1)
	go func() {
		done <- admin.NewClient(server.URL, "").Events(ctx, func(event []byte) error {
			seen <- string(event)
			return nil
		})
	}()
	var event string
	for n := 0; event == ""; n++ { // until the subscription stands
		a.call("POST", "/api/v1/srs/register", heartbeat(fmt.Sprint("vid-", n), "1", "10.0.0.5", "1935"), "10.0.0.5")
		select {
		case event = <-seen:
		case <-time.After(20 * time.Millisecond):
		}
	}
	if !strings.Contains(event, `"kind":"origin-up"`) {
		t.Errorf("event = %s; want origin-up", event)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Events = %v; want nil after cancel", err)
	}
}

// undecided is a balancer whose backend has no say.
type undecided struct {
	lb.Balancer
	err error
}

func (u *undecided) Decisive() error { return u.err }

func TestAnElectionIsNotAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, grace := range []time.Duration{15 * time.Second, 0} {
			backend := &undecided{}
			a := start(t, func(c *admin.Config) {
				backend.Balancer = c.Balancer
				c.Balancer, c.ReadyGrace = backend, grace
			})
			ready := func() int {
				status, _ := a.call("GET", "/readyz", "", "9.9.9.9")
				return status
			}
			for _, step := range []struct {
				err   error
				after time.Duration
				want  int
			}{
				{lb.ErrUndecided, 0, 200},
				{lb.ErrUndecided, 14 * time.Second, 200},
				{nil, 0, 200}, // which starts the time anew
				{lb.ErrUndecided, 0, 200},
				{lb.ErrUndecided, 14 * time.Second, 200},
				{lb.ErrUndecided, 2 * time.Second, map[bool]int{true: 200, false: 503}[grace == 0]},
				{nil, 0, 200},
				{lb.ErrClosed, 0, 503},
			} {
				time.Sleep(step.after) // of the bubble
				backend.err = step.err
				if got := ready(); got != step.want {
					t.Errorf("grace %s, %v after %s: readyz = %d; want %d", grace, step.err, step.after, got, step.want)
				}
			}
			_ = a.balancer.Close()
		}
	})
}

func TestPlacementsAreListedInPages(t *testing.T) {
	a := start(t, nil)
	a.call("POST", "/api/v1/srs/register", heartbeat("v", "1", "10.0.0.5", "1935"), "10.0.0.5")
	for i := range 5 {
		stream := lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: fmt.Sprint("s", i)}
		if _, err := a.balancer.Acquire(t.Context(), lb.Want{Stream: stream}); err != nil {
			t.Fatal(err)
		}
	}
	for query, want := range map[string]string{
		"": "5 s0 s1 s2 s3 s4", "?start=1&count=2": "5 s1 s2", "?start=4&count=9": "5 s4", "?start=9": "5", "?count=0": "5",
		"?prefix=live/s3": "1 s3", "?prefix=__defaultVhost__/live/s4": "1 s4", "?origin=other": "0", "?origin=v&start=3": "5 s3 s4",
	} {
		_, body := a.call("GET", "/api/v1/placements"+query, "", "127.0.0.1")
		data, _ := body["data"].(map[string]any)
		shown := []string{fmt.Sprint(data["total"])}
		list, _ := data["placements"].([]any)
		for _, p := range list {
			if view, ok := p.(map[string]any); ok {
				shown = append(shown, fmt.Sprint(view["name"]))
			}
		}
		if got := strings.Join(shown, " "); got != want {
			t.Errorf("placements%s = %s; want %s", query, got, want)
		}
	}
}
