package srt

import (
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"srsx/proxy"
)

// table holds the flows of a port. It is bounded: half-open ones by its own
// limits, the others because each is a session.
type table struct {
	limit, limitPerClient int
	gauge                 prometheus.Gauge // half-open flows

	// mu guards what follows.
	mu       sync.RWMutex
	byCaller map[caller]*flow
	// byID finds flows by what their clients' packets are for, the id of the
	// origin's socket. Several origins may have chosen the same one: those
	// flows are chained by sameID.
	byID     map[uint32]*flow
	opening  int
	openedBy map[netip.Prefix]int // half-open flows of a client
	answered answered
}

func newTable(limit, limitPerClient int, gauge prometheus.Gauge) *table {
	return &table{
		limit: limit, limitPerClient: limitPerClient, gauge: gauge,
		byCaller: make(map[caller]*flow), byID: make(map[uint32]*flow), openedBy: make(map[netip.Prefix]int),
	}
}

// find returns the flow of a packet. known tells whether there is one for that
// id, if from another address.
func (t *table) find(id uint32, from netip.AddrPort) (f *flow, known bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	first := t.byID[id]
	for f = first; f != nil && f.who.addr != from; f = f.sameID {
	}
	return f, first != nil
}

// of returns the flow of a caller, half-open or not, or how the caller was
// refused lately.
func (t *table) of(who caller, at time.Time) (f *flow, how refusal, known bool) {
	t.mu.Lock() // memory turns over
	defer t.mu.Unlock()
	if f = t.byCaller[who]; f != nil {
		return f, refusal{}, true
	}
	how, known = t.answered.get(who, at)
	return nil, how, known
}

// begin adds a half-open flow, unless there are too many. settle must follow.
func (t *table) begin(f *flow) bool {
	from := proxy.ClientOf(f.who.addr.Addr())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.opening >= t.limit || t.openedBy[from] >= t.limitPerClient {
		return false
	}
	t.opening++
	t.openedBy[from]++
	t.gauge.Inc()
	t.byCaller[f.who] = f
	return true
}

// settle counts a flow as half-open no more.
func (t *table) settle(f *flow) {
	from := proxy.ClientOf(f.who.addr.Addr())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.opening--
	t.gauge.Dec()
	if t.openedBy[from]--; t.openedBy[from] == 0 {
		delete(t.openedBy, from)
	}
}

// join has find return a flow from now on. It fails when the client has another
// flow to an origin that chose the same id: their packets could not be told
// apart.
func (t *table) join(f *flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for other := t.byID[f.originID]; other != nil; other = other.sameID {
		if other.who.addr == f.who.addr {
			return false
		}
	}
	f.sameID = t.byID[f.originID]
	t.byID[f.originID] = f
	return true
}

// remove forgets a flow, and remembers how its caller is to be answered.
func (t *table) remove(f *flow, how refusal, at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.byCaller, f.who)
	t.answered.put(f.who, how, at)
	for link := t.byID[f.originID]; link != nil; link = link.sameID {
		if link == f {
			t.unchain(f)
			return
		}
	}
}

// unchain takes a flow out of byID. The lock is held.
func (t *table) unchain(f *flow) {
	if first := t.byID[f.originID]; first != f {
		for first.sameID != f {
			first = first.sameID
		}
		first.sameID = f.sameID
		return
	}
	if f.sameID == nil {
		delete(t.byID, f.originID)
		return
	}
	t.byID[f.originID] = f.sameID
}

// flows returns those that are established.
func (t *table) flows() []*flow {
	t.mu.RLock()
	defer t.mu.RUnlock()
	list := make([]*flow, 0, len(t.byCaller))
	for _, f := range t.byCaller {
		if f.up.Load() {
			list = append(list, f)
		}
	}
	return list
}
