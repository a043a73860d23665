package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"srsx/test/origintest"
)

// A body far too large is refused before it has been read.
func TestAHugeBodyIsRefusedUnread(t *testing.T) {
	p := startPeer(t, options{})
	const size = 150 << 20 // bytes
	for name, length := range map[string]string{
		"announced": "Content-Length: " + strconv.Itoa(size), "chunked": "Transfer-Encoding: chunked",
	} {
		conn, err := net.Dial("tcp", p.system)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err = conn.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n%s\r\n\r\n", registerPath, length)
		answered := make(chan string, 1)
		go func() {
			text, _ := io.ReadAll(conn) // a reset after the answer is all right
			answered <- string(text)
		}()
		block := bytes.Repeat([]byte(" "), 64<<10)
		chunk := append(append([]byte("10000\r\n"), block...), "\r\n"...)
		sent := 0
		for sent < size {
			if name == "chunked" {
				_, err = conn.Write(chunk)
			} else {
				_, err = conn.Write(block)
			}
			if err != nil {
				break
			}
			sent += len(block)
		}
		text := <-answered
		if !strings.HasPrefix(text, "HTTP/1.1 413") || strings.Count(text, `"code"`) != 1 || !strings.Contains(text, "64 KB") {
			t.Errorf("%s: answer %q; want one refusal", name, text)
		}
		if sent > size/4 { // the kernel's buffers take some
			t.Errorf("%s: %d MB were taken", name, sent>>20)
		}
	}
}

// What SRS 7 sends, to the letter, and what a script for any other origin may.
func TestHeartbeatsOfSRSAndOfScripts(t *testing.T) {
	p := startPeer(t, options{})
	for name, body := range map[string]string{
		"vid-037m702": `{"device_id":"origin2","ip":"127.0.0.1","server":"vid-037m702","service":"w1n9v273","pid":"22366",` +
			`"rtmp":["21931"],"http":["21881"],"api":["21981"],"srt":["udp://0.0.0.0:21081"],"rtc":["udp://0.0.0.0:21801","tcp://0.0.0.0:21821"],` +
			`"summaries":{"ok":true,"self_version":"7.0.18","cpu_percent":0.02,"load_1m":0.5,"srs_send_bytes":1000,"conn_srs":3}}`,
		"script": `{"ip":"127.0.0.1","server":"script","service":"1","pid":4711,"rtmp":["127.0.0.1:21935"],"anything":{"else":[1]}}`,
	} {
		status, answer := p.here().call(t, "POST", registerPath, body)
		var reply map[string]any
		if err := json.Unmarshal([]byte(answer), &reply); err != nil || status != http.StatusOK || reply["code"] != 0.0 || reply["pid"] == "" {
			t.Errorf("%s: %d %s; want code 0 and a pid", name, status, answer)
		}
		if p.state(t, name) != "up" {
			t.Errorf("%s is not up", name)
		}
	}
	want := `map[api:[127.0.0.1:21981] http:[127.0.0.1:21881] rtc:[udp://127.0.0.1:21801 tcp://127.0.0.1:21821] rtmp:[127.0.0.1:21931] srt:[udp://127.0.0.1:21081]]`
	if got := fmt.Sprint(p.origins(t)["vid-037m702"].Endpoints); got != want {
		t.Errorf("endpoints = %s; want %s", got, want)
	}
}

// Two runs of one server id: the second waits until the first is dead, and two
// that alternate are told so.
func TestADuplicateServerIDIsRefused(t *testing.T) {
	p := startPeer(t, options{})
	first := p.originAt(t, origintest.Config{Server: "same", Interval: time.Minute})
	beat := func(o *origintest.Origin, pid string) (int, string) {
		t.Helper()
		body := o.Heartbeat()
		body["pid"] = pid
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		return p.here().call(t, "POST", registerPath, string(text))
	}
	second := origintest.Start(t, origintest.Config{Server: "same"})
	if status, body := beat(second, "9"); status != http.StatusConflict || !strings.Contains(body, "duplicate server id") {
		t.Errorf("second run beside a live one = %d %s; want it refused", status, body)
	}
	first.Kill()
	if status, body := beat(second, "9"); status != http.StatusOK {
		t.Errorf("second run after the first died = %d %s; want it taken", status, body)
	}
	// One port for both: the second proves that it holds it, the first comes back.
	if status, _ := beat(second, "10"); status != http.StatusOK {
		t.Errorf("third run on the same port = %d; want it taken", status)
	}
	if status, body := beat(second, "9"); status != http.StatusConflict || !strings.Contains(body, "give each origin its own") {
		t.Errorf("the run before = %d %s; want it refused: two alternate", status, body)
	}
}

// SRS's timer loop waits for the answer.
func TestAHangingOldRunDoesNotHoldUpTheNewOne(t *testing.T) {
	p := startPeer(t, options{})
	hanging, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	old := fmt.Sprintf(`{"ip":"127.0.0.1","server":"v","service":"1","pid":"1","rtmp":[%q],"api":[%[1]q]}`, hanging.Addr())
	if status, body := p.here().call(t, "POST", registerPath, old); status != http.StatusOK {
		t.Fatalf("register = %d %s", status, body)
	}
	began := time.Now()
	status, body := p.here().call(t, "POST", registerPath, heartbeat("v", "2", "127.0.0.1", "1"))
	if took := time.Since(began); status != http.StatusOK || took > 5*time.Second {
		t.Errorf("new run = %d %s after %s; want it taken soon", status, body, took)
	}
}

// registerMany registers n origins, from addresses that each have their rate.
func (p *peer) registerMany(t *testing.T, n int) (taken int) {
	t.Helper()
	const each = 500 // from one address, in one connection
	for from := 0; from < n; from += each {
		c := p.from(fmt.Sprintf("10.0.%d.1", from/each))
		transport := c.client.Transport.(*http.Transport) //nolint:errcheck // as made by from
		transport.DisableKeepAlives = false
		for i := from; i < min(from+each, n); i++ {
			status, body := c.call(t, "POST", registerPath, heartbeat(fmt.Sprint("vid-", i), "1", "10.0.0.1", strconv.Itoa(1+i)))
			switch {
			case status == http.StatusOK:
				taken++
			case status != http.StatusTooManyRequests || !strings.Contains(body, "cap reached"):
				t.Fatalf("origin %d = %d %s", i, status, body)
			}
		}
		transport.CloseIdleConnections()
	}
	return taken
}

func TestOriginsAreCapped(t *testing.T) {
	p := startPeer(t, options{config: "limits: {origins: 20}\n"})
	if taken := p.registerMany(t, 30); taken != 20 || len(p.origins(t)) != 20 {
		t.Errorf("%d origins were taken; want 20", taken)
	}
	if status, _ := p.from("10.0.0.1").call(t, "POST", registerPath, heartbeat("vid-0", "1", "10.0.0.1", "1")); status != http.StatusOK {
		t.Errorf("heartbeat of a known origin at the cap = %d; want 200", status)
	}
}

func TestTenThousandOriginsCostLittle(t *testing.T) {
	p := startPeer(t, options{config: "limits: {origins: 10000}\n"})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	if taken := p.registerMany(t, 10_000); taken != 10_000 {
		t.Fatalf("%d origins were taken; want all", taken)
	}
	t.Logf("registered in %s", time.Since(began))
	runtime.GC()
	runtime.ReadMemStats(&after)
	const most = 8 << 10 // bytes an origin
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / 10_000; each > most {
		t.Errorf("an origin takes %d bytes; want at most %d", each, most)
	}
	// A stream is placed by the same code that explain runs.
	began = time.Now()
	for range 20 {
		if status, _ := p.here().call(t, "GET", "/api/v1/placements/v/a/n/explain", ""); status != http.StatusOK {
			t.Fatalf("explain = %d", status)
		}
	}
	// Some milliseconds on an idle machine; work that grows with the square of
	// the origins would take many seconds on any.
	each := time.Since(began) / 20
	t.Logf("a choice with its explanation takes %s", each)
	if each > 3*time.Second {
		t.Errorf("a choice among 10,000 origins takes %s", each)
	}
}
