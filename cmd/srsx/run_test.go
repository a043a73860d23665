package main

import (
	"strings"
	"syscall"
	"testing"

	"srsx/test/mediatest"
)

// The thin whole path: an encoder publishes at the peer, players play there, a
// signal ends it.
func TestOnePeerCarriesRealStreams(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-dev", "-api", "off"}})
	encoder := p.publish(t, "mine?token=secret")
	client := p.here().client
	response, err := client.Get("http://" + p.http + "/live/mine.flv?token=secret")
	if err != nil {
		t.Fatal(err)
	}
	tags, err := mediatest.NewFLVReader(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for frames := 0; frames < 30; {
		tag, err := tags.Next()
		if err != nil {
			t.Fatal(err)
		}
		if name, _, ok := mediatest.PatternFrame(tag); ok && strings.HasPrefix(name, "mine") {
			frames++
		}
	}
	_ = response.Body.Close()
	if out := p.must(t, "placement", "get", "live/mine", "-format", "json"); !strings.Contains(out, `"publishing":true`) {
		t.Errorf("placement get = %s; want it published", out)
	}
	encoder.end()
	p.signals <- syscall.SIGTERM
	if code := p.awaitEnd(t); code != exitDone {
		t.Errorf("exit code = %d; want %d", code, exitDone)
	}
	if strings.Contains(p.log.String(), "secret") {
		t.Error("the log tells a token")
	}
	for _, want := range []string{"rtmp://127.0.0.1:", "/live/demo.flv", "/live/demo.m3u8", "ffmpeg -re"} {
		if !strings.Contains(p.stdout.String(), want) {
			t.Errorf("-dev prints %s; want %q in it", p.stdout, want)
		}
	}
}
