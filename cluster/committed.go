package cluster

import (
	"context"
	"encoding/binary"
	"sync"
	"time"
)

// tellTimeout is how long telling one member may take. Raft tells it later anyway.
const tellTimeout = time.Second

// tellCommitted tells the other members how far the log is committed, while this
// peer leads. Entries that follow tell so themselves: it is when nothing is under
// way any more that raft would leave the members waiting for its next empty
// message.
func (n *Node) tellCommitted(ctx context.Context) {
	told := place{}
	for {
		select {
		case <-n.flights.idle:
		case <-ctx.Done():
			return
		}
		at := n.machine.last()
		if l, _ := n.leaders.now(); l.Leader != n.config.ID || at == told {
			continue
		}
		told = at
		for _, s := range n.Servers() {
			if s.ID != n.config.ID && n.tellings.begin(s.ID) {
				n.running.Go(func() { n.tell(ctx, s.ID) })
			}
		}
	}
}

// tell tells one member, and once more if there is news meanwhile.
func (n *Node) tell(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	for more := true; more; more = n.tellings.more(id) {
		at := n.machine.last()
		request := binary.AppendUvarint(binary.AppendUvarint(nil, at.index), at.term)
		_, _ = n.config.RPC.Call(ctx, id, kindCommitted, request) // if it is lost, raft tells
	}
}

func (n *Node) answerCommitted(_ context.Context, from string, request []byte) ([]byte, error) {
	m := &message{rest: request}
	at := place{index: m.uvarint(), term: m.uvarint()}
	if m.end() != nil {
		return nil, malformed("word of what is committed", from)
	}
	n.hints.add(at)
	return nil, nil
}

// tellings are the members that are being told. A member that does not answer
// takes one goroutine, however much there is to tell.
type tellings struct {
	mu   sync.Mutex
	news map[string]bool // whether there is news for who is being told; guarded by mu
}

// begin reports whether a member is to be told now. If it is being told already,
// it will be told once more.
func (t *tellings) begin(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.news == nil {
		t.news = make(map[string]bool)
	}
	_, busy := t.news[id]
	t.news[id] = busy
	return !busy
}

// more reports whether there is news for a member that has been told.
func (t *tellings) more(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	news := t.news[id]
	if delete(t.news, id); news {
		t.news[id] = false
	}
	return news
}
