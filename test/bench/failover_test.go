package bench

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"srsx/test/peertest"
)

const (
	kills = 30
	stops = 10
	halts = 5
	// rest is between a peer's return and the next harm.
	rest = time.Second
)

// failover measures how long new streams wait when the leader ends.
func failover(b *testing.B, r *report) {
	f := startFleet(b)
	var killed, stopped, halted []time.Duration
	for range kills {
		killed = append(killed, f.lose(b, syscall.SIGKILL))
	}
	for range stops {
		stopped = append(stopped, f.lose(b, syscall.SIGTERM))
	}
	for range halts {
		time.Sleep(rest)
		halted = append(halted, f.halt(b))
	}
	b.Logf("kill -9: %v", killed)
	b.Logf("SIGTERM: %v", stopped)
	b.Logf("SIGSTOP: %v", halted)
	r.add(within(fmt.Sprintf("leader killed (-9), new stream at a follower, median of %d", kills), median(killed), 50*time.Millisecond))
	r.add(within(fmt.Sprintf("leader killed (-9), new stream at a follower, longest of %d", kills), slices.Max(killed), 150*time.Millisecond))
	r.add(within(fmt.Sprintf("leader stops (SIGTERM), longest of %d", stops), slices.Max(stopped), 50*time.Millisecond))
	r.add(within(fmt.Sprintf("leader's host stands still (SIGSTOP), longest of %d", halts), slices.Max(halted), 1500*time.Millisecond))
}

// lose ends the leader by a signal and starts it again.
func (f *fleet) lose(b *testing.B, s syscall.Signal) time.Duration {
	b.Helper()
	time.Sleep(rest)
	var lost *peertest.Peer
	longest := f.outage(b, func(leader *peertest.Peer) {
		lost = leader
		leader.Signal(b, s)
	}, 500*time.Millisecond)
	lost.Kill()
	f.again(b, lost)
	return longest
}

// halt stops the leader's process for a while.
func (f *fleet) halt(b *testing.B) time.Duration {
	b.Helper()
	var halted *peertest.Peer
	longest := f.outage(b, func(leader *peertest.Peer) {
		halted = leader
		leader.Signal(b, syscall.SIGSTOP)
	}, 2500*time.Millisecond)
	halted.Signal(b, syscall.SIGCONT)
	f.settle(b)
	return longest
}
