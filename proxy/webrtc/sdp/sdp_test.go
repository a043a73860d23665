package sdp_test

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"

	pion "github.com/pion/sdp/v3"

	"srsx/proxy/webrtc/sdp"
)

// srsAnswer has the shape of SRS's: candidates in each media, and lines that
// nobody but SRS writes.
const srsAnswer = "v=0\r\no=SRS/7.0.18(Kai) 107408542208384 2 IN IP4 0.0.0.0\r\ns=SRSPublishSession\r\nt=0 0\r\na=ice-lite\r\n" +
	"a=group:BUNDLE 0 1\r\na=msid-semantic: WMS live/cam\r\n" +
	"m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:4pb5zu90\r\na=ice-pwd:0123456789abcdef0123456789abcdef\r\n" +
	"a=fingerprint:sha-256 AA:BB\r\na=setup:passive\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n" +
	"a=candidate:0 1 udp 2130706431 192.168.3.82 8000 typ host generation 0\r\n" +
	"a=candidate:0 1 tcp 2130706431 192.168.3.82 8000 typ host tcptype passive generation 0\r\n" +
	"m=video 9 UDP/TLS/RTP/SAVPF 106\r\nc=IN IP4 0.0.0.0\r\na=mid:1\r\na=rtpmap:106 H264/90000\r\n" +
	"a=candidate:0 1 udp 2130706431 192.168.3.82 8000 typ host generation 0\r\na=x-unknown:kept\r\n"

var ours = []sdp.Candidate{
	{Addr: netip.MustParseAddrPort("203.0.113.9:18000")},
	{Addr: netip.MustParseAddrPort("[2001:db8::9]:18000")},
	{Addr: netip.MustParseAddrPort("203.0.113.9:18000"), TCP: true},
}

func withoutCandidateLines(text string) string {
	var kept strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "a=candidate:") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

func TestOnlyCandidatesOfAnAnswerChange(t *testing.T) {
	got := string(sdp.WithCandidates([]byte(srsAnswer), ours))
	if withoutCandidateLines(got) != withoutCandidateLines(srsAnswer) {
		t.Errorf("other lines changed:\n%s", got)
	}
	if strings.Contains(got, "192.168.3.82") {
		t.Errorf("the origin's address is left:\n%s", got)
	}
	const block = "a=candidate:1 1 udp 2130706431 203.0.113.9 18000 typ host generation 0\r\n" +
		"a=candidate:2 1 udp 2130706175 2001:db8::9 18000 typ host generation 0\r\n" +
		"a=candidate:3 1 tcp 1520434687 203.0.113.9 18000 typ host tcptype passive generation 0\r\n"
	if strings.Count(got, block) != 2 || strings.Count(got, "a=candidate:") != 6 {
		t.Errorf("candidates = \n%s\nwant twice\n%s", got, block)
	}
	if !strings.Contains(got, "a=rtpmap:111 opus/48000/2\r\n"+block+"m=video") {
		t.Errorf("candidates are not where the origin's were:\n%s", got)
	}
}

// Others read what we write: the lines as such, and the priorities in order.
func TestCandidatesAreValid(t *testing.T) {
	var description pion.SessionDescription
	if err := description.Unmarshal(sdp.WithCandidates([]byte(srsAnswer), ours)); err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, media := range description.MediaDescriptions {
		for _, a := range media.Attributes {
			if a.IsICECandidate() {
				found++
			}
		}
	}
	if found != 6 {
		t.Errorf("%d candidates; want 6", found)
	}
}

func TestAnswerWithoutCandidatesGetsOurs(t *testing.T) {
	const line = "a=candidate:1 1 udp 2130706431 203.0.113.9 18000 typ host generation 0"
	for name, c := range map[string]struct{ answer, want string }{
		"two media": {
			"v=0\r\nm=audio 9 X 0\r\na=mid:0\r\nm=video 9 X 0\r\na=mid:1\r\n",
			"v=0\r\nm=audio 9 X 0\r\na=mid:0\r\n" + line + "\r\nm=video 9 X 0\r\na=mid:1\r\n",
		},
		"the first is rejected": {
			"v=0\r\nm=audio 0 X 0\r\na=mid:0\r\nm=video 9 X 0\r\na=mid:1\r\n",
			"v=0\r\nm=audio 0 X 0\r\na=mid:0\r\nm=video 9 X 0\r\na=mid:1\r\n" + line + "\r\n",
		},
		"bare line feeds":      {"v=0\nm=audio 9 X 0\n", "v=0\nm=audio 9 X 0\n" + line + "\n"},
		"no end of last line":  {"v=0\r\nm=audio 9 X 0", "v=0\r\nm=audio 9 X 0\r\n" + line + "\r\n"},
		"fragment of no media": {"a=ice-ufrag:abcd\r\n", "a=ice-ufrag:abcd\r\n" + line + "\r\n"},
	} {
		if got := string(sdp.WithCandidates([]byte(c.answer), ours[:1])); got != c.want {
			t.Errorf("%s: WithCandidates = %q; want %q", name, got, c.want)
		}
	}
}

func TestOriginLearnsNoAddressOfTheClient(t *testing.T) {
	const offer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n" +
		"m=audio 51000 UDP/TLS/RTP/SAVPF 111 63\r\nc=IN IP4 198.51.100.7\r\na=rtcp:51001 IN IP4 198.51.100.7\r\n" +
		"a=candidate:1 1 udp 2122260223 198.51.100.7 51000 typ host generation 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n" +
		"a=ice-options:trickle\r\na=remote-candidates:1 203.0.113.1 8000\r\na=end-of-candidates\r\na=mid:0\r\n" +
		"m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP6 2001:db8::7\r\na=bundle-only\r\na=mid:1\r\n"
	const want = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n" +
		"m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n" +
		"a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n" +
		"a=ice-options:trickle\r\na=mid:0\r\n" +
		"m=video 0 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP6 ::\r\na=bundle-only\r\na=mid:1\r\n"
	if got := string(sdp.WithoutAddresses([]byte(offer))); got != want {
		t.Errorf("WithoutAddresses =\n%s\nwant\n%s", got, want)
	}
}

func TestCredentialsAreRead(t *testing.T) {
	got, ok := sdp.CredentialsOf([]byte(srsAnswer))
	if want := (sdp.Credentials{Ufrag: "4pb5zu90", Password: "0123456789abcdef0123456789abcdef"}); !ok || got != want {
		t.Errorf("CredentialsOf = %v, %v; want %v", got, ok, want)
	}
	for name, text := range map[string]string{
		"none":           "v=0\r\n",
		"short ufrag":    "a=ice-ufrag:abc\r\na=ice-pwd:0123456789012345678901\r\n",
		"short password": "a=ice-ufrag:abcd\r\na=ice-pwd:012345678901234567890\r\n",
		"long ufrag":     "a=ice-ufrag:" + strings.Repeat("a", 257) + "\r\na=ice-pwd:0123456789012345678901\r\n",
		"colon":          "a=ice-ufrag:ab:cd\r\na=ice-pwd:0123456789012345678901\r\n",
	} {
		if c, ok := sdp.CredentialsOf([]byte(text)); ok {
			t.Errorf("%s: CredentialsOf = %v; want none", name, c)
		}
	}
}

func TestGarbageIsNoSDP(t *testing.T) {
	if err := sdp.Check([]byte(srsAnswer)); err != nil {
		t.Errorf("Check of an answer = %v; want nil", err)
	}
	for name, text := range map[string]string{
		"empty":          "",
		"json":           `{"sdp":"v=0"}`,
		"binary":         "v=0\x00\r\nm=audio 9 X 0\r\n",
		"not lines":      "v=0\r\nhello\r\n" + srsAnswer,
		"no media":       "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n",
		"no credentials": "v=0\r\nm=audio 9 X 0\r\n",
	} {
		if err := sdp.Check([]byte(text)); !errors.Is(err, sdp.ErrNotSDP) {
			t.Errorf("%s: Check = %v; want %v", name, err, sdp.ErrNotSDP)
		}
	}
}

func FuzzRewrite(f *testing.F) {
	f.Add([]byte(srsAnswer))
	f.Add([]byte("v=0\nm=audio 9 X 0\nc=IN IP4 1.2.3.4\na=rtcp:9"))
	f.Add([]byte("m=\r\na=candidate:\r\nm=video 0\na=candidate:x"))
	f.Add([]byte("\n\r\n\r"))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = sdp.Check(b)
		_, _ = sdp.CredentialsOf(b)
		before := bytes.Clone(b)
		answer := sdp.WithCandidates(b, ours)
		if !bytes.Equal(b, before) {
			t.Fatal("WithCandidates changed its argument")
		}
		if n := bytes.Count(answer, []byte("a=candidate:1 1 udp 2130706431 203.0.113.9 ")); n == 0 {
			t.Fatalf("WithCandidates of %q has none of ours", b)
		}
		// Again changes nothing: ours take the place of ours.
		if again := sdp.WithCandidates(answer, ours); !bytes.Equal(again, answer) {
			t.Fatalf("WithCandidates again = %q; want %q", again, answer)
		}
		offer := sdp.WithoutAddresses(b)
		for line := range bytes.Lines(offer) {
			if bytes.HasPrefix(line, []byte("a=candidate:")) {
				t.Fatalf("WithoutAddresses left %q", line)
			}
		}
		if again := sdp.WithoutAddresses(offer); !bytes.Equal(again, offer) {
			t.Fatalf("WithoutAddresses again = %q; want %q", again, offer)
		}
	})
}
