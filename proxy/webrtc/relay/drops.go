package relay

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// drop is why a datagram went no further.
type drop uint8

const (
	dropNot       drop = iota
	dropOther          // neither STUN nor DTLS nor RTP
	dropLong           // longer than maxDatagram
	dropMalformed      // STUN that is none, or none for ICE
	dropStranger       // by a path that has not proved itself
	dropUnknown        // a ufrag that leads nowhere, as far as this peer knows
	dropIntegrity      // not by somebody who knows the password
	dropReplay         // a check that came by another path before
	dropEnded          // of a session that was ended
	dropFull           // no more flows
	dropOrigin         // nothing that an origin may send, or none to send it to
	dropKinds
)

// String is the label of the reason.
func (d drop) String() string {
	return [dropKinds]string{
		"", "other", "long", "malformed", "stranger", "unknown", "integrity", "replay", "ended", "full", "origin",
	}[d]
}

type drops [dropKinds]atomic.Int64

func (d *drops) count(why drop) { d[why].Add(1) }

// Describe implements prometheus.Collector.
func (*Relay) Describe(descs chan<- *prometheus.Desc) {
	descs <- droppedDesc()
	descs <- flowsDesc()
}

// Collect implements prometheus.Collector.
func (r *Relay) Collect(metrics chan<- prometheus.Metric) {
	metrics <- prometheus.MustNewConstMetric(flowsDesc(), prometheus.GaugeValue, float64(r.Flows()))
	for why := dropNot + 1; why < dropKinds; why++ {
		metrics <- prometheus.MustNewConstMetric(droppedDesc(), prometheus.CounterValue, float64(r.drops[why].Load()), why.String())
	}
}

func droppedDesc() *prometheus.Desc {
	return prometheus.NewDesc("srsx_webrtc_dropped_total", "Datagrams that went no further, by reason.", []string{"reason"}, nil)
}

func flowsDesc() *prometheus.Desc {
	return prometheus.NewDesc("srsx_webrtc_flows", "WebRTC sessions with media at this peer.", nil, nil)
}
