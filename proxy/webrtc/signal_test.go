package webrtc_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/webrtc"
)

const whip = "/rtc/v1/whip/?app=live&stream=cam&token=x%2By"

func withoutCandidates(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "a=candidate:") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func TestOfferGoesToTheOriginAndItsAnswerComesBack(t *testing.T) {
	for _, c := range []struct {
		target  string
		publish bool
	}{
		{whip, true},
		{"/rtc/v1/whep/?app=live&stream=cam&token=x%2By", false},
		{"/rtc/v1/whip-play/?app=live&stream=cam&token=x%2By", false},
	} {
		o := startOrigin(t, "o")
		s := serve(t, nil, o)
		got := s.call(t, http.MethodPost, c.target, offer, "Content-Type", "application/sdp", "Authorization", "Bearer secret",
			"X-Forwarded-For", "192.0.2.44")
		if got.status != http.StatusCreated || withoutCandidates(got.body) != withoutCandidates(answer) {
			t.Errorf("%s: %d\n%s\nwant the origin's answer but for candidates", c.target, got.status, got.body)
		}
		for _, want := range []string{" 203.0.113.9 18000 typ host", " 2001:db8::9 18000 typ host", "tcptype passive"} {
			if !strings.Contains(got.body, want) {
				t.Errorf("%s: no candidate has %q:\n%s", c.target, want, got.body)
			}
		}
		if strings.Contains(got.body, "10.9.8.7") {
			t.Errorf("%s: the origin's address is in the answer", c.target)
		}
		if got.header.Get("ETag") != `"e1"` || !strings.Contains(got.header.Get("Link"), "stun.example.com") ||
			got.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(got.header.Get("Access-Control-Expose-Headers"), "Location") {
			t.Errorf("%s: header = %v; want the origin's ETag and Link, and CORS", c.target, got.header)
		}
		seen := o.last(t)
		if !strings.HasPrefix(seen.uri, c.target+"&ice-ufrag=") || !strings.Contains(seen.uri, "&ice-pwd=") {
			t.Errorf("the origin was asked for %s; want %s and credentials", seen.uri, c.target)
		}
		if strings.Contains(seen.body, "198.51.100.7") || !strings.Contains(seen.body, "a=ice-ufrag:cccc") {
			t.Errorf("the origin got the offer\n%s\nwant it without the client's addresses", seen.body)
		}
		h := seen.header
		if h.Get("Authorization") != "Bearer secret" || !strings.HasPrefix(h.Get("X-Forwarded-For"), "192.0.2.44") ||
			!strings.Contains(h.Get(proxy.HopHeader), "this-peer") {
			t.Errorf("the origin got the header %v; want the token, the client and the mark of this peer", h)
		}
		if p, _, placed := s.Balancer.Lookup(lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "cam"}); !placed || p.Publishing != c.publish {
			t.Errorf("%s: placement %+v, %t; want it, publishing %t", c.target, p, placed, c.publish)
		}
	}
}

func TestResourceWorksAtAnyPeer(t *testing.T) {
	o := startOrigin(t, "o")
	first, second := serve(t, nil, o), serve(t, nil, o)
	location := first.call(t, http.MethodPost, whip, offer).header.Get("Location")
	const own = "/rtc/v1/whip/?action=delete&token=t&session=s1"
	if !strings.HasPrefix(location, own+"&srsx=") {
		t.Fatalf("Location = %s; want the origin's and a hint", location)
	}
	const fragment = "a=ice-ufrag:cccc\r\na=candidate:1 1 udp 1 198.51.100.7 5000 typ host\r\n"
	if got := second.call(t, http.MethodPatch, location, fragment, "If-Match", `"e1"`); got.status != http.StatusNoContent {
		t.Errorf("PATCH at another peer = %d", got.status)
	}
	if seen := o.last(t); seen.method != http.MethodPatch || seen.uri != own || seen.header.Get("If-Match") != `"e1"` || strings.Contains(seen.body, "198.51.100.7") {
		t.Errorf("the origin saw %+v; want its own resource, the ETag and no address of the client", seen)
	}
	if got := second.call(t, http.MethodDelete, location, ""); got.status != http.StatusOK {
		t.Errorf("DELETE at another peer = %d", got.status)
	}
	if seen := o.last(t); seen.method != http.MethodDelete || seen.uri != own {
		t.Errorf("the origin saw %s %s; want DELETE %s", seen.method, seen.uri, own)
	}
	// One peer alone knows of the session, and ends it when it is the one asked.
	if got := first.call(t, http.MethodDelete, location, ""); got.status != http.StatusOK || first.Sessions() != 0 {
		t.Errorf("DELETE where it was signalled = %d, %d sessions left", got.status, first.Sessions())
	}
}

func TestNobodyEndsTheSessionOfAnother(t *testing.T) {
	o := startOrigin(t, "o")
	s := serve(t, nil, o)
	location := s.call(t, http.MethodPost, whip, offer).header.Get("Location")
	stranger := serve(t, func(c *webrtc.Config) { c.Secret = func() webrtc.Secret { return webrtc.Secret{8} } }, o)
	before := o.requests()
	path, hint, _ := strings.Cut(location, "&srsx=")
	flipped := []byte(hint)
	flipped[len(flipped)/2] ^= 1
	for what, got := range map[string]reply{
		"a hint of another key":      stranger.call(t, http.MethodDelete, location, ""),
		"a hint that is forged":      s.call(t, http.MethodDelete, path+"&srsx="+string(flipped), ""),
		"the hint of another one":    s.call(t, http.MethodDelete, strings.Replace(path, "s1", "s2", 1)+"&srsx="+hint, ""),
		"a hint that is cut off":     s.call(t, http.MethodDelete, path+"&srsx="+hint[:10], ""),
		"no base64":                  s.call(t, http.MethodDelete, path+"&srsx=%00%ff", ""),
		"a hint of a thousand lines": s.call(t, http.MethodDelete, path+"&srsx="+strings.Repeat("A", 5000), ""),
	} {
		if got.status != http.StatusNotFound {
			t.Errorf("DELETE with %s = %d; want 404", what, got.status)
		}
	}
	if got := s.call(t, http.MethodPost, location, offer); got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") == "" {
		t.Errorf("POST to a resource = %d; want 405", got.status)
	}
	if after := o.requests(); after != before || s.Sessions() != 1 {
		t.Errorf("the origin heard of %d of them, %d sessions; want none, and the one", after-before, s.Sessions())
	}
}

func TestPreflightIsAnsweredHere(t *testing.T) {
	o := startOrigin(t, "o")
	s := serve(t, nil, o)
	got := s.call(t, http.MethodOptions, whip, "", "Origin", "https://page.example.com", "Access-Control-Request-Headers", "authorization, content-type")
	h := got.header
	if got.status != http.StatusNoContent || h.Get("Access-Control-Allow-Headers") != "authorization, content-type" ||
		!strings.Contains(h.Get("Access-Control-Allow-Methods"), "PATCH") || o.requests() != 0 {
		t.Errorf("preflight = %d %v, %d requests at the origin", got.status, h, o.requests())
	}
}

func TestOlderAPIKeepsItsEnvelope(t *testing.T) {
	o := startOrigin(t, "o")
	o.behave(func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"code": 0, "server": "vid-1", "sessionid": "s:1", "sdp": answer, "own": []int{1}})
	})
	s := serve(t, nil, o)
	asked, err := json.Marshal(map[string]any{"api": "x", "streamurl": "webrtc://any.example.com/live/cam?token=t", "sdp": offer, "tid": "7"})
	if err != nil {
		t.Fatal(err)
	}
	got := s.call(t, http.MethodPost, "/rtc/v1/play/", string(asked), "X-Forwarded-For", "192.0.2.44")
	var said struct {
		Code                   int
		Server, SessionID, SDP string
		Own                    []int
	}
	if err := json.Unmarshal([]byte(got.body), &said); err != nil || said.Server != "vid-1" || said.SessionID != "s:1" || len(said.Own) != 1 {
		t.Errorf("answer = %s, %v; want the origin's envelope", got.body, err)
	}
	if !strings.Contains(said.SDP, "203.0.113.9") || strings.Contains(said.SDP, "10.9.8.7") {
		t.Errorf("answer's sdp = %s; want this peer's candidates", said.SDP)
	}
	var sent map[string]string
	seen := o.last(t)
	if err := json.Unmarshal([]byte(seen.body), &sent); err != nil || sent["clientip"] != "192.0.2.44" || sent["tid"] != "7" || strings.Contains(sent["sdp"], "198.51.100.7") {
		t.Errorf("the origin got %s, %v; want clientip, all other fields, and no candidates", seen.body, err)
	}
	// A refusal of the origin is in the envelope: nothing is held for it.
	o.behave(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"code":400,"server":"vid-1"}`)
	})
	sessions := s.Sessions()
	if got = s.call(t, http.MethodPost, "/rtc/v1/publish/", strings.Replace(string(asked), "cam", "other", 1)); got.body != `{"code":400,"server":"vid-1"}` || s.Sessions() != sessions {
		t.Errorf("a refusal came as %s, with %d sessions more", got.body, s.Sessions()-sessions)
	}
}

func TestOtherOriginsHaveTheirOwnPaths(t *testing.T) {
	o := startOrigin(t, "o")
	s := serve(t, func(c *webrtc.Config) {
		c.PathsOf = func(lb.Origin) webrtc.Paths {
			return webrtc.Paths{WHIP: "/{app}/{stream}/whip", WHEP: "/play/{vhost}/{app}/{stream}"}
		}
	}, o)
	for target, want := range map[string]string{
		whip:                           "/live/cam/whip?app=live&stream=cam&token=x%2By",
		"/live/two/whip?token=x%2By":   "/live/two/whip?token=x%2By",
		"/live/t%C3%A9/whep?ice-pwd=x": "/play/__defaultVhost__/live/t%C3%A9",
	} {
		if got := s.call(t, http.MethodPost, target, offer); got.status != http.StatusCreated {
			t.Errorf("POST %s = %d %s", target, got.status, got.body)
		}
		if seen := o.last(t); seen.uri != want {
			t.Errorf("POST %s came as %s; want %s", target, seen.uri, want)
		}
	}
}
