package raftlb_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/lbtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContractAtTheLeader(t *testing.T) {
	lbtest.Run(t, func(t *testing.T) lb.Balancer { t.Helper(); return peers(t, 1)[0].Balancer })
}

func TestContractAtAFollower(t *testing.T) {
	lbtest.Run(t, func(t *testing.T) lb.Balancer { t.Helper(); return peers(t, 3)[1].Balancer })
}

const patience = 20 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// three runs three peers with two origins.
func three(t *testing.T) []*peer {
	t.Helper()
	all := peers(t, 3)
	for _, id := range []string{"x", "y"} {
		o, _ := lbtest.Origin(t, id)
		if err := all[1].Register(t.Context(), lb.Registration{Origin: o}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func want(name string) lb.Want {
	return lb.Want{Stream: lb.Stream{VHost: lb.DefaultVHost, App: "live", Name: name}, Protocol: lb.RTMP}
}

func acquire(t *testing.T, p *peer, w lb.Want) lb.Lease {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	l, err := p.Acquire(ctx, w)
	if err != nil {
		t.Fatalf("Acquire(%s): %v", w.Stream, err)
	}
	return l
}

// holders are those that a peer believes a stream to have.
func holders(p *peer, s lb.Stream) []string {
	found, _, _ := p.Lookup(s)
	var names []string
	for _, h := range found.Holders {
		names = append(names, h.Peer)
	}
	slices.Sort(names)
	return names
}

func TestPeersThatRaceAgree(t *testing.T) {
	all := three(t)
	const streams = 500
	got := make([][]lb.OriginID, len(all))
	var racing sync.WaitGroup
	for i, p := range all {
		got[i] = make([]lb.OriginID, streams)
		for n := range streams {
			racing.Go(func() {
				l, err := p.Acquire(t.Context(), want(fmt.Sprintf("s%d", n)))
				if err != nil {
					t.Errorf("Acquire: %v", err)
				}
				got[i][n] = l.Origin.ID
			})
		}
	}
	racing.Wait()
	if !slices.Equal(got[0], got[1]) || !slices.Equal(got[0], got[2]) {
		t.Error("peers got different origins for a stream")
	}
	for _, o := range all[2].Origins() {
		// What was just agreed counts twice for a moment.
		const slack = streams / 20
		if o.Streams < streams/2-slack || o.Streams > streams/2+slack {
			t.Errorf("%s has %d streams; want about %d: a batch must not herd", o.ID, o.Streams, streams/2)
		}
	}
}

func TestCutOffPeerServesWhatItKnowsAndRefusesWhatIsNew(t *testing.T) {
	all := three(t)
	first := acquire(t, all[0], want("known"))
	all[2].leave()
	if l := acquire(t, all[2], want("known")); l.Origin.ID != first.Origin.ID {
		t.Errorf("origin of a known stream = %s; want %s", l.Origin.ID, first.Origin.ID)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := all[2].Acquire(ctx, want("new")); !errors.Is(err, lb.ErrUndecided) {
		t.Errorf("Acquire of a new stream = %v; want ErrUndecided", err)
	}
	if err := all[2].Balancer.Decisive(); !errors.Is(err, lb.ErrUndecided) {
		t.Errorf("Decisive = %v; want ErrUndecided", err)
	}
	all[2].comeBack()
	eventually(t, "the cluster knows of the hold", func() bool {
		return slices.Equal(holders(all[0], first.Placement.Stream), []string{"a", "c"})
	})
}

func TestHoldThatEndedWhileCutOffIsReleased(t *testing.T) {
	all := three(t)
	acquire(t, all[0], want("s"))
	l := acquire(t, all[2], want("s"))
	eventually(t, "both hold", func() bool { return len(holders(all[0], l.Placement.Stream)) == 2 })
	all[2].leave()
	all[2].Release(l)
	all[2].comeBack()
	eventually(t, "one holds", func() bool { return slices.Equal(holders(all[0], l.Placement.Stream), []string{"a"}) })
}

func TestStreamOfALostPeerIsOrphanedAndClaimedAgain(t *testing.T) {
	all := three(t)
	l := acquire(t, all[2], want("s"))
	all[2].leave()
	eventually(t, "orphaned", func() bool {
		p, _, ok := all[0].Lookup(l.Placement.Stream)
		return ok && p.Orphaned && len(p.Holders) == 0 && p.Origin == l.Placement.Origin
	})
	all[2].comeBack()
	eventually(t, "held again", func() bool {
		p, _, _ := all[0].Lookup(l.Placement.Stream)
		return !p.Orphaned && len(p.Holders) == 1 && p.Generation == l.Placement.Generation
	})
}

func TestPlacementThatWasLostIsAssertedAgain(t *testing.T) {
	all := three(t)
	l := acquire(t, all[2], want("s"))
	if _, err := all[0].Propose(t.Context(), fsm.Release{
		Stream: l.Placement.Stream, Generation: l.Placement.Generation, Holder: fsm.Holder{Peer: "c", Epoch: 1},
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "held again", func() bool { return slices.Equal(holders(all[0], l.Placement.Stream), []string{"c"}) })
	all[2].Release(l)
	eventually(t, "released", func() bool { return len(holders(all[0], l.Placement.Stream)) == 0 })
}

func TestAbandonedQuestionLeavesNoHold(t *testing.T) {
	all := three(t)
	w := want("s")
	for range 50 { // some are given up before, some after the leader has placed them
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			if l, err := all[1].Acquire(ctx, w); err == nil {
				all[1].Release(l)
			}
		}()
		cancel()
		<-gone
	}
	eventually(t, "nobody holds it", func() bool { return len(holders(all[0], w.Stream)) == 0 })
}

func TestHeartbeatsShowTheSameAtEveryPeer(t *testing.T) {
	all := three(t)
	o, _ := all[1].Origin("x")
	r := lb.Registration{Origin: o.Origin, Load: &lb.Load{CPUPercent: 70}}
	if err := all[1].Register(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	for i, p := range all {
		eventually(t, fmt.Sprintf("peer %d knows the load", i), func() bool {
			o, _ := p.Origin("x")
			return o.Load != nil && o.Load.CPUPercent == 70 && !o.LastSeen.IsZero()
		})
	}
}
