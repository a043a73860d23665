package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Leadership says who leads, as far as this peer knows.
type Leadership struct {
	Leader string // id; "": nobody known
	Term   uint64 // in which that was learnt
	// Established means that this peer leads, and has applied all that was
	// agreed before its term.
	Established bool
}

// leaders tells who leads, and when that changes.
type leaders struct {
	raft *raft.Raft

	mu       sync.Mutex
	resigned bool // this peer is fenced off: whoever leads is out of reach
	current  Leadership
	changed  chan struct{} // closed and replaced at each change
	since    time.Time     // of the last time that nobody led; zero: somebody leads
}

func newLeaders(r *raft.Raft) *leaders {
	return &leaders{raft: r, changed: make(chan struct{}), since: time.Now()}
}

// now returns who leads and a channel that is closed when that changes.
func (l *leaders) now() (Leadership, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current, l.changed
}

// leaderless returns since when nobody leads; zero: somebody does.
func (l *leaders) leaderless() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.since
}

// look brings current up to what raft knows. established is the term in which
// this peer is known to lead, 0 for none.
func (l *leaders) look(established uint64) Leadership {
	_, id := l.raft.LeaderWithID()
	next := Leadership{Leader: string(id), Term: l.raft.CurrentTerm()}
	next.Established = established != 0 && established == next.Term && l.raft.State() == raft.Leader
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.resigned {
		next = Leadership{Term: next.Term}
	}
	if next == l.current {
		return next
	}
	switch {
	case next.Leader != "":
		l.since = time.Time{}
	case l.since.IsZero():
		l.since = time.Now()
	}
	l.current = next
	close(l.changed)
	l.changed = make(chan struct{})
	return next
}

// resign makes nobody lead, as seen from here, until it is called with false.
func (l *leaders) resign(yes bool) {
	l.mu.Lock()
	l.resigned = yes
	l.mu.Unlock()
	l.look(0)
}

// await waits until ok accepts who leads, or ctx is done.
func (l *leaders) await(ctx context.Context, ok func(Leadership) bool) (Leadership, <-chan struct{}, error) {
	for {
		current, changed := l.now()
		if ok(current) {
			return current, changed, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return current, changed, ErrNoLeader
		}
	}
}

func somebody(l Leadership) bool { return l.Leader != "" }

// watchLeadership keeps n.leaders up to date and tells Config.OnLeadership. Raft
// blocks until its notices are taken: nothing here waits, and it goes on until
// raft has been told to stop.
func (n *Node) watchLeadership(ctx context.Context, led <-chan bool) {
	poke := make(chan raft.Observation, 1)
	observer := raft.NewObserver(poke, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.RaftState:
			return true
		default:
			return false
		}
	})
	n.raft.RegisterObserver(observer)
	defer n.raft.DeregisterObserver(observer)
	tell := make(chan Leadership, 1)
	n.running.Go(func() { n.tellLeadership(ctx, tell) })
	terms := make(chan uint64, 1)
	established := uint64(0)
	for {
		replaceIn(tell, n.leaders.look(established))
		select {
		case leads := <-led:
			established = 0
			if leads {
				n.watching.Go(func() { n.establish(ctx, terms) })
			}
		case established = <-terms:
		case <-poke:
		case <-n.down:
			return
		}
	}
}

// replaceIn leaves only the newest value in a channel of size 1.
func replaceIn[T any](c chan T, v T) {
	select {
	case <-c:
	default:
	}
	c <- v
}

func (n *Node) tellLeadership(ctx context.Context, tell <-chan Leadership) {
	var last Leadership
	for {
		select {
		case l := <-tell:
			if l == last {
				continue
			}
			last = l
			n.log.InfoContext(ctx, "leadership changed", "leader", l.Leader, "term", l.Term, "established", l.Established)
			if n.config.OnLeadership != nil {
				n.config.OnLeadership(l)
			}
		case <-ctx.Done():
			return
		}
	}
}

// establish waits until an entry of this peer's term is committed and all before
// it are applied here: until then its state may be that of a former leader's.
func (n *Node) establish(ctx context.Context, terms chan<- uint64) {
	for n.raft.State() == raft.Leader {
		term := n.raft.CurrentTerm()
		if err := n.flights.answered(ctx, func() raft.Future { return n.raft.Barrier(n.config.Timeout) }); err == nil {
			select {
			case terms <- term:
			case <-ctx.Done():
			}
			return
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return
		}
	}
}

// until returns a context that ends with ctx and when over is closed, for why.
func until(ctx context.Context, over <-chan struct{}, why error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-over:
			cancel(why)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(context.Canceled) }
}

var errLeaderChanged = errors.New("leader changed meanwhile")

// tryLeaders calls do with the leader until it returns nil or an error that is
// not worth another try, or Config.Timeout has passed and do is not under way. The
// context of do also ends when the leader changes.
func (n *Node) tryLeaders(ctx context.Context, do func(ctx context.Context, leader string) error, again func(error) bool) error {
	patience, cancel := context.WithTimeout(ctx, n.config.Timeout)
	defer cancel()
	for {
		leader, changed, err := n.leaders.await(patience, somebody)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNoLeader, context.Cause(patience))
		}
		call, done := until(ctx, changed, errLeaderChanged)
		err = do(call, leader.Leader)
		done()
		if err == nil || !again(err) {
			return err
		}
		select {
		case <-changed:
		case <-time.After(retryPause):
		case <-patience.Done():
			return fmt.Errorf("%w: %w", ErrNoLeader, err)
		}
		if refused := n.refused(); refused != nil {
			return refused
		}
	}
}

// awaitEstablished waits until this peer leads with all applied that was agreed
// before, and returns its term. ErrNotLeader: somebody else leads.
func (n *Node) awaitEstablished(ctx context.Context) (term uint64, err error) {
	l, _, err := n.leaders.await(ctx, func(l Leadership) bool { return l.Established || l.Leader != n.config.ID })
	switch {
	case err != nil:
		return 0, err
	case !l.Established:
		return 0, ErrNotLeader
	default:
		return l.Term, nil
	}
}

// retryPause is how long to wait before something is tried again that raft has
// just refused and says nothing more about.
const retryPause = 10 * time.Millisecond
