package proxy

import (
	"log/slog"
	"net/netip"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// RefusalLog logs clients that came to no session, a line for each as long as
// they are few: who asks for nonsense a thousand times a second must not fill
// the disk. It is safe for concurrent use.
type RefusalLog struct {
	log      *slog.Logger
	kind     string
	limiter  *rate.Limiter
	unlogged atomic.Int64 // since the last line
}

// NewRefusalLog returns one for a kind of clients: http, srt, ...
func NewRefusalLog(log *slog.Logger, kind string) *RefusalLog {
	const perSecond, burst = 10, 100
	return &RefusalLog{log: log, kind: kind, limiter: rate.NewLimiter(perSecond, burst)}
}

// Note logs one refusal, or counts it for the next line.
func (r *RefusalLog) Note(client netip.AddrPort, err error) {
	if !r.limiter.Allow() {
		r.unlogged.Add(1)
		return
	}
	r.log.Info("client refused", "kind", r.kind, "client", client, "err", err, "unlogged", r.unlogged.Swap(0))
}
