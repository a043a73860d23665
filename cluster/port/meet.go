package port

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/google/uuid"
)

// Target is a peer to connect to: by node id, by address, or by both. With an
// ID any other node at the address is refused, which matters where addresses
// are used again: raft would count one peer's word as another's. Without Addr
// the address comes from Config.Resolve.
type Target struct {
	ID   string
	Addr string
}

func (t Target) String() string {
	switch {
	case t.ID == "":
		return t.Addr
	case t.Addr == "":
		return "node " + t.ID
	default:
		return "node " + t.ID + " at " + t.Addr
	}
}

// Dial connects to the port of another peer and goes through the handshake,
// within Config.HandshakeTimeout and ctx. Errors match one of the Err variables
// above when either side refuses, and the system's (ECONNREFUSED, ...) when
// nobody answers.
func (p *Port) Dial(ctx context.Context, kind Kind, to Target) (*Conn, error) {
	conn, err := p.dial(ctx, kind, to)
	if err != nil {
		return nil, fmt.Errorf("dial peer %v: %w", to, err)
	}
	return conn, nil
}

func (p *Port) dial(ctx context.Context, kind Kind, to Target) (*Conn, error) {
	var want uuid.UUID
	if to.ID != "" {
		var err error
		if want, err = uuid.Parse(to.ID); err != nil {
			return nil, fmt.Errorf("node id: %w", err)
		}
	}
	if to.Addr == "" {
		if to.Addr = p.config.Resolve(to.ID); to.Addr == "" {
			return nil, errors.New("its address is not known")
		}
	}
	p.mu.Lock()
	err := p.forbids(kind)
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.config.HandshakeTimeout)
	defer cancel()
	raw, err := (&net.Dialer{KeepAliveConfig: keepAlive()}).DialContext(ctx, "tcp", to.Addr)
	if err != nil {
		return nil, err
	}
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		_ = raw.Close()
		return nil, fmt.Errorf("connection is a %T", raw)
	}
	h := p.newHandshake(tcp, roleDialer, kind)
	h.want = want
	if err := h.run(ctx, tcp, h.dial); err != nil {
		_ = tcp.Close()
		if errors.Is(err, ErrUntrusted) {
			p.reports.report(ctx, h, tcp.RemoteAddr(), err) // who dials may hide it in a retry
		}
		return nil, err
	}
	conn := p.newConn(h, tcp, nil)
	if err := p.admit(conn, h.self); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// receive is the life of an accepted connection.
func (p *Port) receive(ctx context.Context, v *visitor) {
	meeting, cancel := context.WithTimeout(ctx, p.config.HandshakeTimeout)
	defer cancel()
	h := p.newHandshake(v.conn, roleAcceptor, 0)
	var conn *Conn
	err := h.run(meeting, v.conn, func(ctx context.Context) error {
		return h.answer(ctx, func() error {
			conn = p.newConn(h, v.conn, v)
			if err := p.gate.enter(v); err != nil {
				return err
			}
			return p.admit(conn, h.self)
		})
	})
	if err != nil {
		if conn != nil {
			_ = conn.Close()
		}
		_ = v.conn.Close()
		p.gate.leave(v)
		p.reports.report(ctx, h, v.conn.RemoteAddr(), err)
		return
	}
	conn.serve(ctx, conn)
}

func (p *Port) newHandshake(tcp *net.TCPConn, role string, kind Kind) *handshake {
	needed, keys := p.guards.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	self := p.self.withNonce()
	self.cluster = p.cluster
	return &handshake{
		guards:  p.guards,
		serves:  p.serves,
		role:    role,
		conn:    tcp,
		prelude: prelude{kind: kind, version: protocolVersion, guard: needed},
		keys:    keys,
		self:    self,
	}
}

// run takes the steps of one side until ctx ends. When a step refuses the peer,
// the peer is told why if it listens.
func (h *handshake) run(ctx context.Context, tcp *net.TCPConn, steps func(context.Context) error) error {
	stop := context.AfterFunc(ctx, func() { _ = tcp.Close() })
	err := steps(ctx)
	if r := (*refusal)(nil); errors.As(err, &r) {
		if h.telling {
			code, text := r.message()
			_ = writeMessage(h.conn, code, text) // the refusal stands, told or not
		}
		stop()
		return err
	}
	if !stop() {
		return context.Cause(ctx) // err says only that the connection was closed
	}
	return err
}

func (p *Port) newConn(h *handshake, tcp *net.TCPConn, v *visitor) *Conn {
	return &Conn{
		Conn:    h.conn,
		port:    p,
		tcp:     tcp,
		kind:    h.prelude.kind,
		peer:    Peer{ID: h.peer.node.String(), Name: h.peer.nodeName, Addr: tcp.RemoteAddr().String()},
		cluster: h.peer.cluster,
		key:     h.shared,
		visitor: v,
	}
}

// admit takes a connection in, unless something has changed since its handshake
// began; self is what was said then.
func (p *Port) admit(c *Conn, self hello) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.forbids(c.kind); err != nil {
		return err
	}
	switch {
	case self.cluster != p.cluster && c.cluster != p.cluster:
		return refuse(ErrOtherCluster, "node %q has been let into a cluster meanwhile", self.nodeName)
	case !p.guards.knows(c.key):
		return refuse(ErrUntrusted, "key %s has been removed at node %q", c.key, self.nodeName)
	}
	if c.visitor != nil {
		if c.serve = p.services[c.kind]; c.serve == nil {
			return refuse(ErrUnserved, "kind %d at node %q", c.kind, self.nodeName)
		}
	}
	p.conns[c] = struct{}{}
	return nil
}

// forbids says why no connection of a kind may be made now. The caller holds
// p.mu.
func (p *Port) forbids(kind Kind) error {
	switch {
	case p.closed:
		return net.ErrClosed
	case kind == KindRaft && p.fenced:
		return refuse(ErrFenced, "by node %q", p.self.nodeName)
	default:
		return nil
	}
}

// forget is the end of an open connection.
func (p *Port) forget(c *Conn) {
	p.mu.Lock()
	delete(p.conns, c)
	p.mu.Unlock()
	if c.visitor != nil {
		p.gate.leave(c.visitor)
	}
}

func (p *Port) closeWhere(ends func(*Conn) bool) {
	var ending []*Conn
	p.mu.Lock()
	for c := range p.conns {
		if ends(c) {
			ending = append(ending, c)
		}
	}
	p.mu.Unlock()
	for _, c := range ending {
		_ = c.Close()
	}
}

// Close ends the port and every connection, dialed ones too. The first one counts.
func (p *Port) Close() error {
	p.mu.Lock()
	closed := p.closed
	p.closed = true
	p.mu.Unlock()
	if closed {
		return nil
	}
	close(p.done)
	p.closeWhere(func(*Conn) bool { return true })
	return p.listener.Close()
}
