package peer

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	"srsx/cluster/gossip"
)

const (
	waitingPatience = time.Second // most peers are let in by then
	waitingPace     = 10 * time.Second
)

func (p *Peer) explainWaiting(ctx context.Context) error {
	explain(ctx, p.log, p.waiting)
	return nil
}

// explain logs every ten seconds why a peer waits, while it does.
func explain(ctx context.Context, log *slog.Logger, why func() (reason string, mistake bool)) {
	next := time.NewTimer(waitingPatience)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		next.Reset(waitingPace)
		reason, mistake := why()
		level := slog.LevelWarn
		if mistake {
			level = slog.LevelError
		}
		if reason != "" {
			log.Log(ctx, level, "not in a cluster yet", "reason", reason)
		}
	}
}

// waiting says in one line what keeps this peer out of a cluster; empty: it is in
// one. A mistake is one that an operator has to correct.
func (p *Peer) waiting() (reason string, mistake bool) {
	if p.seated() {
		return "", false
	}
	reason, mistake = p.founding.Why()
	switch {
	case reason != "":
	case p.isMember():
		reason = "let into a cluster, and waiting for its leader to send the log"
	default:
		reason = "looking for a cluster"
	}
	reasons := []string{reason}
	if old := p.outdated(); old != "" {
		reasons, mistake = append(reasons, old), true
	}
	if apart := p.gossip.Why(); apart != "" {
		reasons = append(reasons, apart)
	}
	return strings.Join(reasons, "; "), mistake
}

// outdated says that the cluster uses commands which this build does not read, as
// far as its members tell; empty: it reads all.
func (p *Peer) outdated() string {
	inUse := uint16(math.MaxUint16)
	for _, m := range p.gossip.Members() {
		if m.ID != p.id && m.Cluster != "" && m.State != gossip.Left {
			inUse = min(inUse, m.Commands)
		}
	}
	if inUse == math.MaxUint16 || inUse <= p.config.reads {
		return ""
	}
	return fmt.Sprintf("this release reads commands up to version %d, and the cluster uses %d: it needs a newer release", p.config.reads, inUse)
}
