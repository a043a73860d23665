package cluster

import "context"

// Majority puts a question of this program's to all voters at once, this peer
// among them if it votes, and returns nil as soon as a majority of them has said
// yes by its Config.Witness. It is of no use to ask for longer than a voter takes:
// ctx should have a deadline. ErrNoMajority: too many said no, or nothing.
func (n *Node) Majority(ctx context.Context, question []byte) error {
	return n.majority(ctx, func(ctx context.Context, id string) bool {
		if id == n.config.ID {
			return n.witness(ctx, id, question)
		}
		return n.askYes(ctx, id, kindWitness, question)
	})
}

// witness answers whatever consensus is at: fenced off or halted, a peer sees as
// well as any.
func (n *Node) witness(ctx context.Context, from string, question []byte) bool {
	return n.config.Witness != nil && n.config.Witness(ctx, from, question)
}

func (n *Node) answerWitness(ctx context.Context, from string, question []byte) ([]byte, error) {
	return yesOrNo(n.witness(ctx, from, question)), nil
}
