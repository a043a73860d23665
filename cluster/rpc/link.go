package rpc

import (
	"bufio"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"srsx/cluster/port"
)

const (
	// maxOpen bounds what may be open between two peers, each way: 64 MB, or 4096
	// requests, as even the smallest counts for minCost.
	maxOpen = 64 << 20
	minCost = 16 << 10

	maxBatch  = 256 << 10 // bytes that go out in one write; a larger frame goes alone
	maxBuffer = 1 << 20   // bytes kept between writes
	// silence is so many beats without one: the peer is dead or unreachable.
	silentBeats = 4
)

func cost(payload []byte) int64 { return max(int64(len(payload)), minCost) }

// link is one connection to a peer. Both sides ask over it and both answer.
// A reader and a writer goroutine own the two directions; those who ask and
// handle put frames into the queue.
type link struct {
	conn net.Conn
	peer port.Peer
	beat time.Duration

	open *semaphore.Weighted // cost of what we have asked and not heard of
	load load                // cost of what we do for the peer
	wake chan struct{}       // there is something in the queue
	done chan struct{}       // closed by end
	work sync.WaitGroup      // the writer, and handlers

	mu      sync.Mutex
	queue   []outgoing // guarded by mu, as all below
	calls   map[uint32]*call
	lastID  uint32
	serving map[uint32]context.CancelFunc // what we do for the peer
	ended   error
}

// outgoing is a frame that waits for the writer.
type outgoing struct {
	id            uint32
	typ           byte
	head, payload []byte
	call          *call // of a request
	weight        int64 // of an answer: the cost of its request
}

// call is a request of ours.
type call struct {
	answer chan answer // has room for the one that comes
	sent   bool        // guarded by link.mu: its bytes may have left
	gone   bool        // guarded by link.mu: nobody waits any more
}

type answer struct {
	reply []byte
	err   error
}

func newLink(conn net.Conn, peer port.Peer, beat time.Duration, ofPeer *atomic.Int64) *link {
	return &link{
		conn: conn, peer: peer, beat: beat,
		load:    load{ofPeer: ofPeer},
		open:    semaphore.NewWeighted(maxOpen),
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		calls:   make(map[uint32]*call),
		serving: make(map[uint32]context.CancelFunc),
	}
}

// run is the life of a link. It returns why the link ended, when its handlers
// have too.
func (l *link) run(ctx context.Context, handler func(kind byte) Handler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer l.load.clear()
	defer l.work.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.end(context.Cause(ctx)) })()
	l.work.Go(func() { l.end(l.write()) })
	l.end(l.read(ctx, handler))
	return l.cause()
}

// end closes the link for a reason, the first one counts, and answers all calls.
func (l *link) end(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended != nil {
		return
	}
	l.ended = why
	close(l.done)
	_ = l.conn.Close()
	for id, c := range l.calls {
		failed := endedBy(why)
		if c.sent {
			failed = unknownOutcome(failed)
		} else {
			failed = notExecuted(failed)
		}
		l.finish(id, answer{err: failed})
	}
}

func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// alive reports whether the link has not ended.
func (l *link) alive() bool {
	select {
	case <-l.done:
		return false
	default:
		return true
	}
}

// call asks the peer. Errors match [ErrNotExecuted] or [ErrUnknownOutcome], or
// are the peer's.
func (l *link) call(ctx context.Context, r request) ([]byte, error) {
	if err := l.open.Acquire(ctx, cost(r.payload)); err != nil {
		return nil, notExecuted(context.Cause(ctx))
	}
	defer l.open.Release(cost(r.payload))
	if deadline, ok := ctx.Deadline(); ok {
		r.timeout = max(time.Until(deadline), time.Millisecond)
	}
	c := &call{answer: make(chan answer, 1)}
	id, err := l.ask(c, r)
	if err != nil {
		return nil, notExecuted(err)
	}
	select {
	case a := <-c.answer:
		return a.reply, a.err
	case <-ctx.Done():
		return l.abandon(ctx, id, c)
	}
}

// ask puts a request into the queue.
func (l *link) ask(c *call, r request) (uint32, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended != nil {
		return 0, endedBy(l.ended)
	}
	for l.lastID++; l.calls[l.lastID] != nil; l.lastID++ { // 2^32 later some may still be open
	}
	l.calls[l.lastID] = c
	l.push(outgoing{id: l.lastID, typ: typeRequest, head: r.head(), payload: r.payload, call: c})
	return l.lastID, nil
}

// abandon ends a call that nobody waits for any more, unless its answer is just
// there.
func (l *link) abandon(ctx context.Context, id uint32, c *call) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case a := <-c.answer:
		return a.reply, a.err
	default:
	}
	delete(l.calls, id)
	c.gone = true
	if !c.sent {
		return nil, notExecuted(context.Cause(ctx))
	}
	l.push(outgoing{id: id, typ: typeCancel})
	return nil, unknownOutcome(context.Cause(ctx))
}

// finish answers a call, if it is still open. The caller holds l.mu.
func (l *link) finish(id uint32, a answer) {
	if c := l.calls[id]; c != nil {
		delete(l.calls, id)
		c.answer <- a
	}
}

// push queues a frame. The caller holds l.mu.
func (l *link) push(o outgoing) {
	l.queue = append(l.queue, o)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// read takes frames from the peer until one of them is wrong or late. It never
// waits for a handler or for the queue, so that beats and cancellations get
// through whatever else goes on.
func (l *link) read(ctx context.Context, handler func(kind byte) Handler) error {
	r := bufio.NewReaderSize(impatient{l.conn, silentBeats * l.beat}, readStep)
	for {
		f, err := readFrame(r)
		if err != nil {
			return err
		}
		switch f.typ {
		case typeRequest:
			var asked request
			if asked, err = parseRequest(f.body); err == nil {
				err = l.serve(ctx, f.id, asked, handler(asked.kind))
			}
		case typeReply:
			l.heard(f.id, answer{reply: f.body})
		case typeFailure:
			var failure *CallError
			if failure, err = parseFailure(f.body); err == nil {
				l.heard(f.id, answer{err: failure})
			}
		case typeCancel:
			l.cancelled(f.id)
		}
		if err != nil {
			return err
		}
	}
}

func (l *link) heard(id uint32, a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finish(id, a)
}

// impatient is a connection whose reads end when nothing comes for so long.
type impatient struct {
	conn    net.Conn
	silence time.Duration
}

func (i impatient) Read(b []byte) (int, error) {
	if err := i.conn.SetReadDeadline(time.Now().Add(i.silence)); err != nil {
		return 0, err
	}
	return i.conn.Read(b)
}
