package port

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	// A peer that is refused comes again many times a second.
	reportPace = time.Minute
	// A flood of strangers should not be one of log lines.
	maxReports = 64
)

// reports logs why peers do not come together, each reason once a minute. It is
// safe for concurrent use.
type reports struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[string]time.Time // guarded by mu; when, by peer and reason
}

func newReports(log *slog.Logger) *reports {
	return &reports{log: log, said: make(map[string]time.Time)}
}

// report logs the end of a handshake at an address. That strangers knock is no
// news; that peers refuse each other is.
func (r *reports) report(ctx context.Context, h *handshake, at net.Addr, err error) {
	var refused *refusal
	if !errors.As(err, &refused) {
		r.log.DebugContext(ctx, "handshake ended", "addr", at, "err", err)
		return
	}
	peer := h.peer.nodeName
	if peer == "" {
		peer, _, _ = net.SplitHostPort(at.String()) // it was refused before it said its name
	}
	reason, _, _ := strings.Cut(refused.Error(), ": current time ") // of an expired certificate
	if r.due(peer+" "+reason, time.Now()) {
		r.log.WarnContext(ctx, "peer not accepted", "peer", peer, "addr", at, "err", err)
	}
}

// due reports whether what is meant by key may be logged now.
func (r *reports) due(key string, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.said, func(_ string, at time.Time) bool { return now.Sub(at) >= reportPace })
	if _, said := r.said[key]; said || len(r.said) >= maxReports {
		return false
	}
	r.said[key] = now
	return true
}
