package proxy_test

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"srsx/lb"
	"srsx/proxy"
)

func vhosts(tb testing.TB, names ...string) proxy.VHosts {
	tb.Helper()
	v, err := proxy.NewVHosts(names...)
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

func TestPublishAndPlayByTwoNamesIsOneStream(t *testing.T) {
	v := vhosts(t)
	publish, err := v.IdentifyRTMP("rtmp://ingest.example.com:1935/live", "live", "cam?token=secret")
	if err != nil {
		t.Fatal(err)
	}
	play, err := v.IdentifyHTTP("cdn.example.com", &url.URL{Path: "/live/cam.flv", RawQuery: "token=other"})
	if err != nil {
		t.Fatal(err)
	}
	if publish.Stream != play.Stream {
		t.Errorf("publish is %v, play is %v; want one stream", publish.Stream, play.Stream)
	}
	if publish.Query != "token=secret" || play.Query != "token=other" {
		t.Errorf("queries = %q and %q; want them kept", publish.Query, play.Query)
	}
}

// One key for one stream, whichever protocol and host name: only a configured
// vhost is one of its own, however it is named.
func TestOneKeyByEveryProtocolAndHost(t *testing.T) {
	v := vhosts(t, "own.example.com", "192.0.2.7")
	for vhost, hosts := range map[string][]string{
		lb.DefaultVHost: {
			"ingest.example.com", "INGEST.example.com", "cdn.example.com.", "localhost", "192.0.2.1", "[::1]", "[2001:db8::1]",
			lb.DefaultVHost, "sub.own.example.com", "own.example.com.evil",
		},
		"own.example.com": {"own.example.com", "OWN.Example.Com", "own.example.com."},
		"192.0.2.7":       {"192.0.2.7"},
	} {
		want := lb.Stream{VHost: vhost, App: "live", Name: "cam"}
		for _, host := range hosts {
			for _, port := range []string{"", ":80", ":1935"} {
				requireKey(t, v, host+port, "", want)
			}
			// Named as a parameter it wins over the host.
			for _, parameter := range []string{"vhost=" + host, "domain=" + host, "a=b&vhost=" + host + ":1935&c", "domain=x&vhost=" + host} {
				requireKey(t, v, "192.0.2.9:1935", parameter, want)
				requireKey(t, v, "own.example.com", parameter, want)
			}
		}
	}
}

// requireKey publishes and plays one stream in every way that a host and
// parameters can be said.
func requireKey(t *testing.T, v proxy.VHosts, host, parameters string, want lb.Stream) {
	t.Helper()
	mark := ""
	if parameters != "" {
		mark = "?"
	}
	check := func(how string, got proxy.Target, err error) {
		t.Helper()
		if err != nil || got.Stream != want {
			t.Errorf("%s at %s with %q = %+v, %v; want %+v", how, host, parameters, got.Stream, err, want)
		}
	}
	for _, app := range []string{"live", "live/", "live/_definst_", "/live"} {
		got, err := v.IdentifyRTMP("rtmp://"+host+"/"+app, app, "cam"+mark+parameters)
		check("RTMP, parameters of the name", got, err)
	}
	got, err := v.IdentifyRTMP("rtmp://"+host+"/live"+mark+parameters, "live"+mark+parameters, "cam")
	check("RTMP, parameters of the app", got, err)
	if parameters != "" { // else nothing tells where the name begins
		got, err = v.IdentifyRTMP("rtmp://"+host+"/live?"+parameters+"/cam", "", "")
		check("RTMP, name behind the parameters", got, err)
	}
	got, err = v.IdentifyRTMP("rtmps://user:pw@"+host+"/live", "", "/cam"+mark+parameters)
	check("RTMPS with a user", got, err)
	got, err = v.IdentifyNames(host, "live", "cam", parameters)
	check("names", got, err)
	for _, path := range []string{"/live/cam.flv", "/live/cam.m3u8", "/live/cam.TS", "//live//cam.mp3", "/live/_definst_/cam.aac"} {
		got, err = v.IdentifyHTTP(host, &url.URL{Path: path, RawQuery: parameters})
		check(path, got, err)
	}
	if vhost, ok := strings.CutPrefix(parameters, "vhost="); ok {
		got, err = v.IdentifyRTMP("rtmp://"+host+"/live...vhost..."+vhost, "", "cam")
		check("RTMP, vhost in the app", got, err)
	}
}

func TestIdentifyRTMP(t *testing.T) {
	v := vhosts(t, "own.example.com", "Other.Example.com")
	tests := map[string]struct {
		tcURL, app, name string
		want             string // vhost|app|name
		query            string
	}{
		"plain":                   {"rtmp://h/live", "live", "s", "|live|s", ""},
		"port":                    {"rtmp://own.example.com:11935/live", "live", "s", "own.example.com|live|s", ""},
		"case and dot of host":    {"rtmp://OWN.example.com./live", "live", "s", "own.example.com|live|s", ""},
		"configured spelling":     {"rtmp://other.example.com/live", "live", "s", "Other.Example.com|live|s", ""},
		"unlisted vhost":          {"rtmp://own.example.com/live?vhost=x", "live", "s", "|live|s", "vhost=x"},
		"vhost in tcUrl":          {"rtmp://1.2.3.4/live?vhost=own.example.com", "", "s", "own.example.com|live|s", "vhost=own.example.com"},
		"vhost in name":           {"rtmp://1.2.3.4/live", "", "s?vhost=own.example.com", "own.example.com|live|s", "vhost=own.example.com"},
		"domain in name":          {"rtmp://1.2.3.4/live", "", "s?k=v&domain=own.example.com", "own.example.com|live|s", "k=v&domain=own.example.com"},
		"vhost before domain":     {"rtmp://h/live?vhost=own.example.com", "", "s?domain=x", "own.example.com|live|s", "domain=x&vhost=own.example.com"},
		"dotted vhost in app":     {"rtmp://h/live...vhost...own.example.com", "", "s", "own.example.com|live|s", "vhost=own.example.com"},
		"dotted vhost and query":  {"rtmp://h/live...vhost...own.example.com?k=v", "", "s", "own.example.com|live|s", "vhost=own.example.com?k=v"},
		"parameters in both":      {"rtmp://h/live?a=1", "live?a=1", "s?b=2", "|live|s", "b=2&a=1"},
		"name behind parameters":  {"rtmp://h/live?k=v/s", "", "", "|live|s", "k=v"},
		"slash after app":         {"rtmp://h/live/?k=v", "", "/s", "|live|s", "k=v"},
		"definst":                 {"rtmp://h/live/_definst_", "", "s", "|live|s", ""},
		"deep app":                {"rtmp://h/a/b/c", "", "s", "|a/b/c|s", ""},
		"deep name":               {"rtmp://h/a/b", "", "c/s", "|a/b/c|s", ""},
		"slash in a value":        {"rtmp://h/live", "", "s?cb=http://x/y", "|live|s", "cb=http://x/y"},
		"IPv6":                    {"rtmp://[::1]:1935/live", "", "s", "|live|s", ""},
		"IPv6 without port":       {"rtmp://[::1]/live", "", "s", "|live|s", ""},
		"user":                    {"rtmp://u:p@own.example.com/live", "", "s", "own.example.com|live|s", ""},
		"no app":                  {"rtmp://h", "", "s", "|live|s", ""},
		"app only from property":  {"rtmp://h:1935", "shop?k=v", "s", "|shop|s", "k=v"},
		"no tcUrl":                {"", "shop", "s", "|shop|s", ""},
		"escapes":                 {"rtmp://h/live", "", "%E4%BD%A0", "|live|你", ""},
		"percent sign":            {"rtmp://h/live", "", "100%", "|live|100%", ""},
		"flash prefix stays":      {"rtmp://h/live", "", "mp4:s", "|live|mp4:s", ""},
		"extension stays":         {"rtmp://h/live", "", "s.flv", "|live|s.flv", ""},
		"spaces go as in SRS":     {"rtmp://h/live", "", " my stream", "|live|mystream", ""},
		"fragment is a parameter": {"rtmp://h/live", "", "s#k=v", "|live|s", "k=v"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := v.IdentifyRTMP(tc.tcURL, tc.app, tc.name)
			if err != nil {
				t.Fatal(err)
			}
			parts := strings.Split(tc.want, "|")
			want := lb.Stream{VHost: parts[0], App: parts[1], Name: parts[2]}
			if want.VHost == "" {
				want.VHost = lb.DefaultVHost
			}
			if got.Stream != want || got.Query != tc.query {
				t.Errorf("IdentifyRTMP = %+v query %q; want %+v query %q", got.Stream, got.Query, want, tc.query)
			}
		})
	}
}

func TestIdentifyHTTP(t *testing.T) {
	v := vhosts(t, "own.example.com")
	tests := map[string]struct {
		host, url string
		want      lb.Stream
		ext       string
	}{
		"flv":           {"h:18080", "/live/s.flv?k=v", lb.Stream{App: "live", Name: "s"}, ".flv"},
		"listed host":   {"own.example.com:18080", "/live/s.m3u8", lb.Stream{VHost: "own.example.com", App: "live", Name: "s"}, ".m3u8"},
		"vhost":         {"[::1]:80", "/live/s.ts?vhost=own.example.com", lb.Stream{VHost: "own.example.com", App: "live", Name: "s"}, ".ts"},
		"dots":          {"h", "/live/cam.1.FLV", lb.Stream{App: "live", Name: "cam.1"}, ".flv"},
		"other ext":     {"h", "/live/cam.1", lb.Stream{App: "live", Name: "cam.1"}, ""},
		"deep":          {"h", "/a/b/c/s.aac", lb.Stream{App: "a/b/c", Name: "s"}, ".aac"},
		"escaped slash": {"h", "/a%2Fb/s.flv", lb.Stream{App: "a/b", Name: "s"}, ".flv"},
		"escapes":       {"h", "/live/%E4%BD%A0.flv", lb.Stream{App: "live", Name: "你"}, ".flv"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(tc.url)
			if err != nil {
				t.Fatal(err)
			}
			got, err := v.IdentifyHTTP(tc.host, u)
			if err != nil {
				t.Fatal(err)
			}
			if tc.want.VHost == "" {
				tc.want.VHost = lb.DefaultVHost
			}
			if got.Stream != tc.want || got.Ext != tc.ext || got.Query != u.RawQuery {
				t.Errorf("IdentifyHTTP = %+v; want %+v %s", got, tc.want, tc.ext)
			}
		})
	}
}

func TestIdentifyRefusesWhatNamesNoStream(t *testing.T) {
	v := vhosts(t)
	for _, tc := range [][3]string{
		{"rtmp://h/live", "", ""},
		{"rtmp://h/live", "", "?k=v"},
		{"rtmp://h/live", "", "a\x00b"},
		{"rtmp://h/live", "", "a%00b"},
		{"rtmp://h/live", "", "a\nb"},
		{"rtmp://h/live", "", "../s"},
		{"rtmp://h/%2e%2e", "", "s"},
		{"rtmp://h/live", "", strings.Repeat("n", 513)},
		{"rtmp://h/live", "", "s?" + strings.Repeat("n", 9000)},
		{"rtmp://h\r/live", "", "s"},
		{"", "", ""},
	} {
		if got, err := v.IdentifyRTMP(tc[0], tc[1], tc[2]); !errors.Is(err, proxy.ErrStreamName) {
			t.Errorf("IdentifyRTMP(%.40q) = %+v, %v; want ErrStreamName", tc, got, err)
		}
	}
	for _, path := range []string{"", "/", "/s.flv", "/live/.flv", "/live/\x00.flv", "/live/../s.flv", "/live/..flv", "/live/...flv", "/a/b/.flv", "/a/b/ .flv", "/live/_definst_.flv", "/live/" + strings.Repeat("n", 600)} {
		if got, err := v.IdentifyHTTP("h", &url.URL{Path: path}); !errors.Is(err, proxy.ErrStreamName) {
			t.Errorf("IdentifyHTTP(%.40q) = %+v, %v; want ErrStreamName", path, got, err)
		}
	}
}

func TestVHostsRefuseWhatIsNoHost(t *testing.T) {
	for _, name := range []string{"", "a/b", "a b", "a?b", "a\x00"} {
		if _, err := proxy.NewVHosts(name); err == nil {
			t.Errorf("NewVHosts(%q) succeeded", name)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add("rtmp://own.example.com:1935/live?vhost=a", "live", "s?token=x")
	f.Add("rtmp://[::1]/a...vhost...own.example.com/_definst_", "", "mp4:b/c")
	f.Add("rtmp://h/app?k=v/stream", "app", "")
	f.Add("rtmp://h/app", "app", "100%2541")
	f.Add("://@", "%2F", "%00")
	v := vhosts(f, "own.example.com")
	f.Fuzz(func(t *testing.T, tcURL, app, name string) {
		target, err := v.IdentifyRTMP(tcURL, app, name)
		if err != nil {
			return
		}
		checkTarget(t, target)
		checkForms(t, v, target.Stream)
	})
}

func FuzzIdentifyHTTP(f *testing.F) {
	f.Add("own.example.com:8080", "/live/cam.1.FLV", "vhost=a&domain=b")
	f.Add("[::1]", "/a/b/_definst_/ s .m3u8", "?vhost=own.example.com")
	f.Add("OWN.example.com.", "/live/..flv", "a=%zz;b")
	v := vhosts(f, "own.example.com")
	f.Fuzz(func(t *testing.T, host, path, query string) {
		target, err := v.IdentifyHTTP(host, &url.URL{Path: path, RawQuery: query})
		if err != nil {
			return
		}
		checkTarget(t, target)
		checkForms(t, v, target.Stream)
		if target.Query != query {
			t.Fatalf("query %q; want %q", target.Query, query)
		}
	})
}

// checkForms fails unless the canonical form of a key means the same key again,
// by every protocol.
func checkForms(t *testing.T, v proxy.VHosts, s lb.Stream) {
	t.Helper()
	var parts []string
	for part := range strings.SplitSeq(s.App, "/") {
		parts = append(parts, url.PathEscape(part))
	}
	app := strings.Join(parts, "/")
	for form, identify := range map[string]func() (proxy.Target, error){
		"names": func() (proxy.Target, error) { return v.IdentifyNames(s.VHost, s.App, s.Name, "") },
		"RTMP": func() (proxy.Target, error) {
			return v.IdentifyRTMP("rtmp://"+s.VHost+"/"+app, "", url.PathEscape(s.Name))
		},
		"RTMP app": func() (proxy.Target, error) { return v.IdentifyRTMP("rtmp://"+s.VHost, app, url.PathEscape(s.Name)) },
		"HTTP": func() (proxy.Target, error) {
			return v.IdentifyHTTP(s.VHost, &url.URL{Path: "/" + s.App + "/" + s.Name + ".flv"})
		},
		"HTTP, another spelling of the host": func() (proxy.Target, error) {
			return v.IdentifyHTTP(strings.ToUpper(s.VHost)+".:1935", &url.URL{Path: "/" + s.App + "/" + s.Name + ".TS"})
		},
		"HTTP, vhost as a parameter": func() (proxy.Target, error) {
			return v.IdentifyHTTP("h", &url.URL{Path: "/" + s.App + "/" + s.Name + ".m3u8", RawQuery: "vhost=" + s.VHost})
		},
	} {
		if again, err := identify(); err != nil || again.Stream != s {
			t.Fatalf("%s: canonical form of %+v is %+v, %v", form, s, again.Stream, err)
		}
	}
}

// checkTarget fails unless the key is one that the API can show and read back.
func checkTarget(t *testing.T, target proxy.Target) {
	t.Helper()
	s := target.Stream
	if s.App == "" || s.Name == "" || strings.Contains(s.Name, "/") || len(s.App)+len(s.Name) > 512 {
		t.Fatalf("stream %+v", s)
	}
	if strings.ContainsFunc(s.App+s.Name+target.Host+target.Query, func(r rune) bool { return r < 0x20 }) {
		t.Fatalf("control byte in %+v", target)
	}
	back, err := lb.ParseStream(s.String())
	if err != nil || back != s {
		t.Fatalf("ParseStream(%q) = %+v, %v; want %+v", s.String(), back, err, s)
	}
}
