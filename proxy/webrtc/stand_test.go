package webrtc_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/webrtc"
	"srsx/test/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	offer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 198.51.100.7\r\n" +
		"a=ice-ufrag:cccc\r\na=ice-pwd:0123456789abcdef01234567\r\na=candidate:1 1 udp 1 198.51.100.7 5000 typ host\r\na=mid:0\r\n"
	answer = "v=0\r\no=SRS/7 3 2 IN IP4 0.0.0.0\r\ns=SRS\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\n" +
		"a=ice-ufrag:oooo\r\na=ice-pwd:0123456789abcdef01234567\r\na=x-own:kept\r\na=candidate:0 1 udp 1 10.9.8.7 8000 typ host\r\n"
)

// heard is a request as an origin gets it.
type heard struct {
	method, uri, body string
	header            http.Header
}

// origin is the HTTP side of one, which answers by a script.
type origin struct {
	lb.Origin

	mu     sync.Mutex
	script http.HandlerFunc // guarded by mu
	seen   []heard          // guarded by mu
}

func startOrigin(t *testing.T, id lb.OriginID) *origin {
	t.Helper()
	o := &origin{script: agrees}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		o.mu.Lock()
		o.seen = append(o.seen, heard{r.Method, r.RequestURI, string(body), r.Header.Clone()})
		script := o.script
		o.mu.Unlock()
		script(w, r)
	}))
	t.Cleanup(server.Close)
	addr := server.Listener.Addr().String()
	o.Origin = proxytest.StaticOrigin(id, addr, "")
	o.Endpoints.API, o.Endpoints.RTC = []string{addr}, []string{"udp://" + addr}
	return o
}

// agrees answers as SRS does.
func agrees(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	switch r.Method {
	case http.MethodPost:
		h.Set("Content-Type", "application/sdp")
		h.Set("Location", "/rtc/v1/whip/?action=delete&token=t&session=s1")
		h.Set("ETag", `"e1"`)
		h.Add("Link", `<stun:stun.example.com>; rel="ice-server"`)
		h.Set("X-Origin", "at 10.9.8.7")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, answer)
	case http.MethodPatch:
		w.WriteHeader(http.StatusNoContent)
	default:
	}
}

func (o *origin) behave(script http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.script = script
}

func (o *origin) last(t *testing.T) heard {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.seen) == 0 {
		t.Fatal("the origin has heard nothing")
	}
	return o.seen[len(o.seen)-1]
}

func (o *origin) requests() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.seen)
}

// stand is a peer in front of origins.
type stand struct {
	*proxytest.Fixture

	url string
}

func serve(t *testing.T, change func(*webrtc.Config), origins ...*origin) *stand {
	t.Helper()
	list := make([]lb.Origin, len(origins))
	for i, o := range origins {
		list[i] = o.Origin
	}
	f := proxytest.New(t, proxy.RouterConfig{PlaceTimeout: 200 * time.Millisecond}, list...)
	trusted, err := proxy.ParseNetworks("127.0.0.1/32")
	if err != nil {
		t.Fatal(err)
	}
	config := webrtc.Config{
		Opener: f.Router, Finder: f.Balancer, Secret: func() webrtc.Secret { return webrtc.Secret{7} }, Trusted: trusted,
		NodeID: "this-peer", Candidates: []string{"203.0.113.9", "2001:db8::9"}, Port: 18000, BodyTimeout: 300 * time.Millisecond, Log: f.Logger,
	}
	if change != nil {
		change(&config)
	}
	s := webrtc.NewServer(config)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	front := httptest.NewServer(s)
	t.Cleanup(func() {
		front.Close()
		cancel()
		running.Wait()
	})
	return &stand{Fixture: f, url: front.URL}
}

// reply is an answer, whole.
type reply struct {
	status int
	header http.Header
	body   string
}

func (s *stand) call(t *testing.T, method, target, body string, header ...string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.url+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: proxytest.Patience}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{response.StatusCode, response.Header, string(b)}
}
