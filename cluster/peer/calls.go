package peer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"srsx/cluster"
	"srsx/cluster/port"
	"srsx/cluster/rpc"
)

// The requests between peers that are of no interest to consensus. The numbers
// never change; those below 64 are the node's.
const (
	kindVitals byte = 64
	kindRing   byte = 65
	kindRemove byte = 66
	kindMedia  byte = 67 // between the media servers of peers, who alone understand it
)

// nodeCalls carries the node's requests.
type nodeCalls struct{ *rpc.Exchange }

func (c nodeCalls) Call(ctx context.Context, to string, kind byte, request []byte) ([]byte, error) {
	reply, err := c.Exchange.Call(ctx, port.Target{ID: to}, kind, request)
	if errors.Is(err, rpc.ErrNotExecuted) {
		return nil, fmt.Errorf("%w: %w", cluster.ErrUnsent, err)
	}
	return reply, err
}

func (c nodeCalls) Handle(kind byte, answer func(ctx context.Context, from string, request []byte) ([]byte, error)) {
	c.Exchange.Handle(kind, func(ctx context.Context, from port.Peer, request []byte) ([]byte, error) {
		return answer(ctx, from.ID, request)
	})
}

func (p *Peer) serveCalls() {
	p.calls.Handle(kindVitals, func(context.Context, port.Peer, []byte) ([]byte, error) {
		return json.Marshal(p.config.Vitals())
	})
	p.calls.Handle(kindRing, p.answerRing)
	p.calls.Handle(kindRemove, p.answerRemove)
	p.calls.Handle(kindMedia, p.answerMedia)
}
