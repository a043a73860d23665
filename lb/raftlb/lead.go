package raftlb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"srsx/fsm"
	"srsx/lb"
	"srsx/lb/decide"
	"srsx/lb/liveness"
)

// leadership is what a peer has while it leads.
type leadership struct {
	decider *decide.Decider
	node    Node
	leases  *leases
	rounds  singleflight.Group // of poll, by origin
	life    context.Context    //nolint:containedctx // ends with the leadership and with no question: rounds are shared
	stop    context.CancelFunc
	running sync.WaitGroup
}

const (
	duePace         = 250 * time.Millisecond
	dueBatch        = 1000 // commands
	questionTimeout = 2 * time.Second
	placeTries      = 3 // the origin that was chosen may go down or fill up before the command is applied
)

// errNotLeading answers a question that came to a peer that no longer leads.
var errNotLeading = errors.New("this peer does not lead")

func (b *Balancer) leads() *leadership {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leading
}

// followLeadership starts and ends to decide until ctx ends.
func (b *Balancer) followLeadership(ctx context.Context, node Node) {
	defer b.endLeading()
	for {
		select {
		case <-ctx.Done():
			return
		case leads := <-b.led:
			b.endLeading()
			if leads {
				b.startLeading(ctx, node)
			}
		}
	}
}

func (b *Balancer) startLeading(ctx context.Context, node Node) {
	ctx, stop := context.WithCancel(ctx)
	l := &leadership{node: node, leases: newLeases(b.config.LeaseTTL), life: ctx, stop: stop}
	l.decider = decide.New(b.currentPolicy(), l, liveness.Config{TTL: b.config.TTL, Probe: b.config.Probe, Poll: l.poll})
	node.View(func(s *fsm.State) { // what is applied from now on, the decider follows
		l.decider.Reset(s)
		l.leases.reset(s, time.Now())
		b.mu.Lock()
		b.leading = l
		b.mu.Unlock()
	})
	l.running.Go(func() { l.decider.Run(ctx) })
	l.running.Go(func() { l.keepTime(ctx) })
	b.replica.Wake()
}

func (b *Balancer) endLeading() {
	b.mu.Lock()
	l := b.leading
	b.leading = nil
	b.mu.Unlock()
	if l != nil {
		l.stop()
		l.running.Wait()
	}
}

// keepTime proposes what time ends, until ctx ends.
func (l *leadership) keepTime(ctx context.Context) {
	pace := time.NewTicker(duePace)
	defer pace.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-pace.C:
			var commands []fsm.Command
			l.node.View(func(s *fsm.State) {
				commands = append(s.Due(now, dueBatch), l.leases.due(s, now)...)
			})
			if len(commands) > 0 {
				_, _ = l.node.Propose(ctx, commands...) // the next turn finds again what was not agreed
			}
		}
	}
}

// ProposeUp implements liveness.Proposer.
func (l *leadership) ProposeUp(id lb.OriginID, inc lb.Incarnation, reason string) {
	l.proposeEdge(fsm.SetUp{ID: id, Incarnation: inc, Up: true, Reason: reason})
}

// ProposeDown implements liveness.Proposer.
func (l *leadership) ProposeDown(id lb.OriginID, inc lb.Incarnation, reason string) {
	l.proposeEdge(fsm.SetUp{ID: id, Incarnation: inc, Up: false, Reason: reason})
}

// proposeEdge need not succeed: the tracker finds the edge again at its next
// probe, or another leader does.
func (l *leadership) proposeEdge(edge fsm.SetUp) {
	ctx, cancel := context.WithTimeout(context.Background(), questionTimeout)
	defer cancel()
	_, _ = l.node.Propose(ctx, edge)
}

// Answer answers a question that a peer asked the leader, if this one leads.
func (b *Balancer) Answer(ctx context.Context, _ string, question []byte) ([]byte, error) {
	l := b.leads()
	if l == nil {
		return nil, errNotLeading
	}
	if len(question) == 0 {
		return nil, errQuestion
	}
	kind, body := question[0], question[1:]
	if kind == questionPlace {
		return l.answerPlace(ctx, body)
	}
	answer, err := b.answerOther(ctx, l, kind, body)
	if err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}

func (b *Balancer) answerOther(ctx context.Context, l *leadership, kind byte, body []byte) (any, error) {
	switch kind {
	case questionExplain:
		var w lb.Want
		if err := json.Unmarshal(body, &w); err != nil {
			return nil, fmt.Errorf("%w: %w", errQuestion, err)
		}
		var e lb.Explanation
		l.node.View(func(s *fsm.State) { e = l.decider.Explain(s, w) })
		return e, nil
	case questionRegister:
		var r lb.Registration
		if err := json.Unmarshal(body, &r); err != nil {
			return nil, fmt.Errorf("%w: %w", errQuestion, err)
		}
		refused := refusalOf(b.answerRegister(ctx, l, r))
		return registered{Refusal: refused, Index: l.index()}, nil
	case questionNews:
		var n news
		if err := json.Unmarshal(body, &n); err != nil {
			return nil, fmt.Errorf("%w: %w", errQuestion, err)
		}
		return l.answerNews(n), nil
	default:
		return nil, fmt.Errorf("%w: kind %d", errQuestion, kind)
	}
}

// answerPlace chooses origins for the streams of one question and has all of
// them agreed at once.
func (l *leadership) answerPlace(ctx context.Context, body []byte) ([]byte, error) {
	holder, wants, err := readWants(body)
	if err != nil {
		return nil, err
	}
	placements := make([]placement, len(wants))
	open := make([]int, len(wants)) // those without an answer yet
	for i := range open {
		open[i] = i
	}
	for range placeTries {
		if open, err = l.placeSome(ctx, holder, wants, placements, open); err != nil {
			return nil, err
		}
		if len(open) == 0 {
			break
		}
	}
	return appendPlacements(nil, l.index(), placements), nil
}

// placeSome places the open wants and returns those to try again.
func (l *leadership) placeSome(ctx context.Context, holder fsm.Holder, wants []lb.Want, placements []placement, open []int) ([]int, error) {
	var commands []fsm.Command
	var asked []int
	l.node.View(func(s *fsm.State) {
		for _, i := range open {
			place, err := l.decider.Place(s, wants[i], holder)
			if placements[i].err = lb.ErrorOf(err); err == nil {
				commands, asked = append(commands, place), append(asked, i)
			}
		}
	})
	if len(commands) == 0 {
		return nil, nil
	}
	results, err := l.node.Propose(ctx, commands...)
	for _, c := range commands {
		if place, ok := c.(fsm.Place); ok {
			l.decider.Settled(place)
		}
	}
	if err != nil {
		return nil, err
	}
	var again []int
	for n, result := range results {
		i := asked[n]
		placements[i] = placement{
			generation: result.Placement.Generation, created: result.Created, err: lb.ErrorOf(result.Err),
		}
		if errors.Is(placements[i].err, lb.ErrConflict) || errors.Is(placements[i].err, lb.ErrLimit) {
			again = append(again, i)
		}
	}
	return again, nil
}
