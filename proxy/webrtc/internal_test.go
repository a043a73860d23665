package webrtc

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

func TestNamesOfThisPeerAreResolvedAndKept(t *testing.T) {
	c := newCandidates([]string{"198.51.100.1:9000", "peer.example.com"}, 18000, true)
	asked, down := 0, errors.New("no such host")
	var fails error
	c.resolve = func(context.Context, string) ([]netip.Addr, error) {
		asked++
		return []netip.Addr{netip.MustParseAddr("::ffff:203.0.113.9"), netip.MustParseAddr("2001:db8::9")}, fails
	}
	for range 2 {
		list, err := c.list(t.Context())
		if err != nil || len(list) != 6 || asked != 1 {
			t.Fatalf("candidates = %v, %v, asked %d times; want three for UDP and for TCP, asked once", list, err, asked)
		}
		for i, want := range []string{"198.51.100.1:9000", "203.0.113.9:18000", "[2001:db8::9]:18000"} {
			if list[i].Addr.String() != want || list[i].TCP || list[i+3].Addr.String() != want || !list[i+3].TCP {
				t.Errorf("candidate %d = %v, %v; want %s", i, list[i], list[i+3], want)
			}
		}
	}
	known := c.names["peer.example.com"]
	known.until = time.Time{}
	c.names["peer.example.com"], fails = known, down
	if list, err := c.list(t.Context()); err != nil || len(list) != 6 {
		t.Errorf("with the name lost: %v, %v; want what it was", list, err)
	}
	never := newCandidates([]string{"peer.example.com"}, 18000, true)
	never.resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, down }
	if _, err := never.list(t.Context()); !errors.Is(err, errCandidates) {
		t.Errorf("a name that was never resolved: %v; want %v", err, errCandidates)
	}
}

func TestCandidatesThatNobodyReachesAreRefused(t *testing.T) {
	for _, text := range []string{"", "0.0.0.0", "::", "224.0.0.1", "fe80::1%eth0", "a b", "host:0", "host:99999", "[::]:1", "http://x"} {
		if host, port, err := ParseCandidate(text); err == nil {
			t.Errorf("%q is %s %d; want an error", text, host, port)
		}
	}
}

var someResource = resource{
	origin: proxy.Fingerprint{1, 2, 3}, id: "oooo", stream: lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "cam"}, publish: true,
}

func TestHintEnds(t *testing.T) {
	key, now := Secret{7}, time.Now()
	hint := key.sign(someResource, "/r?s=1", now)
	if got, ok := key.verify(hint, "/r?s=1", now.Add(sessionLife-time.Second)); !ok || got != someResource {
		t.Errorf("verify = %+v, %t; want what was signed", got, ok)
	}
	if _, ok := key.verify(hint, "/r?s=1", now.Add(sessionLife+time.Second)); ok {
		t.Error("a hint that has expired is valid")
	}
}

// Whatever comes as a hint is refused, unless it is the one that was signed.
func FuzzHint(f *testing.F) {
	key, now := Secret{7}, time.Unix(1_800_000_000, 0)
	valid := key.sign(someResource, "/r", now)
	for _, seed := range []string{valid, valid[:20], "", "AAAA", valid + "A", strings.Repeat("A", 3000)} {
		f.Add(seed, "/r")
	}
	f.Fuzz(func(t *testing.T, hint, target string) {
		if _, ok := key.verify(hint, target, now); ok && (hint != valid || target != "/r") {
			t.Errorf("%q is a hint for %q", hint, target)
		}
	})
}

// Whatever path and query a client asks for, what an origin is asked for has no
// hint and no credentials of the client's choice.
func FuzzTarget(f *testing.F) {
	f.Add("/rtc/v1/whip/", "app=live&stream=cam")
	f.Add("/live/cam/whip", "a=b&ice-ufrag=x&srsx=y&ice-pwd=z")
	f.Add("/%2e%2e/x/whep", "&&==&%zz")
	f.Add("/live/cam/whip", "ice%2Dufrag=x&ice-pw%64=y")
	f.Fuzz(func(t *testing.T, path, query string) {
		c, ok := callOf(path)
		if ok && !c.legacy && c.general != "" && strings.Trim(c.general, "/") == "" {
			t.Errorf("callOf(%q) = %+v; want a stream in it", path, c)
		}
		for part := range strings.SplitSeq(without(query, "ice-ufrag", "ice-pwd", hintParameter), "&") {
			name, _, _ := strings.Cut(part, "=")
			if plain, err := url.QueryUnescape(name); err == nil {
				name = plain
			}
			if name == "ice-ufrag" || name == "ice-pwd" || name == hintParameter {
				t.Errorf("%q is left of %q", part, query)
			}
		}
	})
}

// Whatever the two sides of the older API say, what is set is set and the rest
// passes as it is.
func FuzzEnvelope(f *testing.F) {
	f.Add([]byte(`{"api":"http://o/rtc/v1/play/","streamurl":"webrtc://o/live/cam","sdp":"v=0\r\n","tid":"x"}`))
	f.Add([]byte(`{"code":1028,"sdp":null,"sessionid":{"a":[1,2]}}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"sdp":1,"sdp":"twice"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var e envelope
		if json.Unmarshal(body, &e) != nil || e == nil {
			return
		}
		before := maps.Clone(e)
		e.set("sdp", "v=0")
		out, err := json.Marshal(e)
		if err != nil {
			t.Fatalf("%q is not written again: %v", body, err)
		}
		var again envelope
		if err = json.Unmarshal(out, &again); err != nil || again.text("sdp") != "v=0" {
			t.Fatalf("%q became %q", body, out)
		}
		for name := range before {
			if _, ok := again[name]; !ok {
				t.Errorf("%q lost %q", body, name)
			}
		}
	})
}

// A candidate that is accepted can be written into an answer.
func FuzzCandidate(f *testing.F) {
	for _, seed := range []string{"10.0.0.1", "10.0.0.1:8000", "::1", "[::1]:8000", "host.example", "host:0", "a b", "fe80::1%eth0", ":1", "", "\u212a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		host, port, err := ParseCandidate(text)
		if err != nil {
			return
		}
		if host == "" || strings.ContainsAny(host, " \r\n%") {
			t.Errorf("ParseCandidate(%q) = %q; want a host", text, host)
		}
		again, samePort, err := ParseCandidate(net.JoinHostPort(host, strconv.Itoa(max(1, int(port)))))
		if err != nil || again != host || port != 0 && samePort != port {
			t.Errorf("ParseCandidate of %q, %d = %q, %d, %v", host, port, again, samePort, err)
		}
	})
}
