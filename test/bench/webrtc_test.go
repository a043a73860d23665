package bench

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"srsx/test/peertest"
	"srsx/test/rtctest"
)

const (
	// rtcStreams is how many go each way: more would measure what is left of the
	// machine, since each is encrypted or decrypted four times.
	rtcStreams = 3
	rtcFor     = 20 * time.Second
)

// rtcWay is how streams get from publishers to players.
type rtcWay struct {
	name          string
	publish, play string                     // HTTP address of the API
	elsewhere     func(answer string) string // has a publisher send its media to another peer
	players       []*rtctest.Client
}

// webrtcTrip measures media that pion sends through an origin back to the same
// process: what peers add to its round trip, and to how much that varies.
func webrtcTrip(b *testing.B, r *report) {
	f := startFleet(b)
	o := rtctest.Start(b, rtctest.Config{Register: f.peers[0].Register()})
	for _, p := range f.peers {
		peertest.Eventually(b, time.Minute, "the origin is up at "+p.Node, func() bool { return p.Origins(b)[o.Server()].State == "up" })
	}
	one, two, three := f.peers[0], f.peers[1], f.peers[2]
	ways := []*rtcWay{
		{name: "direct", publish: o.API(), play: o.API()},
		{name: "two peers", publish: one.API, play: two.API},
		{name: "three peers", publish: one.API, play: three.API, elsewhere: rtctest.MediaAt(one.RTC, two.RTC)},
	}
	// In turns, and all at once: none has the machine for itself.
	for n := range rtcStreams {
		for i, w := range ways {
			w.start(b, fmt.Sprintf("trip-%d-%d", i, n))
		}
	}
	for _, w := range ways {
		for _, p := range w.players {
			peertest.Eventually(b, time.Minute, "media "+w.name, func() bool { return len(p.Received()) > 100 })
		}
	}
	time.Sleep(rtcFor)
	direct := ways[0].measure(b)
	for _, w := range ways[1:] {
		got := w.measure(b)
		add := func(what string, index int) {
			f := within(fmt.Sprintf("WebRTC through %s, added %s, p99", w.name, what), got[index][1]-direct[index][1], time.Millisecond)
			f.beside = fmt.Sprintf("direct is %s, %s (p50, p99); through them %s, %s",
				ms(direct[index][0]), ms(direct[index][1]), ms(got[index][0]), ms(got[index][1]))
			r.add(f)
		}
		add("round trip", 0)
		add("jitter", 1)
	}
}

func (w *rtcWay) start(b *testing.B, name string) {
	b.Helper()
	query := "/?app=live&stream=" + name
	rtctest.Publish(b, rtctest.Dial{URL: "http://" + w.publish + "/rtc/v1/whip" + query, Answer: w.elsewhere})
	w.players = append(w.players, rtctest.Play(b, rtctest.Dial{URL: "http://" + w.play + "/rtc/v1/whep" + query}))
}

// measure returns p50 and p99 of the time that media took, and of the difference
// between two packets that follow each other. The first hundred are not counted:
// the machine is still at the handshakes then.
func (w *rtcWay) measure(b *testing.B) (trip [2][2]time.Duration) {
	b.Helper()
	var took, jitter []time.Duration
	for _, p := range w.players {
		all := p.Received()[100:]
		if lost := int(all[len(all)-1].Number-all[0].Number) + 1 - len(all); lost > 0 {
			b.Logf("%s: %d packets of %d are lost", w.name, lost, len(all)+lost)
		}
		for i, packet := range all {
			took = append(took, packet.Took)
			if i > 0 {
				jitter = append(jitter, (packet.Took - all[i-1].Took).Abs())
			}
		}
		if status := p.Delete(b, p.Resource); status != http.StatusOK {
			b.Errorf("DELETE = %d", status)
		}
	}
	for i, list := range [][]time.Duration{took, jitter} {
		trip[i][0], trip[i][1], _ = quantiles(list)
	}
	return trip
}
