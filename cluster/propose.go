package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"srsx/fsm"
)

// Propose replicates commands and returns what each did, once a majority has
// stored them and this peer has applied them. They stay together and in order
// unless they exceed an entry. A follower sends them to the leader; as long as
// there is none, they wait.
//
// ErrNoLeader: nothing was done. ErrUnknownOutcome: some, all or none of the
// commands may have been applied, or may yet be; all commands are safe to
// repeat. ErrMixedVersions, ErrFenced, ErrHalted, ErrClosed: nothing was done.
func (n *Node) Propose(ctx context.Context, commands ...fsm.Command) ([]fsm.Result, error) {
	if len(commands) == 0 {
		return nil, nil
	}
	if err := n.mayPropose(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.config.Timeout)
	defer cancel()
	proposals := encode(commands, n.config.EntrySize)
	n.queue.put(proposals...)
	var results []fsm.Result
	for i, p := range proposals {
		v := p.await(ctx)
		if v.err == nil {
			results = append(results, v.results...)
			continue
		}
		if none := abandon(proposals[i+1:]); i > 0 || !none {
			return nil, fmt.Errorf("%w: after %d of %d commands: %w", ErrUnknownOutcome, len(results), len(commands), v.err)
		}
		return nil, v.err
	}
	return results, nil
}

// abandon withdraws proposals and reports whether none of them has left.
func abandon(proposals []*proposal) bool {
	none := true
	for _, p := range proposals {
		none = p.stage.CompareAndSwap(waiting, withdrawn) && none
	}
	return none
}

// mayPropose returns why a proposal must not enter the log, or nil.
func (n *Node) mayPropose() error {
	if err := n.refused(); err != nil {
		return err
	}
	if n.config.Understood == nil {
		return nil
	}
	if v := n.config.Understood(); v < fsm.BatchVersion {
		return fmt.Errorf("%w: batches of version %d, some read only %d", ErrMixedVersions, fsm.BatchVersion, v)
	}
	return nil
}

// flightEntries is how many entries of a batch are handed to raft at once. They
// are stored by one write, which is what takes the time.
const flightEntries = 4

// dispatch sends on what waits: a batch is what came while the batches before it
// were under way. So a lone caller does not wait for company, and many callers
// share their entries, with no timer that would be wrong for one of them.
func (n *Node) dispatch(ctx context.Context) {
	slots := make(chan struct{}, n.config.Depth)
	for {
		select {
		case <-n.queue.wake:
		case <-ctx.Done():
			return
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		leader, changed, err := n.leaders.await(ctx, somebody)
		if err != nil {
			return
		}
		batch := n.queue.take(flightEntries * n.config.EntrySize)
		if len(batch) == 0 {
			<-slots
			continue
		}
		landed := func() { <-slots }
		if leader.Leader == n.config.ID {
			n.append(batch, landed)
			continue
		}
		n.running.Go(func() { n.forward(ctx, bounce(batch), leader.Leader, changed, landed) })
	}
}

// append hands a batch to raft, in order, and returns; landed is called when it
// has answered.
func (n *Node) append(batch []*proposal, landed func()) {
	type flight struct {
		proposals []*proposal
		future    raft.ApplyFuture
	}
	at := time.Now()
	var flights []flight
	for rest := batch; len(rest) > 0; {
		var entry []*proposal
		entry, rest = cut(rest, n.config.EntrySize)
		flights = append(flights, flight{entry, n.raft.Apply(encodeEntry(at, entry), n.config.Timeout)})
	}
	n.flights.watch(func() {
		defer landed()
		var refused []*proposal
		for _, f := range flights {
			if err := f.future.Error(); notTaken(err) {
				refused = append(refused, f.proposals...)
			} else {
				deliver(f.proposals, f.future, err)
			}
		}
		if len(refused) > 0 {
			n.retry(refused)
		}
	})
}

// cut splits off the proposals that fit into one entry.
func cut(proposals []*proposal, size int) (entry, rest []*proposal) {
	for i, p := range proposals {
		if size -= len(p.encoded); size < 0 && i > 0 {
			return proposals[:i], proposals[i:]
		}
	}
	return proposals, nil
}

func encodeEntry(at time.Time, proposals []*proposal) []byte {
	commands, size := 0, 0
	for _, p := range proposals {
		commands += p.count
		size += len(p.encoded)
	}
	const head = 16 // bytes, at most
	b := fsm.AppendBatchHead(make([]byte, 0, head+size), at, commands)
	for _, p := range proposals {
		b = append(b, p.encoded...)
	}
	return b
}

// notTaken reports whether an error of raft means that an entry has not entered
// the log and will not.
func notTaken(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) ||
		errors.Is(err, raft.ErrEnqueueTimeout)
}

// deliver gives each proposal of an entry its share of what the entry did.
func deliver(proposals []*proposal, future raft.ApplyFuture, err error) {
	var out outcome
	if err == nil {
		out, _ = future.Response().(outcome)
		err = out.err
	}
	if err != nil {
		settle(proposals, verdict{err: fmt.Errorf("%w: %w", ErrUnknownOutcome, err)})
		return
	}
	at := place{index: future.Index(), term: out.term}
	for _, p := range proposals {
		p.done <- verdict{results: out.results[at.offset : at.offset+p.count : at.offset+p.count], place: at}
		at.offset += p.count
	}
}

// retry puts proposals back that no leader took. Those of other peers go back to
// where they came from, which may know better who leads.
func (n *Node) retry(refused []*proposal) {
	mine := bounce(refused)
	// Raft may not have told yet that it does not lead any more.
	select {
	case <-time.After(retryPause):
	case <-n.closing:
	}
	n.queue.putBack(mine)
}

// bounce gives the proposals of other peers back to them and returns the rest.
func bounce(proposals []*proposal) []*proposal {
	return slices.DeleteFunc(proposals, func(p *proposal) bool {
		if p.relayed {
			p.done <- verdict{err: ErrNotLeader}
		}
		return p.relayed
	})
}
