package rpc

import (
	"runtime"
	"time"
)

// write sends what is queued until the link ends. What comes while one write is
// under way goes out together in the next, so that batches are as large as the
// connection is slow and nobody waits for a timer.
func (l *link) write() error {
	ticker := time.NewTicker(l.beat)
	defer ticker.Stop()
	var out batch
	for quiet := false; ; {
		select {
		case <-l.done:
			return nil
		case <-ticker.C:
			if quiet {
				l.sendBeat()
			}
			quiet = true
		case <-l.wake:
		}
		// Whoever can run now and has something to send joins this write: at 64
		// callers that is twice the calls a second, and one alone loses nothing.
		runtime.Gosched()
		for l.take(&out); len(out.bytes) > 0; l.take(&out) {
			quiet = false
			if sent, err := l.send(out.bytes); err != nil {
				l.unsent(out.requests, sent)
				return err
			}
			l.load.drop(out.weight)
		}
	}
}

// batch is what goes out in one write.
type batch struct {
	bytes    []byte
	requests []placed
	weight   int64 // of the answers
}

// placed is a request whose frame ends at a place in a batch.
type placed struct {
	call *call
	end  int
}

// take moves frames from the queue into a batch, at least one if there are any.
func (l *link) take(b *batch) {
	if cap(b.bytes) > maxBuffer {
		b.bytes = nil
	}
	b.bytes, b.requests, b.weight = b.bytes[:0], b.requests[:0], 0
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := 0
	for _, o := range l.queue {
		if len(b.bytes) > 0 && len(b.bytes)+len(o.payload) > maxBatch {
			break
		}
		taken++
		if o.call != nil && o.call.gone {
			continue
		}
		// Copied here and not later: a caller that gives up may use its payload
		// for something else as soon as l.mu is free.
		b.bytes = appendFrame(b.bytes, o.id, o.typ, o.head, o.payload)
		if o.call != nil {
			o.call.sent = true
			b.requests = append(b.requests, placed{o.call, len(b.bytes)})
		}
		b.weight += o.weight
	}
	clear(l.queue[:taken])
	if l.queue = l.queue[taken:]; len(l.queue) == 0 {
		l.queue = nil
	}
}

// send writes a batch and returns how many bytes of it have surely gone to the
// system. A peer that takes nothing for as long as it may be silent has ended.
func (l *link) send(b []byte) (int, error) {
	sent := 0
	for sent < len(b) {
		if err := l.conn.SetWriteDeadline(time.Now().Add(silentBeats * l.beat)); err != nil {
			return sent, err
		}
		n, err := l.conn.Write(b[sent:min(len(b), sent+maxBatch)])
		if sent += n; err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// unsent corrects what take assumed: a request that did not go to the system as
// a whole will never be executed. Under TLS the same holds of records, and the
// peer can read no part of one.
func (l *link) unsent(requests []placed, sent int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range requests {
		if r.end > sent {
			r.call.sent = false
		}
	}
}

func (l *link) sendBeat() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.push(outgoing{typ: typeBeat})
}
