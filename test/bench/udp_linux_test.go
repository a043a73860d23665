package bench

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"srsx/test/peertest"
)

const (
	datagramsOfFrame = 6 // 30 times a second 2 Mbit/s
	udpRounds        = 3
	udpWindow        = time.Second
	shortWindow      = 600 * time.Millisecond // of what is even: one flow, no relay
	directly         = "direct"
	ourselves        = "srsx"
)

// udpRow is one load.
type udpRow struct {
	kind  udpKind
	to    direction
	flows int
}

func (w udpRow) String() string {
	flows := "1 flow"
	if w.flows > 1 {
		flows = fmt.Sprintf("%d flows", w.flows)
	}
	return fmt.Sprintf("%s %s, %s", w.kind.name, w.to, flows)
}

// rate is how many frames a flow has in a second. Thousands at 30 would measure
// what the driver leaves of the machine to the relay.
func (w udpRow) rate() int {
	if w.flows > 500 {
		return 3
	}
	return 30
}

// udpRelay measures what a datagram of SRT and WebRTC costs, and what the relay
// adds to its time, beside relays that know no protocol.
func udpRelay(b *testing.B, r *report) {
	for _, kind := range udpKinds() {
		for _, to := range []direction{up, down} {
			for _, flows := range []int{1, 100, 2000} {
				row := udpRow{kind, to, flows}
				b.Run(fmt.Sprintf("%s/%s/%d", kind.name, to, flows), func(b *testing.B) {
					row.measure(b, r)
					b.ReportMetric(0, "ns/op") // the table has it
				})
			}
		}
	}
}

// measure measures all relays in turn, and again.
func (w udpRow) measure(b *testing.B, r *report) {
	lanes := w.open(b)
	of := make(map[string]*readings)
	for _, l := range lanes {
		of[l.relay] = &readings{}
	}
	for range udpRounds {
		for _, l := range lanes {
			window := udpWindow
			if l.relay == directly || w.flows == 1 {
				window = shortWindow
			}
			of[l.relay].add(b, l, l.measure(b, window))
		}
	}
	r.add(w.cost(of))
	r.add(w.latency(of))
}

// readings are those of one relay, one each round.
type readings struct {
	each, p50, p99 []time.Duration // each: of a processor for a datagram
	sent, lost     int
}

func (s *readings) add(tb testing.TB, l *lane, r reading) {
	tb.Helper()
	if r.got == 0 || r.lost > r.sent/2 { // who delivers less saves the work
		tb.Fatalf("%s: %d of %d datagrams are lost", l.relay, r.lost, r.sent)
	}
	p50, p99, _ := quantiles(r.late)
	s.each = append(s.each, r.used/time.Duration(r.got))
	s.p50, s.p99 = append(s.p50, p50), append(s.p99, p99)
	s.sent, s.lost = s.sent+r.sent, s.lost+r.lost
}

// open starts the relays and has their clients come up.
func (w udpRow) open(b *testing.B) (lanes []*lane) {
	origin := startUDPOrigin(b, w.kind.answer)
	add := func(relay string, pid int, at netip.AddrPort, join func(*udpFlow, string) error) {
		l := &lane{row: w, relay: relay, pid: pid, origin: origin}
		openLane(b, l, at, join)
		lanes = append(lanes, l)
	}
	peer, at := w.startPeer(b, origin)
	add(ourselves, peer.PID(), at, w.kind.joins(b, peer, w.to))
	for _, role := range []string{roleUDPMmsg, roleUDPPlain} {
		relay, at := startRelay(b, role, origin.addr)
		add(role, relay.PID(), at, nil)
	}
	add(directly, 0, origin.addr, nil)
	return lanes
}

// startPeer starts srsx, whose ports are those of all addresses as they are by
// default, and returns where clients reach it.
func (w udpRow) startPeer(b *testing.B, origin *udpOrigin) (*peertest.Peer, netip.AddrPort) {
	ports, api := peertest.FreePorts(b), startAPI(b)
	peer := peertest.Start(b, peertest.Options{
		Ports: ports, Flags: []string{"-srt", portOf(ports.SRT), "-rtc", portOf(ports.RTC)},
		// All clients are one, and come at once.
		Config: fmt.Sprintf("origins: [{id: origin, rtmp: [%q], api: [%q], srt: [%q], rtc: [%q]}]\n", api, api, origin.addr, origin.addr) +
			"limits: {session_rate: -1, session_rate_per_client: -1, placement_rate: -1, placement_rate_per_client: -1}\n",
	})
	peer.AwaitOrigins(b, 1)
	if w.kind.name == "SRT" {
		return peer, netip.MustParseAddrPort(ports.SRT)
	}
	return peer, netip.MustParseAddrPort(ports.RTC)
}

// mostOfMmsg is the promise: what a datagram costs, of what it costs the relay
// that knows no protocol.
const mostOfMmsg = 0.85

func (w udpRow) cost(of map[string]*readings) figure {
	ours, mmsg, plainly := median(of[ourselves].each), median(of[roleUDPMmsg].each), median(of[roleUDPPlain].each)
	ratio := float64(ours) / float64(mmsg)
	f := figure{
		what:     w.String() + ", of a core a datagram",
		measured: fmt.Sprintf("%s (%.0f/s a core)%s", us(ours), time.Second.Seconds()/ours.Seconds(), losses(of)),
		beside:   fmt.Sprintf("%.2f of mmsg (%s), %.2f of plain (%s)", ratio, us(mmsg), float64(ours)/float64(plainly), us(plainly)),
	}
	// One flow is a load of nothing: what else the process does counts as its.
	if w.flows > 1 {
		f.wanted, f.met = fmt.Sprintf("<= %.2f of mmsg", mostOfMmsg), ratio <= mostOfMmsg
	}
	return f
}

func us(d time.Duration) string { return fmt.Sprintf("%.1f us", float64(d)/float64(time.Microsecond)) }

// losses names the relays that lost more than next to nothing.
func losses(of map[string]*readings) string {
	var text strings.Builder
	for _, relay := range []string{ourselves, roleUDPMmsg, roleUDPPlain, directly} {
		if share := 100 * float64(of[relay].lost) / float64(of[relay].sent); share > 0.1 {
			fmt.Fprintf(&text, "; %s lost %.1f %%", relay, share)
		}
	}
	return text.String()
}

func (w udpRow) latency(of map[string]*readings) figure {
	base50, base99 := median(of[directly].p50), median(of[directly].p99)
	pair := func(p50, p99 time.Duration) string {
		return fmt.Sprintf("%.2f, %.2f ms", p50.Seconds()*1000, p99.Seconds()*1000)
	}
	added := func(relay string) string { return pair(median(of[relay].p50)-base50, median(of[relay].p99)-base99) }
	return figure{
		what:     w.String() + ", added latency p50, p99",
		measured: added(ourselves),
		beside:   fmt.Sprintf("mmsg %s; plain %s; direct is %s", added(roleUDPMmsg), added(roleUDPPlain), pair(base50, base99)),
	}
}
