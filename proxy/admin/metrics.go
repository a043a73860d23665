package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"srsx/lb"
)

// collector shows the balancer's state when it is asked: nothing is counted
// twice, and an origin that is gone leaves no series behind.
type collector struct {
	balancer   lb.Balancer
	up         *prometheus.Desc
	state      *prometheus.Desc
	streams    *prometheus.Desc
	weight     *prometheus.Desc
	placements *prometheus.Desc
}

// NewCollector returns the metrics of origins and placements.
func NewCollector(b lb.Balancer) prometheus.Collector {
	return &collector{
		balancer:   b,
		up:         prometheus.NewDesc("srsx_origin_up", "1 when the origin takes new streams, else 0.", []string{"origin"}, nil),
		state:      prometheus.NewDesc("srsx_origin_state", "1 for the state that the origin is in, 0 for the others.", []string{"origin", "state"}, nil),
		streams:    prometheus.NewDesc("srsx_origin_streams", "Streams placed on the origin.", []string{"origin"}, nil),
		weight:     prometheus.NewDesc("srsx_origin_weight", "Weight of the origin.", []string{"origin"}, nil),
		placements: prometheus.NewDesc("srsx_placements", "Streams placed.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.up, c.state, c.streams, c.weight, c.placements} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	total := 0
	for _, o := range c.balancer.Origins() {
		id := string(o.ID)
		total += o.Streams
		for _, state := range []lb.OriginState{lb.Up, lb.Down, lb.Draining} {
			is := 0.0
			if o.State == state {
				is = 1
			}
			metrics <- prometheus.MustNewConstMetric(c.state, prometheus.GaugeValue, is, id, state.String())
			if state == lb.Up {
				metrics <- prometheus.MustNewConstMetric(c.up, prometheus.GaugeValue, is, id)
			}
		}
		metrics <- prometheus.MustNewConstMetric(c.streams, prometheus.GaugeValue, float64(o.Streams), id)
		metrics <- prometheus.MustNewConstMetric(c.weight, prometheus.GaugeValue, float64(o.Weight), id)
	}
	metrics <- prometheus.MustNewConstMetric(c.placements, prometheus.GaugeValue, float64(total))
}
