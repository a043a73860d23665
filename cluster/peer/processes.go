package peer

import (
	"context"
	"errors"

	"srsx/cluster/port"
)

// processes tells of the processes of others by the liveness links of the port.
type processes struct{ port *port.Port }

func (p processes) AwaitDeath(ctx context.Context, id string) error {
	select {
	case err := <-p.port.WatchProcess(ctx, port.Target{ID: id}):
		if errors.Is(err, port.ErrProcessDied) {
			return nil
		}
		return errors.Join(err, ctx.Err())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fence shuts raft's share of a port off, or lets it go on.
func fence(stream *port.RaftStream) func(bool) {
	return func(shut bool) {
		if shut {
			stream.Fence()
		} else {
			stream.Unfence()
		}
	}
}

func (p processes) Dead(ctx context.Context, id string) bool {
	return errors.Is(p.port.Probe(ctx, port.Target{ID: id}), port.ErrProcessDied)
}
