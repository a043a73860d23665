package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"srsx/cluster"
	"srsx/cluster/clustertest"
)

func TestBarrierShowsWhatWasAgreedBefore(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Replicas: 1})
	propose(t, c.Leader(), putOrigin())
	var running sync.WaitGroup
	for i, writer := range c.Peers() {
		reader := c.Peers()[(i+1)%len(c.Peers())]
		running.Go(func() {
			for n := range 30 {
				name := fmt.Sprintf("%s-%d", writer.ID, n)
				if _, err := writer.Node.Propose(t.Context(), place(name, writer.ID)); err != nil {
					t.Errorf("Propose at %s: %v", writer.ID, err)
					return
				}
				if err := reader.Node.Barrier(t.Context()); err != nil {
					t.Errorf("Barrier at %s: %v", reader.ID, err)
					return
				}
				if known(reader, name) != 1 {
					t.Errorf("%s does not know %s after a barrier", reader.ID, name)
				}
			}
		})
	}
	running.Wait()
}

// depose makes the other voters elect a leader at once, while the old one still
// believes that it leads: its lease has not run out.
func depose(c *clustertest.Cluster, side ...*clustertest.Peer) (old, successor *clustertest.Peer) {
	old = c.WaitLeader()
	isolated := append([]*clustertest.Peer{old}, side...)
	var voters []*clustertest.Peer
	for _, p := range c.Followers() {
		for _, s := range p.Node.Servers() {
			if s.ID == p.ID && s.Voter {
				voters = append(voters, p)
			}
		}
	}
	c.Partition(isolated...)
	for _, p := range voters {
		c.Reset(p, old)
	}
	c.Eventually("elect another", func() bool {
		successor = c.Leader()
		return successor != old && successor != nil
	})
	return old, successor
}

func TestDeposedLeaderProvesNothing(t *testing.T) {
	for replicas := range 3 {
		t.Run(fmt.Sprintf("with %d replicas on its side", replicas), func(t *testing.T) {
			c := clustertest.Start(t, clustertest.Config{
				Voters: 3, Replicas: replicas,
				// The lease of the old leader is the longer the more it is stretched.
				Tune: func(_ *clustertest.Peer, c *cluster.Config) { c.Multiplier = 10 },
			})
			propose(t, c.Leader(), putOrigin())
			c.RequireSame()
			var side []*clustertest.Peer
			for i := range replicas {
				side = append(side, c.Peer(3+i))
			}
			old, successor := depose(c, side...)
			propose(t, successor, place("new", successor.ID))
			// Whether or not the old leader has noticed by now, it proves nothing.
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			for _, p := range append(side, old) {
				if err := p.Node.Barrier(ctx); err == nil && known(p, "new") == 0 {
					t.Errorf("Barrier at %s succeeds, with a state that is not the latest", p.ID)
				}
			}
			c.Heal()
			c.WaitLeader()
			c.RequireSame()
		})
	}
}

func TestVotersOfALaterTermRefuseToConfirm(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: longTimeouts})
	propose(t, c.Leader(), putOrigin())
	c.RequireSame()
	old, followers := c.Leader(), c.Followers()
	c.Mute(old)
	for _, p := range followers {
		c.Reset(p, old)
	}
	var successor *clustertest.Peer
	c.Eventually("elect another", func() bool {
		successor = c.Leader()
		return successor != nil && successor != old
	})
	propose(t, successor, place("new", successor.ID))
	// The voters answer the old leader, whose lease has not run out.
	ctx, cancel := contextFor(t, 200*time.Millisecond)
	defer cancel()
	if err := old.Node.Barrier(ctx); err == nil && known(old, "new") == 0 {
		t.Error("Barrier at a deposed leader succeeds, with a state that is not the latest")
	}
	c.Heal()
	c.WaitLeader()
	c.RequireSame()
}

func TestAskReachesTheLeaderWithItsFreshState(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Replicas: 1, Tune: func(p *clustertest.Peer, c *cluster.Config) {
		c.Answer = func(_ context.Context, from string, question []byte) ([]byte, error) {
			if string(question) == "bad" {
				return nil, errors.New("bad question")
			}
			return fmt.Appendf(nil, "%s to %s: %d", p.ID, from, known(p, string(question))), nil
		}
	}})
	propose(t, c.Leader(), putOrigin())
	for range 2 {
		leader := c.WaitLeader()
		for _, p := range c.Peers() {
			name := "asked-by-" + p.ID
			propose(t, p, place(name, p.ID))
			answer, err := p.Node.Ask(soon(t), []byte(name))
			if want := leader.ID + " to " + p.ID + ": 1"; err != nil || string(answer) != want {
				t.Errorf("Ask at %s = %q, %v; want %q", p.ID, answer, err, want)
			}
			if _, err := p.Node.Ask(soon(t), []byte("bad")); err == nil || err.Error() != "bad question" {
				t.Errorf("Ask at %s = %v; want the answer's own error", p.ID, err)
			}
		}
		if err := leader.Node.TransferLeadership(soon(t), ""); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAskWaitsForALeader(t *testing.T) {
	var mu sync.Mutex
	times := make(map[string]int)
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: func(_ *clustertest.Peer, c *cluster.Config) {
		c.Answer = func(_ context.Context, _ string, question []byte) ([]byte, error) {
			mu.Lock()
			defer mu.Unlock()
			times[string(question)]++
			return question, nil
		}
	}})
	asker, leader := c.Followers()[0], c.Leader()
	leader.Kill()
	if answer, err := asker.Node.Ask(soon(t), []byte("who leads")); err != nil || string(answer) != "who leads" {
		t.Errorf("Ask while nobody leads = %q, %v; want the answer of the next leader", answer, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if times["who leads"] != 1 {
		t.Errorf("the question was answered %d times; want once", times["who leads"])
	}
}

func TestLostLeaderLeavesAnUnknownOutcome(t *testing.T) {
	asked := make(chan struct{})
	c := clustertest.Start(t, clustertest.Config{Voters: 3, Tune: func(_ *clustertest.Peer, c *cluster.Config) {
		c.Answer = func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			close(asked)
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}})
	asker, leader := c.Followers()[0], c.Leader()
	result := make(chan error, 1)
	go func() {
		_, err := asker.Node.Ask(t.Context(), nil)
		result <- err
	}()
	<-asked
	leader.Kill()
	select {
	case err := <-result:
		if !errors.Is(err, cluster.ErrUnknownOutcome) {
			t.Errorf("Ask = %v; want ErrUnknownOutcome", err)
		}
	case <-time.After(clustertest.Patience):
		t.Error("Ask does not notice that the leader is gone")
	}
}

func TestAwaitEndsWithItsContextAndTheNode(t *testing.T) {
	c := clustertest.Start(t, clustertest.Config{Voters: 1})
	p := c.Leader()
	propose(t, p, putOrigin())
	applied := p.Node.Status().Applied
	if err := p.Node.Await(soon(t), applied); err != nil {
		t.Errorf("Await what is applied = %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("caller is gone")
	cancel(gone)
	if err := p.Node.Await(ctx, applied+100); !errors.Is(err, gone) {
		t.Errorf("Await = %v; want the cause of its context", err)
	}
	closed, node := make(chan error, 1), p.Node
	go func() { closed <- node.Await(context.WithoutCancel(ctx), applied+100) }()
	p.Stop()
	if err := <-closed; !errors.Is(err, cluster.ErrClosed) {
		t.Errorf("Await over a close = %v; want ErrClosed", err)
	}
}
