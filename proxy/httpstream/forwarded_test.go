package httpstream_test

import (
	"bufio"
	"io"
	"net/http"
	"testing"

	"srsx/proxy"
	"srsx/proxy/httpstream"
	"srsx/test/origintest"
	"srsx/test/proxytest"
)

// forwarded are the headers by which origins learn the client's address.
var forwarded = []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto"}

func TestOriginSeesTheRealClient(t *testing.T) {
	const get = "GET /live/s.flv HTTP/1.1\r\nHost: h\r\n"
	v1 := "PROXY TCP4 203.0.113.7 127.0.0.1 5555 80\r\n"
	v1IPv6 := "PROXY TCP6 2001:db8::7 ::1 5555 80\r\n"
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x07\x7f\x00\x00\x01\x15\xb3\x00\x50"
	v2Local := "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00" // the balancer's own health check
	for name, c := range map[string]struct {
		trusted string // empty: nobody
		sent    string
		client  string // in the log
		want    [5]string
	}{
		"a stranger without headers": {
			"", get, "127.0.0.1:", [5]string{"127.0.0.1", "127.0.0.1", "", "h", "http"},
		},
		"a stranger's headers": {
			"10.0.0.0/8", get + "X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\nForwarded: for=192.0.2.1\r\n" +
				"X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\n",
			"127.0.0.1:",
			[5]string{"127.0.0.1", "127.0.0.1", "", "h", "http"},
		},
		"a stranger's headers, named as of one connection": {
			"", get + "Connection: X-Forwarded-For, X-Real-IP\r\nX-Forwarded-For: 192.0.2.1\r\n",
			"127.0.0.1:",
			[5]string{"127.0.0.1", "127.0.0.1", "", "h", "http"},
		},
		"a trusted proxy": {
			"127.0.0.1", get + "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: cdn.example.com\r\nX-Forwarded-Proto: https\r\n",
			"192.0.2.1:0",
			[5]string{"192.0.2.1, 127.0.0.1", "192.0.2.1", "", "cdn.example.com", "https"},
		},
		"a trusted proxy behind others": {
			"127.0.0.1", get + "X-Forwarded-For: 2001:db8::1, 192.0.2.2\r\nX-Forwarded-For: 192.0.2.3\r\nForwarded: for=192.0.2.1\r\n",
			"[2001:db8::1]:0",
			[5]string{"2001:db8::1, 192.0.2.2, 192.0.2.3, 127.0.0.1", "2001:db8::1", "for=192.0.2.1, for=127.0.0.1", "h", "http"},
		},
		"a trusted proxy that adds the port": {
			"127.0.0.1", get + "X-Forwarded-For: [2001:db8::1]:4711\r\n",
			"[2001:db8::1]:0",
			[5]string{"[2001:db8::1]:4711, 127.0.0.1", "2001:db8::1", "", "h", "http"},
		},
		"a trusted proxy that says X-Real-IP": {
			"127.0.0.1", get + "X-Real-IP: 192.0.2.1\r\n",
			"192.0.2.1:0",
			[5]string{"192.0.2.1, 127.0.0.1", "192.0.2.1", "", "h", "http"},
		},
		"a trusted proxy that says nothing": {
			"127.0.0.1", get, "127.0.0.1:", [5]string{"127.0.0.1", "127.0.0.1", "", "h", "http"},
		},
		"a trusted proxy that talks nonsense": {
			"127.0.0.1", get + "X-Forwarded-For: unknown\r\n", "127.0.0.1:", [5]string{"unknown, 127.0.0.1", "127.0.0.1", "", "h", "http"},
		},
		"PROXY protocol 1": {
			"127.0.0.1", v1 + get, "203.0.113.7:5555", [5]string{"203.0.113.7", "203.0.113.7", "", "h", "http"},
		},
		"PROXY protocol 1, IPv6": {
			"127.0.0.1", v1IPv6 + get, "[2001:db8::7]:5555", [5]string{"2001:db8::7", "2001:db8::7", "", "h", "http"},
		},
		"PROXY protocol 2": {
			"127.0.0.1", v2 + get, "203.0.113.7:5555", [5]string{"203.0.113.7", "203.0.113.7", "", "h", "http"},
		},
		"PROXY protocol 2 of a check": {
			"127.0.0.1", v2Local + get, "127.0.0.1:", [5]string{"127.0.0.1", "127.0.0.1", "", "h", "http"},
		},
		"a stranger behind a trusted balancer": { // it passes bytes, and so his claims
			"127.0.0.1", v2 + get + "X-Forwarded-For: 192.0.2.1\r\n",
			"203.0.113.7:5555",
			[5]string{"203.0.113.7", "203.0.113.7", "", "h", "http"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := startTrusting(t, c.trusted, proxy.Limits{})
			if status := p.status(t, c.sent+"Connection: close\r\n\r\n"); status != http.StatusOK {
				t.Fatalf("status %d", status)
			}
			seen := p.origin.Seen("http")[0].Request.Header
			for i, header := range forwarded {
				if got := seen.Values(header); len(got) > 1 || seen.Get(header) != c.want[i] {
					t.Errorf("origin saw %s: %q; want %q", header, got, c.want[i])
				}
			}
			proxytest.Eventually(t, "the log names the client "+c.client, func() bool {
				return len(p.Log.Lines("session ended", "client="+c.client)) == 1
			})
		})
	}
}

// startTrusting runs a peer that believes one network, and its balancers.
func startTrusting(t *testing.T, network string, limits proxy.Limits) *peer {
	t.Helper()
	var trusted proxy.Networks
	if network != "" {
		var err error
		if trusted, err = proxy.ParseNetworks(network); err != nil {
			t.Fatal(err)
		}
	}
	origin := origintest.Start(t, origintest.Config{Script: answer(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, media) })})
	return startWith(t, setup{
		origins: []*origintest.Origin{origin}, limits: limits, listen: proxy.ListenConfig{Trusted: trusted},
		change: func(c *httpstream.Config) { c.Trusted = trusted },
	})
}

// status sends a request by hand and returns the answer's status.
func (p *peer) status(t *testing.T, sent string) int {
	t.Helper()
	conn, reader := p.raw(t, sent)
	defer conn.Close()
	return readStatus(t, reader)
}

func readStatus(t *testing.T, reader *bufio.Reader) int {
	t.Helper()
	response, err := http.ReadResponse(reader, nil) //nolint:bodyclose // ends with the connection
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode
}

// Limits count clients, not the balancer that they come through.
func TestLimitsCountTheRealClient(t *testing.T) {
	p := startTrusting(t, "127.0.0.1", proxy.Limits{SessionRatePerClient: 0.1}) // a burst of one
	for _, c := range []struct {
		client string
		want   int
	}{{"192.0.2.1", 200}, {"192.0.2.1", 429}, {"192.0.2.2", 200}, {"192.0.2.2", 429}} {
		if status := p.status(t, "GET /live/s.flv HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: "+c.client+"\r\n\r\n"); status != c.want {
			t.Errorf("client %s: status %d; want %d", c.client, status, c.want)
		}
	}
	if refused := p.Log.Lines("client refused", "client=192.0.2.1:0", "limit"); len(refused) != 1 {
		t.Errorf("log = %q; want a line for the refused client", refused)
	}
}

// Viewers are told apart by the same address.
func TestViewersBehindATrustedProxyAreSessionsOfTheirOwn(t *testing.T) {
	p := startTrusting(t, "127.0.0.1", proxy.Limits{})
	for _, client := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.1"} {
		p.status(t, "GET /live/s.m3u8 HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: "+client+"\r\n\r\n")
	}
	if open := p.Router.Sessions(); len(open) != 2 || open[0].Client.Addr() == open[1].Client.Addr() {
		t.Errorf("sessions = %+v; want one of each viewer", open)
	}
}
