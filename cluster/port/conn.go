package port

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"srsx/cluster/keyring"
)

// Peer is who is at the other end of a connection. All of it was said by the
// peer itself: with a cluster key it is a word of one who has the key, with
// certificates the name is signed, and without either it is worth nothing.
type Peer struct {
	ID   string // node id, a UUID
	Name string
	Addr string // host:port of the connection
}

// Conn is a connection to a peer after the handshake. Its bytes are protected
// by TLS where a key or certificates are set. Close never waits.
type Conn struct {
	net.Conn // TLS, or TCP
	port     *Port
	tcp      *net.TCPConn
	kind     Kind
	peer     Peer
	cluster  uuid.UUID                    // as the peer said it; zero for a newcomer
	key      keyring.Fingerprint          // by which it was authenticated
	visitor  *visitor                     // nil when dialed
	serve    func(context.Context, *Conn) // nil when dialed
	closed   atomic.Bool
}

// Peer returns who is at the other end.
func (c *Conn) Peer() Peer { return c.peer }

// Close ends the connection at once. It leaves out TLS's farewell, which would
// wait for a peer that does not read; every protocol here knows its own ends.
func (c *Conn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.port.forget(c)
	}
	return c.tcp.Close()
}

// keepAlive ends a connection whose host has vanished while nothing is sent on
// it: 5 s of silence, then three probes.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}
}
