package port

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// RaftStream is raft's share of the port: a raft.StreamLayer and the
// raft.ServerAddressProvider that belongs to it, both for
// raft.NewNetworkTransportWithConfig.
//
// Towards raft a peer's address is its node id, everywhere: raft pools
// connections by address and counts an answer for the peer it meant to ask, so
// an address that now belongs to another peer would let one vote for two. Dial
// resolves the id and refuses any other node, and a peer that moves needs no
// change of raft's configuration.
type RaftStream struct {
	port     *Port
	accepted chan net.Conn
	open     context.Context //nolint:containedctx // ends with Close, and so do connections to ourselves
	close    context.CancelFunc
}

var (
	_ raft.StreamLayer           = (*RaftStream)(nil)
	_ raft.ServerAddressProvider = (*RaftStream)(nil)
)

// Raft begins to take raft connections, until Close of the stream.
func (p *Port) Raft() *RaftStream {
	s := &RaftStream{port: p, accepted: make(chan net.Conn)}
	s.open, s.close = context.WithCancel(context.Background())
	p.Handle(KindRaft, s.offer)
	return s
}

// offer hands a connection to Accept. Raft owns it then.
func (s *RaftStream) offer(ctx context.Context, c *Conn) {
	select {
	case s.accepted <- c:
	case <-s.open.Done():
		_ = c.Close()
	case <-ctx.Done():
		_ = c.Close()
	}
}

// Accept returns the next connection of a peer's raft.
func (s *RaftStream) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.open.Done():
		return nil, net.ErrClosed
	}
}

// Close ends every raft connection, and takes no more; the rest of the port
// goes on. Raft's transport closes only those that it dialed.
func (s *RaftStream) Close() error {
	if s.open.Err() == nil {
		s.close()
		s.port.Handle(KindRaft, nil)
		s.port.closeWhere(func(c *Conn) bool { return c.kind == KindRaft })
	}
	return nil
}

// Addr returns the node id of this peer.
func (s *RaftStream) Addr() net.Addr { return nodeAddr(s.port.NodeID()) }

type nodeAddr string

func (nodeAddr) Network() string  { return "srsx" }
func (a nodeAddr) String() string { return string(a) }

// ServerAddr returns the node id itself, whatever address raft has noted.
func (s *RaftStream) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	return raft.ServerAddress(id), nil
}

// Dial connects to the raft of a peer; address is its node id. This peer's own
// raft is reached without the network: it is told there to start an election.
func (s *RaftStream) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if string(address) == s.port.NodeID() {
		return s.dialSelf(timeout)
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.port.Dial(ctx, KindRaft, Target{ID: string(address)})
}

func (s *RaftStream) dialSelf(timeout time.Duration) (net.Conn, error) {
	near, far := net.Pipe()
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case s.accepted <- far:
		return selfConn{near, context.AfterFunc(s.open, func() { _ = far.Close() })}, nil
	case <-s.open.Done():
		return nil, net.ErrClosed
	case <-late.C:
		return nil, context.DeadlineExceeded
	}
}

// selfConn is a connection to ourselves, which ends with the stream.
type selfConn struct {
	net.Conn

	keep func() bool // beyond the end of the stream
}

// Close ends both ends of the connection.
func (c selfConn) Close() error {
	c.keep()
	return c.Conn.Close()
}

// Fence ends all raft connections, and refuses new ones in both directions
// until Unfence: a leader that can no longer write falls silent and another is
// elected, while everything else of the port goes on.
func (s *RaftStream) Fence() { s.port.fence(true) }

// Unfence lets raft connect again.
func (s *RaftStream) Unfence() { s.port.fence(false) }

func (p *Port) fence(shut bool) { //nolint:revive // the state itself, not a mode
	p.mu.Lock()
	p.fenced = shut
	p.mu.Unlock()
	if shut {
		p.closeWhere(func(c *Conn) bool { return c.kind == KindRaft })
	}
}
