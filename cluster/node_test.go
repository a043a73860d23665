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
	"srsx/fsm"
)

const origin = fsm.OriginID("origin-1")

// heartbeat is how long a follower does without the leader.
const heartbeat = 500 * time.Millisecond

func incarnation() fsm.Incarnation {
	return fsm.Incarnation{Server: string(origin), Service: "service", PID: "1"}
}

func putOrigin() fsm.Command {
	return fsm.PutOrigin{Origin: fsm.Origin{ID: origin, Incarnation: incarnation(), IP: "10.0.0.1", Weight: 100}}
}

func stream(name string) fsm.Stream {
	return fsm.Stream{VHost: fsm.DefaultVHost, App: "live", Name: name}
}

func place(name, peer string) fsm.Command {
	return fsm.Place{
		Stream: stream(name), Origin: origin, Incarnation: incarnation(), Publish: true,
		Holder: fsm.Holder{Peer: peer, Epoch: 1},
	}
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), clustertest.Patience)
	t.Cleanup(cancel)
	return ctx
}

func propose(t *testing.T, p *clustertest.Peer, commands ...fsm.Command) []fsm.Result {
	t.Helper()
	results, err := p.Node.Propose(soon(t), commands...)
	if err != nil {
		t.Fatalf("Propose at %s: %v", p.ID, err)
	}
	for i, r := range results {
		if r.Err != nil {
			t.Fatalf("Propose at %s: command %d: %v", p.ID, i, r.Err)
		}
	}
	return results
}

// placeMany places streams and returns their names.
func placeMany(t *testing.T, p *clustertest.Peer, prefix string, count int) []string {
	t.Helper()
	names := make([]string, count)
	commands := make([]fsm.Command, count)
	for i := range count {
		names[i] = fmt.Sprintf("%s-%d", prefix, i)
		commands[i] = place(names[i], p.ID)
	}
	propose(t, p, commands...)
	return names
}

// known counts how many of the streams a peer knows.
func known(p *clustertest.Peer, names ...string) int {
	count := 0
	p.Node.View(func(s *fsm.State) {
		for _, name := range names {
			if _, ok := s.Placement(stream(name)); ok {
				count++
			}
		}
	})
	return count
}

// load proposes new placements at one peer until it is stopped.
type load struct {
	stop    func()
	running sync.WaitGroup

	mu    sync.Mutex
	acked []string       // names of placements that were acknowledged
	seen  map[string]int // errors by kind
	gaps  []time.Duration
}

func startLoad(t *testing.T, p *clustertest.Peer, callers int) *load {
	t.Helper()
	l := &load{seen: make(map[string]int)}
	ctx, stop := context.WithCancel(t.Context())
	l.stop = stop
	node, id := p.Node, p.ID
	for caller := range callers {
		l.running.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if !l.placeOne(ctx, node, id, fmt.Sprintf("%s-%d-%d", id, caller, i)) {
					return
				}
			}
		})
	}
	t.Cleanup(l.end)
	return l
}

// placeOne reports whether the node is open.
func (l *load) placeOne(ctx context.Context, node *cluster.Node, id, name string) bool {
	began := time.Now()
	results, err := node.Propose(ctx, place(name, id))
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil && results[0].Err == nil && results[0].Placement.Stream == stream(name):
		l.acked = append(l.acked, name)
		l.gaps = append(l.gaps, time.Since(began))
	case errors.Is(err, cluster.ErrUnknownOutcome):
		l.seen["unknown"]++
	case errors.Is(err, cluster.ErrClosed), errors.Is(err, cluster.ErrNoLeader), ctx.Err() != nil:
		l.seen["refused"]++
	default:
		l.seen[fmt.Sprintf("%+v, %v", results, err)]++
	}
	return !errors.Is(err, cluster.ErrClosed)
}

func (l *load) end() {
	l.stop()
	l.running.Wait()
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// requireOnly fails the test when the load met other errors than those.
func (l *load) requireOnly(t *testing.T, allowed ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range allowed {
		delete(l.seen, a)
	}
	if len(l.seen) > 0 {
		t.Errorf("load met %v", l.seen)
	}
}

func contextFor(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	t.Helper()
	return context.WithTimeout(t.Context(), d)
}
