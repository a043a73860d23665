package main

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"srsx/proxy"
	"srsx/test/origintest"
)

const one = "__defaultVhost__/live/one"

// Viewers and encoders that come at once all meet at one origin.
func TestTheFirstPlacementWins(t *testing.T) {
	p := startPeer(t, options{})
	for _, id := range []string{"o1", "o2"} {
		p.originAt(t, origintest.Config{Server: id})
	}
	const viewers = 10
	var racing sync.WaitGroup
	for range viewers {
		racing.Go(func() {
			client, err := p.connect(t, "")
			if err == nil {
				t.Cleanup(client.Close)
				err = client.Play("one")
			}
			if err != nil {
				t.Errorf("play: %v", err)
			}
		})
	}
	racing.Go(func() {
		if _, err := p.tryPublish(t, "one"); err != nil {
			t.Errorf("publish: %v", err)
		}
	})
	racing.Wait()
	var data struct{ Sessions []struct{ Origin string } }
	p.get(t, "/api/v1/sessions", &data)
	if len(data.Sessions) != viewers+1 {
		t.Fatalf("%d sessions; want %d", len(data.Sessions), viewers+1)
	}
	for _, s := range data.Sessions {
		if s.Origin != data.Sessions[0].Origin {
			t.Errorf("sessions are on %s and %s; want one origin", s.Origin, data.Sessions[0].Origin)
		}
	}
	if got := p.placements(t)[one]; got.Sessions != viewers+1 || !got.Publishing {
		t.Errorf("placement = %+v; want it published with %d sessions", got, viewers+1)
	}
}

func TestAViewerMayComeBeforeThePublisher(t *testing.T) {
	p := startPeer(t, options{})
	for _, id := range []string{"o1", "o2"} {
		p.originAt(t, origintest.Config{Server: id})
	}
	viewer := p.play(t, "one")
	before := p.placements(t)[one]
	if before.Publishing || before.Sessions != 1 {
		t.Errorf("placement = %+v; want it held by the viewer", before)
	}
	p.publish(t, "one")
	requireFrames(t, viewer, "one")
	if after := p.placements(t)[one]; after.Origin != before.Origin || after.Epoch != before.Epoch || !after.Publishing {
		t.Errorf("placement = %+v; want that of the viewer, %+v, published", after, before)
	}
}

func TestAPlacementGoesTenSecondsAfterItsLastHolder(t *testing.T) {
	p := startPeer(t, options{})
	o := p.originAt(t, origintest.Config{Server: "o1"})
	free := func() bool { return p.placements(t)[one].Sessions == 0 }
	first := p.publish(t, "one")
	epoch := p.placements(t)[one].Epoch
	first.end()
	eventually(t, "the session is gone", free)
	second := p.publish(t, "one") // in time: it is held again
	if got := p.placements(t)[one]; got.Epoch != epoch {
		t.Errorf("epoch = %d; want the placement to go on as %d", got.Epoch, epoch)
	}
	viewer := p.play(t, "one")
	second.end()
	eventually(t, "one session is left", func() bool { return p.placements(t)[one].Sessions == 1 })
	if got := p.placements(t)[one]; got.Publishing {
		t.Errorf("placement = %+v; want it not published", got)
	}
	viewer.Close()
	eventually(t, "the last session is gone", free)
	began := time.Now()
	eventually(t, "the placement is gone", func() bool { return len(p.placements(t)) == 0 })
	if waited := time.Since(began); waited < 9*time.Second || waited > 15*time.Second {
		t.Errorf("it went after %s; want 10s", waited)
	}
	if n := p.metric(t, "srsx_placements") + p.metric(t, "srsx_sessions") + p.metric(t, "srsx_origin_streams"); n != 0 {
		t.Errorf("placements, sessions and streams of the origin sum up to %v; want 0", n)
	}
	eventually(t, "the origin is left alone", func() bool { return o.Streams() == 0 })
}

func TestAStreamOfADeadOriginIsPlacedAnew(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-origin-ttl", "1h"}}) // nobody waits for silence
	origins := map[string]*origintest.Origin{
		"o1": p.originAt(t, origintest.Config{Server: "o1"}), "o2": p.originAt(t, origintest.Config{Server: "o2"}),
	}
	events := p.watch(t)
	encoder := p.publish(t, "one")
	dead := p.homeOf(t, "live/one")
	origins[dead].Kill()
	<-encoder.ended
	began := time.Now()
	p.publish(t, "one")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the encoder was back after %s; want it soon", took)
	}
	if got := p.homeOf(t, "live/one"); got != other(dead) || !origins[got].Publishing("live/one") {
		t.Errorf("the stream is on %s; want %s", got, other(dead))
	}
	eventually(t, "the event", events.has("replaced", "live/one "+other(dead)+" from "+dead, "origin down"))
	if got := p.state(t, dead); got != "down" {
		t.Errorf("the dead origin is %s", got)
	}
	for i := range 5 {
		name := fmt.Sprint("new", i)
		p.publish(t, name)
		if got := p.homeOf(t, "live/"+name); got == dead {
			t.Errorf("a new stream was placed on the dead origin")
		}
	}
}

// What is on an origin goes on while the peer thinks that it is down.
func TestBookkeepingCutsNoSession(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-origin-ttl", "300ms"}})
	o := origintest.Start(t, origintest.Config{})
	media := o.RTMP()
	gone := openPort(t, "127.0.0.1:0")
	// The API that probes ask is another program, and dies.
	beat := fmt.Sprintf(`{"ip":"127.0.0.1","server":"o1","service":"1","pid":"1","rtmp":[%q],"api":[%q]}`, media, gone.Addr())
	if status, body := p.here().call(t, "POST", registerPath, beat); status != http.StatusOK {
		t.Fatalf("register = %d %s", status, body)
	}
	p.publish(t, "one")
	viewer := p.play(t, "one")
	_ = gone.Close()
	eventually(t, "the origin is down", func() bool { return p.state(t, "o1") == "down" })
	requireFrames(t, viewer, "one")
}

func TestMoveEndsTheOldSessionsSoThatTheyComeBackThere(t *testing.T) {
	p := startPeer(t, options{})
	origins := map[string]*origintest.Origin{
		"o1": p.originAt(t, origintest.Config{Server: "o1"}), "o2": p.originAt(t, origintest.Config{Server: "o2"}),
	}
	encoder, viewer, bystander := p.publish(t, "one"), p.play(t, "one"), p.publish(t, "two")
	to := other(p.homeOf(t, "live/one"))
	p.must(t, "placement", "move", "live/one", "-to", to)
	<-encoder.ended
	for {
		if _, _, err := viewer.NextFrame(); err != nil {
			break // it ends, after what was on its way
		}
	}
	eventually(t, "both say why", func() bool {
		n := 0
		for _, line := range p.logged("session ended") {
			if line["reason"] == proxy.ErrMoved.Error() {
				n++
			}
		}
		return n == 2
	})
	p.publish(t, "one")
	requireFrames(t, p.play(t, "one"), "one")
	if !origins[to].Publishing("live/one") || origins[other(to)].Publishing("live/one") {
		t.Errorf("the encoder is not on %s", to)
	}
	select {
	case <-bystander.ended:
		t.Error("the move ended another stream")
	default:
	}
	code, _, errs := p.cli("placement", "move", "live/one", "-to", "nobody")
	requireOneLine(t, "move to nobody", code, exitRefused, errs, "nobody")
}

func TestWithoutAnOriginTheRefusalSaysWhy(t *testing.T) {
	p := startPeer(t, options{flags: []string{"-place-timeout", "100ms"}})
	_, err := p.tryPublish(t, "one")
	if refusal(err) != "NetStream.Publish.Rejected" || !strings.Contains(err.Error(), "no origin available") {
		t.Errorf("publish = %v; want the reason", err)
	}
	client := p.here().client
	response, err := client.Get("http://" + p.http + "/live/one.flv")
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") == "" {
		t.Errorf("HTTP = %s, Retry-After %q; want 503 with one", response.Status, response.Header.Get("Retry-After"))
	}
	if status, _ := p.here().call(t, "GET", "/readyz", ""); status != http.StatusOK {
		t.Errorf("readyz = %d; want 200: origins do not count", status)
	}
	if got := p.metric(t, "srsx_refusals_total", `reason="no origin available"`); got != 2 {
		t.Errorf("refusals counted = %v; want 2", got)
	}
}
