package proxy

import (
	"errors"
	"io"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"srsx/lb"
)

// Metrics are the figures of media sessions. None has a label per stream or
// client, so that their number does not grow with use.
type Metrics struct {
	opened    *prometheus.CounterVec   // kind, direction
	ended     *prometheus.CounterVec   // kind, direction, reason
	refusals  *prometheus.CounterVec   // kind, direction, reason
	dials     *prometheus.CounterVec   // protocol, result
	dialTime  *prometheus.HistogramVec // protocol
	places    *prometheus.CounterVec   // protocol, result
	placeTime *prometheus.HistogramVec // protocol

	rejectedConns *prometheus.CounterVec // listener, limit
	openConns     *prometheus.GaugeVec   // listener
	acceptErrors  *prometheus.CounterVec // listener

	registerer prometheus.Registerer
}

// NewMetrics makes the metrics and registers them; nil registers nowhere. It
// panics when they are registered already, as that is a mistake of wiring.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	if registerer == nil {
		registerer = prometheus.NewRegistry()
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "srsx", Name: name, Help: help}, labels)
	}
	histogram := func(name, help string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "srsx", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(0.0005, 3, 10), // 0.5 ms to 10 s
		}, []string{"protocol"})
	}
	m := &Metrics{
		opened:    counter("sessions_opened_total", "Media sessions admitted.", "kind", "direction"),
		ended:     counter("sessions_ended_total", "Media sessions ended, by reason.", "kind", "direction", "reason"),
		refusals:  counter("refusals_total", "Media sessions refused, by reason.", "kind", "direction", "reason"),
		dials:     counter("dials_total", "Connections to origins tried, by result.", "protocol", "result"),
		dialTime:  histogram("dial_seconds", "Time that a connection to an origin took, also in vain."),
		places:    counter("placements_acquired_total", "Placements asked of the backend, by result.", "protocol", "result"),
		placeTime: histogram("placement_acquire_seconds", "Time that the backend took to answer."),

		rejectedConns: counter("connections_rejected_total", "Connections closed at once, by limit.", "listener", "limit"),
		openConns: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: "srsx", Name: "connections", Help: "Client connections open.",
		}, []string{"listener"}),
		acceptErrors: counter("accept_errors_total", "Connections that could not be accepted.", "listener"),
		registerer:   registerer,
	}
	registerer.MustRegister(m.opened, m.ended, m.refusals, m.dials, m.dialTime, m.places, m.placeTime,
		m.rejectedConns, m.openConns, m.acceptErrors)
	return m
}

func (m *Metrics) dialled(protocol lb.Protocol, took time.Duration, err error) {
	m.dialTime.WithLabelValues(protocol.String()).Observe(took.Seconds())
	m.dials.WithLabelValues(protocol.String(), dialResult(err)).Inc()
}

func dialResult(err error) string {
	netErr := net.Error(nil)
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &netErr) && netErr.Timeout():
		return "timeout"
	case isRefused(err):
		return "refused"
	default:
		return "error"
	}
}

func (m *Metrics) placed(protocol lb.Protocol, took time.Duration, err error) {
	m.placeTime.WithLabelValues(protocol.String()).Observe(took.Seconds())
	m.places.WithLabelValues(protocol.String(), placeResult(err)).Inc()
}

func placeResult(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, lb.ErrNoOrigin):
		return "no_origin"
	case errors.Is(err, lb.ErrUndecided):
		return "undecided"
	case errors.Is(err, lb.ErrLimit):
		return "limit"
	default:
		return "error"
	}
}

// refused counts by the words of the refusal, which are few and fixed.
func (m *Metrics) refused(r Request, err error) {
	m.refusals.WithLabelValues(r.Kind, direction(r), RefusalOf(err).Reason).Inc()
}

// direction is the label for what a client does.
func direction(r Request) string {
	if r.Publish {
		return "publish"
	}
	return "play"
}

// reasonClass is the label for why a session ended.
func reasonClass(err error) string {
	netErr := net.Error(nil)
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return "done"
	case errors.Is(err, ErrMoved):
		return "moved"
	case errors.Is(err, ErrForgotten):
		return "forgotten"
	case errors.Is(err, ErrDrained):
		return "drained"
	case errors.Is(err, ErrRemoved):
		return "removed"
	case errors.Is(err, ErrKicked):
		return "kicked"
	case errors.Is(err, ErrShutdown):
		return "shutdown"
	case errors.Is(err, ErrSlow):
		return "slow"
	case errors.Is(err, ErrUnreachable), errors.Is(err, ErrNotServed):
		return "origin"
	case errors.Is(err, lb.ErrNoOrigin), errors.Is(err, lb.ErrUndecided):
		return "unplaced"
	case errors.As(err, &netErr) && netErr.Timeout():
		return "timeout"
	default:
		return "error"
	}
}
