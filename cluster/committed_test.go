package cluster_test

import (
	"fmt"
	"testing"

	"srsx/cluster"
	"srsx/cluster/clustertest"
)

func TestMembersAreToldWhatIsCommittedWhenNothingFollows(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{
		Voters: 3, Replicas: 1, Tune: func(_ *clustertest.Peer, c *cluster.Config) { cluster.WithoutEmptyMessages(c) },
	})
	propose(t, c.Leader(), putOrigin())
	for i, proposer := range c.Peers() {
		name := fmt.Sprintf("alone-%d", i)
		propose(t, proposer, place(name, proposer.ID))
		for _, p := range c.Peers() {
			c.Eventually(p.ID+" knows what was placed at "+proposer.ID, func() bool { return known(p, name) == 1 })
		}
	}
}

func TestMemberThatDoesNotAnswerHoldsUpNoOther(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{
		Voters: 3, Tune: func(_ *clustertest.Peer, c *cluster.Config) { cluster.WithoutEmptyMessages(c) },
	})
	propose(t, c.Leader(), putOrigin())
	silent, other := c.Followers()[0], c.Followers()[1]
	c.Cut(silent, c.Leader())
	for i := range 50 {
		name := fmt.Sprintf("silence-%d", i)
		propose(t, c.Leader(), place(name, other.ID))
		c.Eventually("the other follower knows", func() bool { return known(other, name) == 1 })
	}
	c.Heal()
	c.WaitLeader()
	propose(t, c.Leader(), place("healed", other.ID))
	c.Eventually("the silent one knows", func() bool { return known(silent, "healed", "silence-49") == 2 })
}
