package port

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/google/uuid"

	"srsx/cluster/keyring"
)

// handshake is one connection before either side trusts the other. It is used
// by one goroutine; what bounds its time is that run closes the connection.
type handshake struct {
	guards  guards
	serves  func(Kind) bool
	role    string
	conn    net.Conn // what is spoken on now: TCP, then TLS
	prelude prelude
	keys    []keyring.Derived // to prove with, the one in use first; one empty one where none is set
	want    uuid.UUID         // the node that was dialed; zero for any
	self    hello
	peer    hello
	tls     *tls.ConnectionState // nil without a guard
	shared  keyring.Fingerprint  // the key that both have
	telling bool                 // the other side waits for a message, so a refusal reaches it
}

// dial is the dialer's side.
func (h *handshake) dial(ctx context.Context) error {
	if _, err := h.conn.Write(h.prelude.encode()); err != nil {
		return err
	}
	if _, err := readMessage(h.conn); err != nil { // the verdict
		return err
	}
	if h.prelude.guard != 0 {
		if err := h.secure(ctx, tls.Client(h.conn, h.guards.clientTLS())); err != nil {
			return err
		}
	}
	if err := writeMessage(h.conn, goOn, h.self.encode()); err != nil {
		return err
	}
	if err := h.hear(); err != nil {
		return err
	}
	return h.proveFirst()
}

// answer is the acceptor's side. When admit refuses, so does the handshake.
func (h *handshake) answer(ctx context.Context, admit func() error) error {
	if err := h.readPrelude(); err != nil {
		return err
	}
	if err := writeMessage(h.conn, goOn, nil); err != nil {
		return err
	}
	h.telling = false
	if h.prelude.guard != 0 {
		if err := h.secure(ctx, tls.Server(h.conn, h.guards.serverTLS())); err != nil {
			return err
		}
	}
	if err := h.hear(); err != nil {
		return err
	}
	if err := writeMessage(h.conn, goOn, h.self.encode()); err != nil {
		return err
	}
	return h.proveSecond(admit)
}

func (h *handshake) readPrelude() error {
	b := make([]byte, preludeSize)
	if _, err := io.ReadFull(h.conn, b); err != nil {
		return errors.Join(errNotOurs, err)
	}
	got, err := parsePrelude(b)
	if err != nil {
		return err
	}
	wanted := h.prelude.guard
	h.prelude, h.telling = got, true
	switch {
	case got.version != protocolVersion:
		return refuse(ErrIncompatible, "version %d was offered, node %q speaks %d", got.version, h.self.nodeName, protocolVersion)
	case got.guard != wanted:
		return refuse(ErrUntrusted, "node %q wants %v, and was offered %v", h.self.nodeName, wanted, got.guard)
	case !h.serves(got.kind):
		return refuse(ErrUnserved, "kind %d at node %q", got.kind, h.self.nodeName)
	}
	return nil
}

func (h *handshake) secure(ctx context.Context, conn *tls.Conn) error {
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS: %w", err)
	}
	state := conn.ConnectionState()
	h.conn, h.tls = conn, &state
	return nil
}

// hear reads the peer's hello and checks whether it is one of us.
func (h *handshake) hear() error {
	h.telling = false
	body, err := readMessage(h.conn)
	if err != nil {
		return err
	}
	if h.peer, err = parseHello(body); err != nil {
		return err
	}
	h.telling = true
	self, peer := h.self, h.peer
	switch {
	case peer.clusterName != self.clusterName:
		return refuse(ErrOtherCluster, "node %q is of cluster %q, node %q of %q",
			self.nodeName, self.clusterName, peer.nodeName, peer.clusterName)
	case peer.cluster != uuid.Nil && self.cluster != uuid.Nil && peer.cluster != self.cluster:
		return refuse(ErrOtherCluster, "both are called %q, but node %q is of cluster %v and node %q of %v",
			self.clusterName, self.nodeName, self.cluster, peer.nodeName, peer.cluster)
	case peer.node == self.node:
		return refuse(ErrWrongNode, "node id %v is on both sides: a peer dialed itself, or runs on a copy of another's data directory", self.node)
	case h.want != uuid.Nil && peer.node != h.want:
		return refuse(ErrWrongNode, "node %v was dialed, node %v (%q) answers", h.want, peer.node, peer.nodeName)
	}
	return h.checkCertificate()
}

// The proofs show that both sides have one cluster key, without showing it:
// HMAC-SHA256 by a secret derived from the key, over a transcript of everything
// said so far. They cannot be had without the key:
//
//   - Replay: each side's fresh 32-byte nonce is in the transcript, so a proof
//     fits one handshake only, whichever side is the attacker.
//   - Reflection: the proofs of the two roles differ, and a peer whose node id
//     is our own is refused. Handing one side's challenge to a third peer fails
//     for the same reason as the next.
//   - Relaying: the certificates inside TLS are not looked at, so anybody may
//     sit between the two; but then there are two TLS connections, and the
//     keying material exported from each (RFC 5705, RFC 9266) is in the
//     transcript. The proof fits the channel it is sent on.
//   - Downgrade: the prelude, sent in the clear, is in the transcript.
//
// The dialer proves first, so a stranger who dials gets no proof to work on.
// After it the bytes have TLS's own protection.
const (
	proofLabel    = "srsx cluster port proof 1"
	exporterLabel = "EXPORTER-srsx-cluster-port"
	roleDialer    = "dialer"
	roleAcceptor  = "acceptor"
)

// proveFirst is the dialer's: by the key in use here.
func (h *handshake) proveFirst() error {
	key := h.keys[0]
	proof, err := h.proof(roleDialer, key)
	if err != nil {
		return err
	}
	if err = writeMessage(h.conn, goOn, proof); err != nil {
		return err
	}
	h.telling = false // what follows the acceptor's proof is raft or RPC
	answer, err := readMessage(h.conn)
	if err != nil {
		return err
	}
	expected, err := h.proof(roleAcceptor, key)
	if err != nil {
		return err
	}
	if !hmac.Equal(answer, expected) {
		return refuse(ErrUntrusted, "node %q did not prove that it has key %s", h.peer.nodeName, key.From)
	}
	h.shared = key.From
	return nil
}

// proveSecond is the acceptor's: it answers by the key that the dialer has
// shown to have, whichever of the ring that is, so that keys can be rotated one
// peer at a time.
func (h *handshake) proveSecond(admit func() error) error {
	h.telling = false
	offered, err := readMessage(h.conn)
	if err != nil {
		return err
	}
	h.telling = true
	key, err := h.keyOf(offered)
	if err != nil {
		return err
	}
	h.shared = key.From
	if err = admit(); err != nil {
		return err
	}
	proof, err := h.proof(roleAcceptor, key)
	if err != nil {
		return err
	}
	h.telling = false
	return writeMessage(h.conn, goOn, proof)
}

// keyOf finds the key by which the dialer made its proof.
func (h *handshake) keyOf(offered []byte) (keyring.Derived, error) {
	for _, key := range h.keys {
		expected, err := h.proof(roleDialer, key)
		if err != nil {
			return keyring.Derived{}, err
		}
		if hmac.Equal(offered, expected) {
			return key, nil
		}
	}
	return keyring.Derived{}, refuse(ErrUntrusted, "node %q does not have the key of node %q", h.self.nodeName, h.peer.nodeName)
}

// proof returns what a role has to say when it has the key. Where no key is
// set it is empty, and only names, UUIDs and certificates have been compared.
func (h *handshake) proof(role string, key keyring.Derived) ([]byte, error) {
	if h.prelude.guard&guardKey == 0 {
		return nil, nil
	}
	channel, err := h.tls.ExportKeyingMaterial(exporterLabel, nil, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	dialer, acceptor := h.self, h.peer
	if h.role == roleAcceptor {
		dialer, acceptor = h.peer, h.self
	}
	mac := hmac.New(sha256.New, key.Secret)
	for _, part := range [][]byte{
		[]byte(proofLabel), []byte(role), channel, h.prelude.encode(), dialer.encode(), acceptor.encode(),
	} {
		// Each part after its length: no two transcripts have the same bytes.
		_ = binary.Write(mac, binary.BigEndian, uint32(len(part)))
		_, _ = mac.Write(part) // never fails
	}
	return mac.Sum(nil), nil
}
