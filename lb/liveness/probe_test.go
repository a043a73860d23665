package liveness_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"srsx/lb"
	"srsx/lb/liveness"
)

// listening returns the address of a port that accepts, and of one that does not.
func listening(t *testing.T) (open, closed string) {
	t.Helper()
	addresses := make([]string, 2)
	for i := range addresses {
		var config net.ListenConfig
		ln, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		addresses[i] = ln.Addr().String()
		if i == 1 {
			_ = ln.Close()
		}
	}
	return addresses[0], addresses[1]
}

func TestProbe(t *testing.T) {
	open, closed := listening(t)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/api/v1/versions" {
			t.Errorf("asked for %s; want /api/v1/versions", r.URL.Path)
		}
		w.WriteHeader(http.StatusNotFound) // other software
	}))
	t.Cleanup(api.Close)
	garbage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = conn.Write([]byte("\x03 not HTTP\r\n\r\n"))
			_ = conn.Close()
		}
	}))
	t.Cleanup(garbage.Close)
	answers, nonsense := strings.TrimPrefix(api.URL, "http://"), strings.TrimPrefix(garbage.URL, "http://")
	for name, c := range map[string]struct {
		endpoints lb.Endpoints
		says      string // of the error; empty: alive
	}{
		"media port accepts":           {lb.Endpoints{RTMP: []string{open}}, ""},
		"media port refuses":           {lb.Endpoints{RTMP: []string{closed}}, "probe media port: "},
		"the first of two counts":      {lb.Endpoints{RTMP: []string{closed, open}}, "probe media port: "},
		"HTTP without RTMP":            {lb.Endpoints{HTTP: []string{open}}, ""},
		"WebRTC over TCP":              {lb.Endpoints{RTC: []string{"udp://127.0.0.1:1", "tcp://" + open}}, ""},
		"API answers, whatever":        {lb.Endpoints{RTMP: []string{open}, API: []string{answers}}, ""},
		"API alone":                    {lb.Endpoints{API: []string{answers}}, ""},
		"API refuses":                  {lb.Endpoints{RTMP: []string{open}, API: []string{closed}}, "probe API: "},
		"API talks nonsense":           {lb.Endpoints{RTMP: []string{open}, API: []string{nonsense}}, "probe API: "},
		"API answers, media port dead": {lb.Endpoints{RTMP: []string{closed}, API: []string{answers}}, "probe media port: "},
		"UDP only":                     {lb.Endpoints{SRT: []string{"udp://127.0.0.1:1"}}, "no TCP endpoint to probe"},
	} {
		t.Run(name, func(t *testing.T) {
			err := liveness.Probe(t.Context(), lb.Origin{Endpoints: c.endpoints})
			if (err == nil) != (c.says == "") || err != nil && !strings.HasPrefix(err.Error(), c.says) {
				t.Errorf("Probe = %v; want %q", err, c.says)
			}
		})
	}
}
