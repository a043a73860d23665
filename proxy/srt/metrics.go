package srt

import (
	"github.com/prometheus/client_golang/prometheus"

	"srsx/proxy/srt/wire"
)

// dropped says why a packet went no further.
type dropped int

const (
	dropSize      dropped = iota // no packet of SRT, or longer than maxDatagram
	dropMalformed                // a handshake that is none
	dropCookie                   // a conclusion without a valid cookie
	dropForeign                  // for a flow of another address
	dropUnknown                  // for no flow
	numDropped
)

func (d dropped) String() string {
	return [numDropped]string{"size", "malformed", "cookie", "foreign_address", "unknown_id"}[d]
}

// Metrics are what the figures of sessions do not tell.
type Metrics struct {
	dropped  [numDropped]prometheus.Counter
	rejects  *prometheus.CounterVec // reason
	halfOpen prometheus.Gauge
}

// NewMetrics makes the metrics and registers them; nil registers nowhere. It
// panics when they are registered already, as that is a mistake of wiring.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	if registerer == nil {
		registerer = prometheus.NewRegistry()
	}
	drops := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "srsx_srt_packets_dropped_total", Help: "SRT packets that went no further, by reason.",
	}, []string{"reason"})
	m := &Metrics{
		rejects: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "srsx_srt_rejections_total", Help: "SRT handshakes rejected, by libsrt's word for the reason.",
		}, []string{"reason"}),
		halfOpen: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "srsx_srt_half_open", Help: "SRT handshakes that wait for an origin.",
		}),
	}
	for reason := range numDropped {
		m.dropped[reason] = drops.WithLabelValues(reason.String())
	}
	registerer.MustRegister(drops, m.rejects, m.halfOpen)
	return m
}

func (m *Metrics) drop(reason dropped) { m.dropped[reason].Inc() }

// rejected counts by the words of the reasons, which are few: origins may
// invent numbers.
func (m *Metrics) rejected(reason wire.Reason) { m.rejects.WithLabelValues(reason.Name()).Inc() }
