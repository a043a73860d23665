package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"srsx/test/peertest"
	"srsx/test/rtctest"
)

// conference publishes the camera by WHIP and plays it by WHEP, as pages do.
const conference = `<!doctype html><title>WHIP and WHEP</title><video id=out autoplay muted playsinline width=640></video><script>
"use strict";
window.state = {published: 0, played: 0, error: ""};
async function signal(pc, url) {
  await pc.setLocalDescription(await pc.createOffer());
  const r = await fetch(url, {method: "POST", headers: {"Content-Type": "application/sdp"}, body: pc.localDescription.sdp});
  if (r.status !== 201 && r.status !== 200) throw new Error(url + ": " + r.status + " " + await r.text());
  await pc.setRemoteDescription({type: "answer", sdp: await r.text()});
  return new URL(r.headers.get("Location"), END).href;
}
async function frames(pc, type, field) {
  let n = 0;
  (await pc.getStats()).forEach(s => { if (s.type === type && s.kind === "video") n = s[field] || 0; });
  return n;
}
async function run() {
  const camera = await navigator.mediaDevices.getUserMedia({video: {width: 640, height: 360}, audio: true});
  const out = new RTCPeerConnection(), play = new RTCPeerConnection();
  camera.getTracks().forEach(t => out.addTransceiver(t, {direction: "sendonly"}));
  const published = await signal(out, WHIP);
  play.addTransceiver("video", {direction: "recvonly"});
  play.addTransceiver("audio", {direction: "recvonly"});
  play.ontrack = e => { if (e.track.kind === "video") document.getElementById("out").srcObject = new MediaStream([e.track]); };
  const played = await signal(play, WHEP);
  setInterval(async () => {
    state.published = await frames(out, "outbound-rtp", "framesEncoded");
    state.played = await frames(play, "inbound-rtp", "framesDecoded");
  }, 100);
  window.hangUp = async () => (await Promise.all([played, published].map(u => fetch(u, {method: "DELETE"})))).map(r => r.status).join();
}
run().catch(e => { state.error = String(e); });
</script>`

type conferenceState struct {
	Published, Played float64
	Error             string
}

// A browser publishes its camera and plays it, with signalling of each and the end
// of both at another peer than the media.
func TestBrowserPublishesAndPlaysThroughPeers(t *testing.T) {
	f := startFleet(t, 3)
	origin := rtctest.Start(t, rtctest.Config{Register: f.peers[0].Register()})
	for _, p := range f.peers {
		peertest.Eventually(t, 30*time.Second, "the origin is up at "+p.Node, func() bool { return p.Origins(t)[origin.Server()].State == "up" })
	}
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, "<script>const WHIP = %q, WHEP = %q, END = %q;</script>%s",
			"http://"+f.peers[0].API+whip, "http://"+f.peers[1].API+whep, "http://"+f.peers[2].API, conference)
	}))
	defer page.Close()
	ctx := browser(t, chromedp.Flag("use-fake-device-for-media-stream", true), chromedp.Flag("use-fake-ui-for-media-stream", true),
		chromedp.Flag("allow-loopback-in-peer-connection", true))
	if err := chromedp.Do(ctx, chromedp.Navigate(page.URL)); err != nil {
		t.Fatalf("open the page: %v", err)
	}
	var state conferenceState
	peertest.Eventually(t, 60*time.Second, "three seconds of pictures", func() bool {
		var err error
		if state, err = chromedp.Run(ctx, chromedp.Evaluate[conferenceState]("window.state")); err != nil {
			t.Fatalf("ask the page: %v", err)
		}
		if state.Error != "" {
			t.Fatalf("the page says %q", state.Error)
		}
		return state.Published >= 60 && state.Played >= 60
	})
	screenshot(t, ctx, "whip-whep.png")
	in, out := f.peers[0].Metric(t, "srsx_media_bytes_total", `kind="whip"`), f.peers[1].Metric(t, "srsx_media_bytes_total", `kind="whep"`)
	if in == 0 || out == 0 {
		t.Errorf("%v bytes counted in at the first peer, %v out at the second; want the media there", in, out)
	}
	statuses, err := chromedp.Run(ctx, chromedp.Evaluate[string]("window.hangUp()", chromedp.EvalAwaitPromise))
	if err != nil || statuses != "200,200" {
		t.Errorf("DELETE = %q, %v; want 200 for both", statuses, err)
	}
	requireNoWebRTC(t, f.peers...)
	if n := origin.Sessions(); n != 0 {
		t.Errorf("%d sessions at the origin after DELETE; want none", n)
	}
}
