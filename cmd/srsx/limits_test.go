package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"srsx/test/mediatest"
	"srsx/test/origintest"
)

// proxied is the header with which a load balancer names a client.
func proxied(client string) string {
	return fmt.Sprintf("PROXY TCP%d %s %[2]s 40000 1935\r\n", map[bool]int{false: 4, true: 6}[strings.Contains(client, ":")], client)
}

// limited is a peer with limits and one origin.
func limited(t *testing.T, limits string, flags ...string) *peer {
	t.Helper()
	p := startPeer(t, options{config: "limits: {" + limits + "}\n", flags: flags})
	p.originAt(t, origintest.Config{})
	return p
}

// playAs plays live/name for a client behind the load balancer until the test
// ends, and returns the refusal.
func (p *peer) playAs(t *testing.T, client, name string) error {
	t.Helper()
	c, err := p.connect(t, proxied(client))
	if err != nil {
		return err
	}
	t.Cleanup(c.Close)
	return c.Play(name)
}

func requireLimit(t *testing.T, what string, err error, limit string) {
	t.Helper()
	if limit == "" && err != nil || limit != "" && (err == nil || !strings.Contains(err.Error(), limit)) {
		t.Errorf("%s: %v; want %q", what, err, limit)
	}
}

// Behind PROXY protocol it is the client that is counted, not the balancer.
func TestSessionsAreCappedPerRealClient(t *testing.T) {
	p := limited(t, "sessions_per_client: 2, sessions: 5")
	for i, step := range []struct{ client, limit string }{
		{"203.0.113.1", ""},
		{"203.0.113.1", ""},
		{"203.0.113.1", "limit reached: sessions per address"},
		{"203.0.113.2", ""},
		{"2001:db8::1", ""},
		{"2001:db8::2", ""}, // one user of IPv6 has a /64
		{"2001:db8::3", "limit reached: sessions"},
		{"203.0.113.3", "limit reached: sessions"},
	} {
		requireLimit(t, fmt.Sprint(i, " ", step.client), p.playAs(t, step.client, "one"), step.limit)
	}
	var data struct{ Sessions []struct{ Client string } }
	p.get(t, "/api/v1/sessions", &data)
	if len(data.Sessions) != 5 || !strings.HasPrefix(data.Sessions[0].Client, "203.0.113.1:") {
		t.Errorf("sessions = %v; want five, shown by their real clients", data.Sessions)
	}
}

func TestIPv6CountsByTheNetworkOfAUser(t *testing.T) {
	p := limited(t, "sessions_per_client: 1")
	requireLimit(t, "first", p.playAs(t, "2001:db8::1", "one"), "")
	requireLimit(t, "same /64", p.playAs(t, "2001:db8::ffff:2", "one"), "sessions per address")
	requireLimit(t, "another /64", p.playAs(t, "2001:db8:0:1::1", "one"), "")
}

func TestAnEndedSessionGivesItsPlaceBack(t *testing.T) {
	p := limited(t, "sessions_per_client: 1")
	c, err := p.connect(t, proxied("203.0.113.1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Play("one"); err != nil {
		t.Fatal(err)
	}
	requireLimit(t, "a second", p.playAs(t, "203.0.113.1", "one"), "sessions per address")
	c.Close()
	eventually(t, "its place is free", func() bool { return p.playAs(t, "203.0.113.1", "one") == nil })
}

// Buckets: a burst passes, then only the rate does.
func TestNewSessionsAndStreamsHaveRates(t *testing.T) {
	for name, test := range map[string]struct {
		limits string
		burst  int
		limit  string
		stream func(i int) string
		client func(i int) string
	}{
		"sessions of a client":    {"session_rate_per_client: 0.6", 3, "rate of sessions per address", sameStream, sameClient},
		"sessions in total":       {"session_rate: 0.6", 3, "rate of sessions", sameStream, eachClient},
		"new streams of a client": {"placement_rate_per_client: 0.3", 3, "rate of new streams per address", eachStream, sameClient},
		"new streams in total":    {"placement_rate: 0.3", 3, "rate of new streams", eachStream, eachClient},
	} {
		t.Run(name, func(t *testing.T) {
			p := limited(t, test.limits)
			for i := range test.burst {
				requireLimit(t, "within the burst", p.playAs(t, test.client(i), test.stream(i)), "")
			}
			began := time.Now()
			err := p.playAs(t, test.client(test.burst), test.stream(test.burst))
			if time.Since(began) < time.Second { // else the bucket may have a new token
				requireLimit(t, "after the burst", err, test.limit)
			}
			// Where the client is limited others are not; where new streams are,
			// known ones are played on.
			if strings.HasSuffix(test.limit, "per address") {
				requireLimit(t, "another client", p.playAs(t, "203.0.113.99", test.stream(99)), "")
			}
			if strings.Contains(test.limit, "streams") {
				requireLimit(t, "a known stream", p.playAs(t, test.client(0), test.stream(0)), "")
			}
		})
	}
}

func sameStream(int) string   { return "one" }
func eachStream(i int) string { return fmt.Sprint("s", i) }
func sameClient(int) string   { return "203.0.113.1" }
func eachClient(i int) string { return fmt.Sprint("203.0.113.", i+1) }

// A scanner that asks for names without end fills no memory, over any protocol.
func TestAScannerFillsNoMemory(t *testing.T) {
	p := limited(t, "placement_rate_per_client: 1, placements: 40")
	refused := 0
	for i := range 200 {
		r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://%s/live/scan%d.flv", p.http, i), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Forwarded-For", "203.0.113.7") // loopback is trusted
		client := p.here().client
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusTooManyRequests {
			refused++
		}
	}
	if n := len(p.placements(t)); n > 40 || refused < 100 {
		t.Errorf("%d placements, %d refusals of 200; want at most a burst of placements", n, refused)
	}
	requireLimit(t, "another client", p.playAs(t, "203.0.113.8", "one"), "")
}

func TestPlacementsAreCapped(t *testing.T) {
	p := limited(t, "placements: 3, placements_per_vhost: 2")
	for i, limit := range []string{"", "", "limit reached"} {
		_, err := p.tryPublish(t, fmt.Sprint("s", i))
		requireLimit(t, fmt.Sprint("stream ", i), err, limit)
	}
	if got := len(p.placements(t)); got != 2 {
		t.Errorf("%d placements; want 2", got)
	}
}

// Connections that say nothing are bounded before any protocol begins.
func TestConnectionsAreCapped(t *testing.T) {
	p := limited(t, "connections: 4, connections_per_address: 2", "-trusted", "192.0.2.0/24")
	var open []net.Conn
	for i, want := range []bool{true, true, false} {
		served := false
		conn, err := net.Dial("tcp", p.rtmp) // it may fail: the reset may come before it has returned
		if err == nil {
			defer conn.Close()
			open = append(open, conn)
			served = isServed(t, conn)
		}
		if served != want {
			t.Errorf("connection %d is served: %v (%v); want %v", i, served, err, want)
		}
	}
	if got := p.metric(t, "srsx_connections_rejected_total", `listener="rtmp"`, `limit="address"`); got != 1 {
		t.Errorf("rejected = %v; want 1", got)
	}
	_ = open[0].Close()
	eventually(t, "a place is free", func() bool {
		c, err := mediatest.Dial(t.Context(), mediatest.Target{Addr: p.rtmp, TCURL: "rtmp://h/live"})
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// isServed sends C0 and C1 of a handshake and reports whether there is an
// answer.
func isServed(t *testing.T, conn net.Conn) bool {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Write(append([]byte{3}, make([]byte, 1536)...))
	if err == nil {
		_, err = io.ReadFull(conn, make([]byte, 1))
	}
	return err == nil
}
