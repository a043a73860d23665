package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"srsx/lb"
)

const (
	probeTick    = 250 * time.Millisecond
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
	origins map[lb.OriginID]*ejection
}

type ejection struct {
	endpoint string // which to probe
	next     time.Time
	backoff  time.Duration
}

func newEjections() *ejections {
	return &ejections{origins: make(map[lb.OriginID]*ejection)}
}

// eject reports whether the origin was not ejected before.
func (e *ejections) eject(id lb.OriginID, endpoint string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, ok := e.origins[id]; ok {
		return false
	}
	e.origins[id] = &ejection{endpoint: endpoint, next: time.Now().Add(firstProbe), backoff: firstProbe}
	return true
}

func (e *ejections) readmit(id lb.OriginID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.origins[id]
	delete(e.origins, id)
	return ok
}

func (e *ejections) list() []lb.OriginID {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.origins) == 0 {
		return nil
	}
	ids := make([]lb.OriginID, 0, len(e.origins))
	for id := range e.origins {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// due returns the origins to probe now and puts off their next probe.
func (e *ejections) due(now time.Time) map[lb.OriginID]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	due := make(map[lb.OriginID]string)
	for id, ejected := range e.origins {
		if now.Before(ejected.next) {
			continue
		}
		ejected.backoff = min(2*ejected.backoff, slowestProbe)
		ejected.next = now.Add(probeTimeout + ejected.backoff)
		due[id] = ejected.endpoint
	}
	return due
}

// suspect ejects an origin and tells the backend.
func (r *Router) suspect(origin lb.Origin, protocol lb.Protocol, cause error) {
	endpoint := ""
	if endpoints := origin.Endpoints.Of(protocol); len(endpoints) > 0 {
		endpoint = endpoints[0]
	}
	if r.ejected.eject(origin.ID, endpoint) {
		r.log.Warn("origin ejected", "origin", origin.ID, "reason", reasonText(cause))
	}
	r.balancer.Suspect(origin.ID, cause)
}

// probeEjected connects to ejected origins now and then, until ctx ends.
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
			for id, endpoint := range r.ejected.due(now) {
				probes.Go(func() { r.probe(ctx, id, endpoint) })
			}
		}
	}
}

func (r *Router) probe(ctx context.Context, id lb.OriginID, endpoint string) {
	origin, known := r.balancer.Origin(id)
	if !known {
		r.ejected.readmit(id)
		return
	}
	if origin.State == lb.Down {
		return // the backend probes it and reports when it is back
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := r.dial(ctx, "tcp", endpoint)
	if err != nil {
		return
	}
	_ = conn.Close()
	if r.ejected.readmit(id) {
		r.log.InfoContext(ctx, "origin taken back", "origin", id)
	}
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
	r.ejected.readmit(origin.ID)
	return conn, nil
}

func isRefused(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }
