package webrtc_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"srsx/proxy"
	"srsx/proxy/webrtc"
)

func TestBadRequestsGetOneClearError(t *testing.T) {
	o := startOrigin(t, "o")
	s := serve(t, nil, o)
	for what, c := range map[string]struct {
		method, target, body string
		want                 int
	}{
		"no SDP":                {http.MethodPost, whip, "hello", http.StatusBadRequest},
		"nothing":               {http.MethodPost, whip, "", http.StatusBadRequest},
		"no JSON":               {http.MethodPost, "/rtc/v1/publish/", "[1", http.StatusBadRequest},
		"JSON of another kind":  {http.MethodPost, "/rtc/v1/publish/", `{"sdp":1,"streamurl":{}}`, http.StatusBadRequest},
		"no stream":             {http.MethodPost, "/rtc/v1/whip/", offer, http.StatusNotFound},
		"GET":                   {http.MethodGet, whip, "", http.StatusMethodNotAllowed},
		"another path":          {http.MethodPost, "/rtc/v1/nack/", offer, http.StatusNotFound},
		"DELETE without a hint": {http.MethodDelete, "/live/cam/whip", "", http.StatusMethodNotAllowed},
	} {
		got := s.call(t, c.method, c.target, c.body)
		var said struct {
			Code  int
			Error string
		}
		if err := json.Unmarshal([]byte(got.body), &said); err != nil || got.status != c.want || said.Code != c.want || said.Error == "" {
			t.Errorf("%s = %d %s; want %d and a reason", what, got.status, got.body, c.want)
		}
	}
	if o.requests() != 0 || s.Sessions() != 0 {
		t.Errorf("%d requests reached the origin, %d sessions are open", o.requests(), s.Sessions())
	}
}

// Ten megabytes are refused when they are announced, or when that much has come.
func TestLongBodiesAreRefused(t *testing.T) {
	o := startOrigin(t, "o")
	s := serve(t, nil, o)
	for _, target := range []string{whip, "/rtc/v1/play/"} {
		for how, sent := range map[string]string{
			"announced":   "Content-Length: 10485760\r\n\r\nv=0\r\n",
			"in chunks":   "Transfer-Encoding: chunked\r\n\r\n41000\r\n" + strings.Repeat("v=0\r\n ", 0x41000/6+1),
			"in no hurry": "Content-Length: 9\r\n\r\nv=0",
		} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err = io.WriteString(conn, "POST "+target+" HTTP/1.1\r\nHost: h\r\n"+sent); err != nil {
				t.Fatal(err)
			}
			response, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s %s: %v", target, how, err)
			}
			want := http.StatusRequestEntityTooLarge
			if how == "in no hurry" {
				want = http.StatusBadRequest
			}
			if response.StatusCode != want {
				t.Errorf("%s %s = %d; want %d", target, how, response.StatusCode, want)
			}
			_ = response.Body.Close()
			_ = conn.Close()
		}
	}
	if o.requests() != 0 || s.Sessions() != 0 {
		t.Errorf("%d requests reached the origin, %d sessions are open", o.requests(), s.Sessions())
	}
}

func TestBadOriginsGetOneClearError(t *testing.T) {
	hangs := make(chan struct{})
	for what, c := range map[string]struct {
		script http.HandlerFunc
		want   int
		retry  bool
	}{
		"refuses": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }, http.StatusForbidden, false},
		"sends elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://10.9.8.7/", http.StatusFound)
		}, http.StatusBadGateway, false},
		"answers no SDP":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }, http.StatusBadGateway, false},
		"answers endlessly": {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat(answer, 2000)) }, http.StatusBadGateway, false},
		"hangs":             {func(http.ResponseWriter, *http.Request) { <-hangs }, http.StatusGatewayTimeout, true},
		"tells where it is": {func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, fmt.Sprint("at ", r.Context().Value(http.LocalAddrContextKey)), http.StatusNotFound)
		}, http.StatusNotFound, false},
	} {
		o := startOrigin(t, "o")
		o.behave(c.script)
		s := serve(t, func(c *webrtc.Config) { c.AnswerTimeout = 300 * time.Millisecond }, o)
		got := s.call(t, http.MethodPost, whip, offer)
		if got.status != c.want || (got.header.Get("Retry-After") != "") != c.retry || strings.Contains(got.body, o.Endpoints.API[0]) {
			t.Errorf("an origin that %s: %d %s %v; want %d, retry %t", what, got.status, got.body, got.header, c.want, c.retry)
		}
		if s.Sessions() != 0 {
			t.Errorf("an origin that %s: %d sessions are held", what, s.Sessions())
		}
		if what == "hangs" {
			close(hangs)
		}
	}
	nobody := serve(t, nil)
	if got := nobody.call(t, http.MethodPost, whip, offer); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("without an origin: %d %v; want 503 and when to try again", got.status, got.header)
	}
}

func TestRelayLoopIsRefused(t *testing.T) {
	o := startOrigin(t, "o")
	s := serve(t, nil, o)
	got := s.call(t, http.MethodPost, whip, offer, proxy.HopHeader, "this-peer")
	if got.status < 400 || o.requests() != 0 {
		t.Errorf("a request that was here before = %d, and %d reached the origin", got.status, o.requests())
	}
}
