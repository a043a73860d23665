package httpstream

import (
	"log/slog"
	"net/netip"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// refusals logs clients that came to no session, a line for each as long as
// they are few: who asks for nonsense a thousand times a second must not fill
// the disk.
type refusals struct {
	log      *slog.Logger
	limiter  *rate.Limiter
	unlogged atomic.Int64 // since the last line
}

func newRefusals(log *slog.Logger) *refusals {
	const perSecond, burst = 10, 100
	return &refusals{log: log, limiter: rate.NewLimiter(perSecond, burst)}
}

func (r *refusals) note(client netip.AddrPort, err error) {
	if !r.limiter.Allow() {
		r.unlogged.Add(1)
		return
	}
	r.log.Info("client refused", "kind", "http", "client", client, "err", err, "unlogged", r.unlogged.Swap(0))
}
