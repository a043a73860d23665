package proxy

import (
	"container/list"
	"net/netip"
	"sync"

	"golang.org/x/time/rate"
)

// Limits bounds what clients may ask of this peer. A client is an IPv4
// address or an IPv6 /64, behind PROXY protocol or a trusted header. Zero
// means the default, a negative value no limit.
type Limits struct {
	Sessions          int // at once; default 100000
	SessionsPerClient int // at once; default 10000: a NAT may hide many viewers

	// New sessions each second, with bursts of five seconds' worth.
	SessionRate          float64 // default 5000
	SessionRatePerClient float64 // default 500

	// New streams, those not placed yet, each second, with bursts of ten
	// seconds' worth. They cost the cluster an agreement each.
	PlacementRate          float64 // default 1000
	PlacementRatePerClient float64 // default 50
}

const (
	sessionBurst   = 5  // seconds of the rate
	placementBurst = 10 // seconds of the rate
	// maxClients bounds the table of rates. A client beyond the least recently
	// seen starts with a full bucket again; the total rates hold regardless.
	maxClients = 1 << 16
)

func (l Limits) withDefaults() Limits {
	return Limits{
		Sessions:               orDefault(l.Sessions, 100_000),
		SessionsPerClient:      orDefault(l.SessionsPerClient, 10_000),
		SessionRate:            orDefault(l.SessionRate, 5000),
		SessionRatePerClient:   orDefault(l.SessionRatePerClient, 500),
		PlacementRate:          orDefault(l.PlacementRate, 1000),
		PlacementRatePerClient: orDefault(l.PlacementRatePerClient, 50),
	}
}

func orDefault[T int | float64](value, fallback T) T {
	if value == 0 {
		return fallback
	}
	return value
}

// limiter admits sessions. Its tables are bounded by maxClients and by the
// number of open sessions.
type limiter struct {
	limits     Limits
	sessions   *rate.Limiter
	placements *rate.Limiter

	// mu guards what follows.
	mu    sync.Mutex
	open  int
	count map[netip.Prefix]int // open sessions
	rates map[netip.Prefix]*list.Element
	order *list.List // of *clientRates, most recently seen first
}

type clientRates struct {
	client     netip.Prefix
	sessions   *rate.Limiter
	placements *rate.Limiter
}

func newLimiter(limits Limits) *limiter {
	limits = limits.withDefaults()
	return &limiter{
		limits:     limits,
		sessions:   newBucket(limits.SessionRate, sessionBurst),
		placements: newBucket(limits.PlacementRate, placementBurst),
		count:      make(map[netip.Prefix]int),
		rates:      make(map[netip.Prefix]*list.Element),
		order:      list.New(),
	}
}

func newBucket(perSecond float64, burstSeconds float64) *rate.Limiter {
	if perSecond < 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	return rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond*burstSeconds)))
}

// admit counts one more session of a client, or says which limit forbids it.
// leave must follow. The client's own bucket is asked before the common one,
// so that a flood from one address leaves the others their share.
func (l *limiter) admit(addr netip.Addr) error {
	client := ClientOf(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	if exceeds(l.open, l.limits.Sessions) {
		return &LimitError{Limit: "sessions"}
	}
	if exceeds(l.count[client], l.limits.SessionsPerClient) {
		return &LimitError{Limit: "sessions per address"}
	}
	if !l.ratesOf(client).sessions.Allow() {
		return &LimitError{Limit: "rate of sessions per address"}
	}
	if !l.sessions.Allow() {
		return &LimitError{Limit: "rate of sessions"}
	}
	l.open++
	l.count[client]++
	return nil
}

// admitPlacement asks for one more new stream.
func (l *limiter) admitPlacement(addr netip.Addr) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ratesOf(ClientOf(addr)).placements.Allow() {
		return &LimitError{Limit: "rate of new streams per address"}
	}
	if !l.placements.Allow() {
		return &LimitError{Limit: "rate of new streams"}
	}
	return nil
}

func (l *limiter) leave(addr netip.Addr) {
	client := ClientOf(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.count[client]--
	if l.count[client] == 0 {
		delete(l.count, client)
	}
}

// ratesOf returns the client's buckets. The lock is held.
func (l *limiter) ratesOf(client netip.Prefix) *clientRates {
	if element, ok := l.rates[client]; ok {
		l.order.MoveToFront(element)
		return element.Value.(*clientRates) //nolint:errcheck // the list holds nothing else
	}
	if l.order.Len() >= maxClients {
		oldest := l.order.Remove(l.order.Back()).(*clientRates) //nolint:errcheck // the list holds nothing else
		delete(l.rates, oldest.client)
	}
	rates := &clientRates{
		client:     client,
		sessions:   newBucket(l.limits.SessionRatePerClient, sessionBurst),
		placements: newBucket(l.limits.PlacementRatePerClient, placementBurst),
	}
	l.rates[client] = l.order.PushFront(rates)
	return rates
}

func exceeds(count, limit int) bool { return limit >= 0 && count >= limit }

// ClientOf is the unit that limits count: an address of IPv4, the /64 that one
// user of IPv6 has.
func ClientOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := min(addr.BitLen(), 64)
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // no address: all such share one bucket
	}
	return prefix
}
