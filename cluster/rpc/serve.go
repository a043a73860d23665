package rpc

import (
	"context"
	"fmt"
	"sync/atomic"
)

// load is what a link does for its peer, counted among all links to that peer.
type load struct {
	ofLink atomic.Int64
	ofPeer *atomic.Int64
}

// take reports whether there is room for more.
func (l *load) take(cost int64) bool {
	if l.ofPeer.Add(cost) > maxOpen {
		l.ofPeer.Add(-cost)
		return false
	}
	l.ofLink.Add(cost)
	return true
}

func (l *load) drop(cost int64) {
	l.ofLink.Add(-cost)
	l.ofPeer.Add(-cost)
}

// clear drops what is left when the link has ended.
func (l *load) clear() { l.drop(l.ofLink.Load()) }

// serve begins to handle a request. Its cost is held until the answer is out, so
// a peer that asks and does not read has soon asked enough.
func (l *link) serve(ctx context.Context, id uint32, r request, handle Handler) error {
	if handle == nil {
		l.refuse(id, CodeUnknownKind)
		return nil
	}
	weight := cost(r.payload)
	if !l.load.take(weight) {
		l.refuse(id, CodeBusy)
		return nil
	}
	ctx, cancel := r.patience(ctx)
	if !l.begin(id, cancel) {
		cancel()
		return fmt.Errorf("%w: id %d is in use", errProtocol, id)
	}
	l.work.Go(func() {
		defer cancel()
		reply, err := handle(ctx, l.peer, r.payload)
		l.answer(id, reply, err, weight)
	})
	return nil
}

// patience is how long the asker waits.
func (r request) patience(ctx context.Context) (context.Context, context.CancelFunc) {
	if r.timeout > 0 {
		return context.WithTimeout(ctx, r.timeout)
	}
	return context.WithCancel(ctx)
}

func (l *link) begin(id uint32, cancel context.CancelFunc) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.serving[id] != nil {
		return false
	}
	l.serving[id] = cancel
	return true
}

// cancelled is the peer's word that it waits no longer.
func (l *link) cancelled(id uint32) {
	l.mu.Lock()
	cancel := l.serving[id]
	l.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

func (l *link) answer(id uint32, reply []byte, err error, weight int64) {
	if err == nil && len(reply) > MaxPayload {
		err = fmt.Errorf("reply has %d bytes; at most %d can be sent", len(reply), MaxPayload)
	}
	o := outgoing{id: id, typ: typeReply, payload: reply, weight: weight}
	if err != nil {
		o.typ, o.payload = typeFailure, asCallError(err).body()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.serving, id)
	l.push(o)
}

func (l *link) refuse(id uint32, code Code) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.push(outgoing{id: id, typ: typeFailure, payload: (&CallError{Code: code}).body()})
}
