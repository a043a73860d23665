package peer

import (
	"context"

	"srsx/cluster/gossip"
	"srsx/cluster/port"
)

// AskMedia puts a question to the media servers of all other peers and returns
// the first answer that is not empty; nil when there is none before ctx ends.
func (p *Peer) AskMedia(ctx context.Context, question []byte) []byte {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	members := p.gossip.Members()
	answers := make(chan []byte, len(members))
	asked := 0
	for _, m := range members {
		if m.ID == p.id || m.State != gossip.Alive {
			continue
		}
		asked++
		go func() {
			answer, err := p.calls.Call(ctx, port.Target{ID: m.ID}, kindMedia, question)
			if err != nil {
				answer = nil // of another version, or out of reach
			}
			answers <- answer
		}()
	}
	for range asked {
		if answer := <-answers; len(answer) > 0 {
			return answer
		}
	}
	return nil
}

func (p *Peer) answerMedia(_ context.Context, _ port.Peer, question []byte) ([]byte, error) {
	return p.config.Media(question), nil
}
