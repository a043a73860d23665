package cluster

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"
)

// voters returns the ids of those whose votes count, by the latest configuration
// in this peer's log.
func (n *Node) voters() []string {
	var ids []string
	for _, s := range n.raft.GetConfiguration().Configuration().Servers {
		if s.Suffrage == raft.Voter {
			ids = append(ids, string(s.ID))
		}
	}
	return ids
}

// majority asks all voters at once and returns nil as soon as a majority of them
// has said yes. It waits no longer than until that is decided. ErrNoMajority: it
// is not so.
func (n *Node) majority(ctx context.Context, ask func(ctx context.Context, id string) bool) error {
	voters := n.voters()
	needed := len(voters)/2 + 1
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers := make(chan bool, len(voters))
	for _, id := range voters {
		go func() { answers <- ask(ctx, id) }()
	}
	yes := 0
	for asked := range voters {
		if yes+len(voters)-asked < needed {
			break
		}
		select {
		case a := <-answers:
			if a {
				yes++
			}
		case <-ctx.Done():
			return fmt.Errorf("%w: %d of %d answered: %w", ErrNoMajority, yes, len(voters), context.Cause(ctx))
		}
		if yes == needed {
			return nil
		}
	}
	return fmt.Errorf("%w: %d of %d do", ErrNoMajority, yes, len(voters))
}

// askYes reports whether a peer answers yes.
func (n *Node) askYes(ctx context.Context, id string, kind byte, request []byte) bool {
	reply, err := n.config.RPC.Call(ctx, id, kind, request)
	return err == nil && len(reply) == 1 && reply[0] == 1
}

// yesOrNo is the reply that askYes reads.
func yesOrNo(yes bool) []byte { //nolint:revive // the answer itself, not a mode
	if yes {
		return []byte{1}
	}
	return []byte{0}
}
