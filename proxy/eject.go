package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"srsx/lb"
)

const (
	probeTick    = 500 * time.Millisecond
	probeTimeout = time.Second
	firstProbe   = 500 * time.Millisecond // after the ejection, then doubling
	slowestProbe = 15 * time.Second
)

// ejections are the origins that this peer could not connect to. They get no
// new stream on its behalf until the backend or a probe says that they are
// back; a stream placed on one stays.
type ejections struct {
	// mu guards what follows.
	mu      sync.Mutex
	origins map[ejected]*ejection
}

// ejected is an origin, and the way by which it cannot be had.
type ejected struct {
	id  lb.OriginID
	way lb.Protocol
}

type ejection struct {
	endpoint string // which to probe
	next     time.Time
	backoff  time.Duration
}

// wayOf tells which protocols fail together: those over TCP, whose kernel or
// process has gone, and each of those that have a UDP port of their own.
func wayOf(protocol lb.Protocol) lb.Protocol {
	switch protocol {
	case lb.SRT, lb.RTC:
		return protocol
	default:
		return lb.RTMP
	}
}

func newEjections() *ejections {
	return &ejections{origins: make(map[ejected]*ejection)}
}

// eject reports whether the origin was not ejected before.
func (e *ejections) eject(id lb.OriginID, protocol lb.Protocol, endpoint string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := ejected{id, wayOf(protocol)}
	if _, ok := e.origins[key]; ok {
		return false
	}
	e.origins[key] = &ejection{endpoint: endpoint, next: time.Now().Add(firstProbe), backoff: firstProbe}
	return true
}

// readmit takes an origin back that answered by a protocol.
func (e *ejections) readmit(id lb.OriginID, protocol lb.Protocol) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	key := ejected{id, wayOf(protocol)}
	_, ok := e.origins[key]
	delete(e.origins, key)
	return ok
}

// forget takes an origin back by every way.
func (e *ejections) forget(id lb.OriginID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.origins, func(key ejected, _ *ejection) bool { return key.id == id })
}

// avoid returns the origins that cannot be had by a protocol: those that fail
// over TCP by none.
func (e *ejections) avoid(protocol lb.Protocol) []lb.OriginID {
	return e.list(func(way lb.Protocol) bool { return way == lb.RTMP || way == protocol })
}

// all returns the origins that cannot be had by one way at least.
func (e *ejections) all() []lb.OriginID { return e.list(func(lb.Protocol) bool { return true }) }

func (e *ejections) list(counts func(way lb.Protocol) bool) []lb.OriginID {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.origins) == 0 {
		return nil
	}
	ids := make([]lb.OriginID, 0, len(e.origins))
	for key := range e.origins {
		if counts(key.way) {
			ids = append(ids, key.id)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// due returns the endpoints to probe now and puts off their next probe.
func (e *ejections) due(now time.Time) map[ejected]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	due := make(map[ejected]string)
	for key, ejected := range e.origins {
		if now.Before(ejected.next) {
			continue
		}
		ejected.backoff = min(2*ejected.backoff, slowestProbe)
		ejected.next = now.Add(probeTimeout + ejected.backoff)
		due[key] = ejected.endpoint
	}
	return due
}

// suspect ejects an origin and tells the backend.
func (r *Router) suspect(origin lb.Origin, protocol lb.Protocol, cause error) {
	endpoint := ""
	if protocol == lb.RTC {
		protocol = lb.API // where sessions are signalled, and what a probe can connect to
	}
	if endpoints := origin.Endpoints.Of(protocol); len(endpoints) > 0 {
		endpoint = endpoints[0]
	}
	if r.ejected.eject(origin.ID, protocol, endpoint) {
		r.log.Warn("origin ejected", "origin", origin.ID, "protocol", protocol, "reason", reasonText(cause))
	}
	r.balancer.Suspect(origin.ID, cause)
}

// probeEjected probes ejected origins now and then, until ctx ends.
func (r *Router) probeEjected(ctx context.Context) {
	ticker := time.NewTicker(probeTick)
	defer ticker.Stop()
	var probes sync.WaitGroup
	defer probes.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			for key, endpoint := range r.ejected.due(now) {
				probes.Go(func() { r.probe(ctx, key, endpoint) })
			}
		}
	}
}

func (r *Router) probe(ctx context.Context, key ejected, endpoint string) {
	origin, known := r.balancer.Origin(key.id)
	if !known {
		r.ejected.forget(key.id)
		return
	}
	if origin.State == lb.Down {
		return // the backend probes it and reports when it is back
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	probe, ok := r.probes[key.way]
	if !ok {
		probe = r.connects
	}
	if probe(ctx, endpoint) == nil && r.ejected.readmit(key.id, key.way) {
		r.log.InfoContext(ctx, "origin taken back", "origin", key.id, "protocol", key.way)
	}
}

// connects is the probe of protocols over TCP.
func (r *Router) connects(ctx context.Context, endpoint string) error {
	conn, err := r.dial(ctx, "tcp", endpoint)
	if err != nil {
		return err
	}
	return conn.Close()
}

// dialOrigin connects to the first endpoint that serves the protocol.
func (r *Router) dialOrigin(ctx context.Context, origin lb.Origin, protocol lb.Protocol) (net.Conn, error) {
	endpoints := origin.Endpoints.Of(protocol)
	if len(endpoints) == 0 {
		return nil, fmt.Errorf("dial origin %s: %w: %s", origin.ID, ErrNotServed, protocol)
	}
	ctx, cancel := context.WithTimeout(ctx, r.dialTimeout)
	defer cancel()
	started := time.Now()
	conn, err := r.dial(ctx, "tcp", endpoints[0])
	r.metrics.dialled(protocol, time.Since(started), err)
	if err != nil {
		return nil, fmt.Errorf("dial origin %s: %w: %w", origin.ID, ErrUnreachable, err)
	}
	r.ejected.readmit(origin.ID, protocol)
	return conn, nil
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
