package httpstream

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"

	oracle "github.com/bluenviron/gohlslib/v2/pkg/playlist"

	"srsx/lb"
	"srsx/proxy"
)

func edit() *rewrite {
	return &rewrite{
		base: &url.URL{Path: "/live/s.m3u8"}, own: []string{"10.0.0.1:8080", "me.example"},
		hint: func(dir string) string { return "HINT" + strings.ReplaceAll(dir, "/", ".") },
	}
}

// apply returns what write writes.
func (r *rewrite) apply(b []byte) []byte {
	var out bytes.Buffer
	to := bufio.NewWriter(&out)
	_ = r.copy(to, bufio.NewReaderSize(bytes.NewReader(b), 16+len(b)))
	_ = to.Flush()
	return out.Bytes()
}

func TestOnlyURIsOfTheOriginAreChanged(t *testing.T) {
	for in, want := range map[string]string{
		"a.ts":                                           "a.ts?srsx=HINT.live",
		"a.ts?x=1":                                       "a.ts?x=1&srsx=HINT.live",
		"a.ts#f":                                         "a.ts?srsx=HINT.live#f",
		"/b/a.ts":                                        "/b/a.ts?srsx=HINT.b",
		"../a.ts\r":                                      "../a.ts?srsx=HINT.\r",
		"http://10.0.0.1:8080/live/a.ts?k=v":             "/live/a.ts?k=v&srsx=HINT.live",
		"https://cdn.example/a.ts":                       "https://cdn.example/a.ts",
		"data:video/mp2t;base64,AAAA":                    "data:video/mp2t;base64,AAAA",
		"#EXTINF:1.0,URI":                                "#EXTINF:1.0,URI",
		`#EXT-X-KEY:METHOD=AES-128,URI="k.key"`:          `#EXT-X-KEY:METHOD=AES-128,URI="k.key?srsx=HINT.live"`,
		`#EXT-X-MAP:URI="i.mp4",BYTERANGE="1@0"`:         `#EXT-X-MAP:URI="i.mp4?srsx=HINT.live",BYTERANGE="1@0"`,
		`#EXT-X-PART:DURATION=0.2,URI="p.m4s"`:           `#EXT-X-PART:DURATION=0.2,URI="p.m4s?srsx=HINT.live"`,
		`#EXT-X-PRELOAD-HINT:TYPE=PART,URI="p.ts"`:       `#EXT-X-PRELOAD-HINT:TYPE=PART,URI="p.ts?srsx=HINT.live"`,
		`#EXT-X-UNKNOWN:NOTURI="x",A=1`:                  `#EXT-X-UNKNOWN:NOTURI="x",A=1`,
		`#EXT-X-KEY:URI="unclosed`:                       `#EXT-X-KEY:URI="unclosed`,
		"{$base}/a.ts":                                   "{$base}/a.ts",
		`#EXTINF:1.0,URI="x"`:                            `#EXTINF:1.0,URI="x"`,
		`#EXT-X-DATERANGE:X-C="a,URI=",ID="b"`:           `#EXT-X-DATERANGE:X-C="a,URI=",ID="b"`,
		`#EXT-X-MEDIA:TYPE=AUDIO,URI="a.m3u8",X=1`:       `#EXT-X-MEDIA:TYPE=AUDIO,URI="a.m3u8?srsx=HINT.live",X=1`,
		`#EXT-X-RENDITION-REPORT:URI="../b.m3u8"`:        `#EXT-X-RENDITION-REPORT:URI="../b.m3u8?srsx=HINT."`,
		`#EXT-X-I-FRAME-STREAM-INF:URI="i.m3u8"`:         `#EXT-X-I-FRAME-STREAM-INF:URI="i.m3u8?srsx=HINT.live"`,
		`#EXT-X-SESSION-KEY:METHOD=X,URI="/k"`:           `#EXT-X-SESSION-KEY:METHOD=X,URI="/k?srsx=HINT."`,
		`#EXT-X-SESSION-KEY:URI="skd://10.0.0.1:8080/k"`: `#EXT-X-SESSION-KEY:URI="skd://10.0.0.1:8080/k"`,
		`#EXT-X-SESSION-DATA:DATA-ID="a",URI="d.json"`:   `#EXT-X-SESSION-DATA:DATA-ID="a",URI="d.json?srsx=HINT.live"`,
		`#EXT-X-DATERANGE:ID="a",X-ASSET-URI="ad.m3u8"`:  `#EXT-X-DATERANGE:ID="a",X-ASSET-URI="ad.m3u8?srsx=HINT.live"`,
		`#EXT-X-DATERANGE:X-ASSET-LIST="/l?a=b",ID="a"`:  `#EXT-X-DATERANGE:X-ASSET-LIST="/l?a=b&srsx=HINT.",ID="a"`,
		`#EXT-X-CONTENT-STEERING:SERVER-URI="/s"`:        `#EXT-X-CONTENT-STEERING:SERVER-URI="/s?srsx=HINT."`,
		`#EXT-X-PART:URI="a.ts?srsx=x",A=B`:              `#EXT-X-PART:URI="a.ts?srsx=x",A=B`,
		"sub/a.ts?mysrsx=1":                              "sub/a.ts?mysrsx=1&srsx=HINT.live.sub",
		"a%2Fb.ts":                                       "a%2Fb.ts?srsx=HINT.live.a",
		"你.ts":                                           "你.ts?srsx=HINT.live",
		"HTTP://10.0.0.1:8080/a.ts#f":                    "/a.ts?srsx=HINT.#f",
		"//10.0.0.1:8080/a.ts":                           "/a.ts?srsx=HINT.",
		"http://u:p@10.0.0.1:8080/a.ts":                  "/a.ts?srsx=HINT.",
		"http://10.0.0.1/a.ts":                           "http://10.0.0.1/a.ts",
		"http://me.example:80/a.ts":                      "/a.ts?srsx=HINT.",
		"https://me.example:443/a.ts":                    "/a.ts?srsx=HINT.",
		"https://me.example:80/a.ts":                     "https://me.example:80/a.ts",
		"http://10.0.0.1:8080":                           "http://10.0.0.1:8080",
		"http://10.0.0.1:8080?a=/b":                      "http://10.0.0.1:8080?a=/b",
		"ftp://10.0.0.1:8080/a.ts":                       "ftp://10.0.0.1:8080/a.ts",
		"?a=b":                                           "?a=b",
		"..":                                             "..?srsx=HINT.",
		"# a.ts":                                         "# a.ts",
		"":                                               "",
		"a\x00b.ts":                                      "a\x00b.ts",
	} {
		if got := string(edit().apply([]byte(in))); got != want {
			t.Errorf("%q became %q; want %q", in, got, want)
		}
	}
}

func TestHugePlaylistsTakeLinearTime(t *testing.T) {
	for name, in := range map[string][]byte{
		"a million lines": bytes.Repeat([]byte("a.ts\n"), 1_000_000),
		"no newline":      bytes.Repeat([]byte("a"), 4<<20),
		"one long tag":    append([]byte("#EXT-X-KEY:"), bytes.Repeat([]byte(`URI="a",`), 500_000)...),
	} {
		if out := edit().apply(in); len(out) < len(in) {
			t.Errorf("%s: %d bytes became %d", name, len(in), len(out))
		}
	}
}

// Another implementation reads the same playlist from what we wrote.
func TestRewrittenPlaylistReadsTheSame(t *testing.T) {
	in := "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:7\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:4.00000,\nseg7.mp4\n#EXTINF:4.00000,\nseg8.mp4\n"
	var before, after oracle.Media
	if err := before.Unmarshal([]byte(in)); err != nil {
		t.Fatal(err)
	}
	if err := after.Unmarshal(edit().apply([]byte(in))); err != nil {
		t.Fatal(err)
	}
	if len(after.Segments) != 2 || after.MediaSequence != before.MediaSequence || after.Map.URI != "init.mp4?srsx=HINT.live" {
		t.Errorf("rewritten playlist reads as %+v", after)
	}
}

func FuzzPlaylist(f *testing.F) {
	f.Add([]byte("#EXTM3U\n#EXT-X-KEY:URI=\"a\"\na.ts?x\r\nhttp://h/a\n"))
	f.Add([]byte("seg-1.ts?a=b&c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if isPlain(b) { // the short way gives what the long one does
			var short bytes.Buffer
			to := bufio.NewWriter(&short)
			edit().uri(to, b)
			_ = to.Flush()
			if long := edit().resolve(string(b)); short.String() != long {
				t.Fatalf("%q became %q; want %q", b, short.String(), long)
			}
		}
		out := edit().apply(b)
		if bytes.Count(out, []byte("\n")) != bytes.Count(b, []byte("\n")) {
			t.Fatal("the number of lines changed")
		}
		if again := edit().apply(out); !bytes.Equal(again, out) && !bytes.Contains(b, []byte("10.0.0.1")) && !bytes.Contains(b, []byte("me.example")) {
			t.Fatalf("a second pass changed %q to %q", out, again)
		}
	})
}

// A day's recording of two second segments is the longest playlist in use.
func BenchmarkPlaylist(b *testing.B) {
	var in bytes.Buffer
	in.WriteString("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:0\n")
	for i := range 5000 {
		fmt.Fprintf(&in, "#EXTINF:2.000, no desc\ncam-%d.ts?hls_ctx=yrt71569\n", i)
	}
	key, stream := HintKey{1}, lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: "cam"}
	lines, out := bufio.NewReaderSize(nil, maxLine), bufio.NewWriterSize(nil, playlistSize)
	b.ReportAllocs()
	b.SetBytes(int64(in.Len()))
	for b.Loop() {
		r := edit()
		r.hint = func(dir string) string { return key.sign(proxy.Fingerprint{}, stream, dir, time.Unix(1e9, 0)) }
		lines.Reset(bytes.NewReader(in.Bytes()))
		out.Reset(io.Discard)
		if err := r.copy(out, lines); err != nil {
			b.Fatal(err)
		}
	}
}
