package proxy

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"srsx/lb"
)

// SessionInfo is an open session as lists show it.
type SessionInfo struct {
	ID       uint64
	Stream   lb.Stream
	Origin   lb.OriginID
	Kind     string
	Publish  bool
	Client   netip.AddrPort
	Started  time.Time
	BytesIn  int64
	BytesOut int64
}

// traffic is what a label pair of the byte counters stands for.
type traffic struct {
	kind      string
	direction string
}

// registry holds the open sessions.
type registry struct {
	// mu guards what follows.
	mu       sync.Mutex
	closed   bool
	lastID   uint64
	byID     map[uint64]*session
	byStream map[lb.Stream]map[*session]struct{}
	// past holds the bytes of ended sessions, so that Count needs to touch
	// nothing that sessions share.
	past    map[traffic]*byteCount
	changed chan struct{} // closed and replaced when a session leaves
}

type byteCount struct{ in, out, sessions int64 }

func newRegistry() *registry {
	return &registry{
		byID:     make(map[uint64]*session),
		byStream: make(map[lb.Stream]map[*session]struct{}),
		past:     make(map[traffic]*byteCount),
		changed:  make(chan struct{}),
	}
}

func (g *registry) isClosed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

func (g *registry) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
}

func (g *registry) add(s *session) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return ErrShutdown
	}
	g.lastID++
	s.id = g.lastID
	g.byID[s.id] = s
	if g.byStream[s.request.Stream] == nil {
		g.byStream[s.request.Stream] = make(map[*session]struct{})
	}
	g.byStream[s.request.Stream][s] = struct{}{}
	return nil
}

func (g *registry) remove(s *session) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.byID[s.id]; !ok {
		return
	}
	delete(g.byID, s.id)
	of := g.byStream[s.request.Stream]
	delete(of, s)
	if len(of) == 0 {
		delete(g.byStream, s.request.Stream)
	}
	key := traffic{s.request.Kind, direction(s.request)}
	if g.past[key] == nil {
		g.past[key] = &byteCount{}
	}
	g.past[key].in += s.in.Load()
	g.past[key].out += s.out.Load()
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *registry) left() (int, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.byID), g.changed
}

func (g *registry) all() []*session {
	g.mu.Lock()
	defer g.mu.Unlock()
	sessions := make([]*session, 0, len(g.byID))
	for _, s := range g.byID {
		sessions = append(sessions, s)
	}
	return sessions
}

func (g *registry) list() []SessionInfo {
	sessions := g.all()
	infos := make([]SessionInfo, 0, len(sessions))
	for _, s := range sessions {
		infos = append(infos, SessionInfo{
			ID: s.id, Stream: s.request.Stream, Origin: s.Origin().ID,
			Kind: s.request.Kind, Publish: s.request.Publish, Client: s.request.Client,
			Started: s.started, BytesIn: s.in.Load(), BytesOut: s.out.Load(),
		})
	}
	slices.SortFunc(infos, func(a, b SessionInfo) int { return cmp.Compare(a.ID, b.ID) })
	return infos
}

func (g *registry) counts() (total int, byOrigin map[lb.OriginID]int) {
	byOrigin = make(map[lb.OriginID]int)
	sessions := g.all()
	for _, s := range sessions {
		byOrigin[s.Origin().ID]++
	}
	return len(sessions), byOrigin
}

func (g *registry) ofStream(stream lb.Stream) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.byStream[stream])
}

// inUse returns the streams and origins that sessions are on.
func (g *registry) inUse() (streams []lb.Stream, origins []lb.OriginID) {
	_, byOrigin := g.counts()
	for id := range byOrigin {
		origins = append(origins, id)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for stream := range g.byStream {
		streams = append(streams, stream)
	}
	return streams, origins
}

func (g *registry) endStream(stream lb.Stream, concerns func(lb.Lease) bool, reason error) {
	g.mu.Lock()
	sessions := make([]*session, 0, len(g.byStream[stream]))
	for s := range g.byStream[stream] {
		sessions = append(sessions, s)
	}
	g.mu.Unlock()
	for _, s := range sessions {
		if concerns(s.current()) {
			s.cancel(reason)
		}
	}
}

func (g *registry) endOrigin(id lb.OriginID, reason error) {
	for _, s := range g.all() {
		if s.Origin().ID == id {
			s.cancel(reason)
		}
	}
}

func (g *registry) endAll(reason error) {
	for _, s := range g.all() {
		s.cancel(reason)
	}
}

func (g *registry) kick(id uint64) bool {
	g.mu.Lock()
	s, ok := g.byID[id]
	g.mu.Unlock()
	if ok {
		s.cancel(ErrKicked)
	}
	return ok
}

// totals returns the bytes of all sessions ever and the number of those open.
func (g *registry) totals() map[traffic]byteCount {
	g.mu.Lock()
	defer g.mu.Unlock()
	totals := make(map[traffic]byteCount, len(g.past))
	for key, count := range g.past {
		totals[key] = *count
	}
	for _, s := range g.byID {
		key := traffic{s.request.Kind, direction(s.request)}
		count := totals[key]
		count.in += s.in.Load()
		count.out += s.out.Load()
		count.sessions++
		totals[key] = count
	}
	return totals
}

// collector reads what sessions count by themselves, once a scrape.
type collector struct {
	sessions *registry
	ejected  *ejections

	open, bytes, ejectedOrigins *prometheus.Desc
}

func newCollector(sessions *registry, ejected *ejections) *collector {
	return &collector{
		sessions: sessions,
		ejected:  ejected,
		open: prometheus.NewDesc("srsx_sessions", "Media sessions open.",
			[]string{"kind", "direction"}, nil),
		bytes: prometheus.NewDesc("srsx_media_bytes_total", "Media bytes, in from publishers and out to players.",
			[]string{"kind", "direction"}, nil),
		ejectedOrigins: prometheus.NewDesc("srsx_ejected_origins", "Origins that get no new stream from this peer.",
			nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.open
	descs <- c.bytes
	descs <- c.ejectedOrigins
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(metrics chan<- prometheus.Metric) {
	in, out := make(map[string]int64), make(map[string]int64)
	for key, count := range c.sessions.totals() {
		metrics <- prometheus.MustNewConstMetric(c.open, prometheus.GaugeValue, float64(count.sessions), key.kind, key.direction)
		in[key.kind] += count.in
		out[key.kind] += count.out
	}
	for kind := range in {
		metrics <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(in[kind]), kind, "in")
		metrics <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(out[kind]), kind, "out")
	}
	metrics <- prometheus.MustNewConstMetric(c.ejectedOrigins, prometheus.GaugeValue, float64(len(c.ejected.all())))
}
