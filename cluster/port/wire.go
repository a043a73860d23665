package port

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// The handshake, in full; D dials, A accepts. Integers are big endian.
//
//	D: prelude   kind 1, "srsx" 4, version 1, guard 1, zero 1
//	A: verdict
//	   TLS 1.3, unless the guard is none
//	D: hello
//	A: hello     or a refusal
//	D: proof     or a refusal
//	A: proof     or a refusal
//
// All but the prelude are messages: length 2, code 1, body; the length counts
// code and body. Code 0 goes on, any other refuses and its body is a text. Each
// side sends only after it has read, so a refusal never meets unread bytes that
// would turn it into a reset.
const (
	protocolVersion = 1
	preludeSize     = 8
	maxMessage      = 512 // bytes: the longest hello has 340
	nonceSize       = 32  // bytes
	maxName         = 128 // bytes, of a peer and of a cluster
)

const magic = "srsx"

// errNotOurs means that the connection does not speak the protocol: a scanner,
// a health check, a browser.
var errNotOurs = errors.New("not the handshake of the cluster port")

// guard says how a connection is protected. Both peers need the same.
type guard byte

const (
	guardKey  guard = 1 << iota // a proof by the cluster key inside TLS
	guardCert                   // certificates of the cluster's own CA
)

func (g guard) String() string {
	switch g {
	case 0:
		return "neither key nor certificate"
	case guardKey:
		return "the cluster key"
	case guardCert:
		return "certificates"
	case guardKey | guardCert:
		return "the cluster key and certificates"
	default:
		return fmt.Sprintf("guard %d", byte(g))
	}
}

type prelude struct {
	kind    Kind
	version byte
	guard   guard
}

func (p prelude) encode() []byte {
	b := append([]byte{byte(p.kind)}, magic...)
	return append(b, p.version, byte(p.guard), 0)
}

func parsePrelude(b []byte) (prelude, error) {
	if len(b) != preludeSize || string(b[1:5]) != magic || b[7] != 0 {
		return prelude{}, errNotOurs
	}
	return prelude{kind: Kind(b[0]), version: b[5], guard: guard(b[6])}, nil
}

// hello is what a peer says of itself.
type hello struct {
	nonce       [nonceSize]byte
	node        uuid.UUID
	cluster     uuid.UUID // zero for a newcomer
	clusterName string
	nodeName    string
}

// withNonce returns h with a nonce that was never used before.
func (h hello) withNonce() hello {
	_, _ = rand.Read(h.nonce[:]) // never fails: crypto/rand ends the process instead
	return h
}

// encode returns nonce 32, node 16, cluster 16, and the names of cluster and
// node, each after a byte with its length.
func (h hello) encode() []byte {
	b := append([]byte(nil), h.nonce[:]...)
	b = append(b, h.node[:]...)
	b = append(b, h.cluster[:]...)
	for _, name := range []string{h.clusterName, h.nodeName} {
		b = append(b, byte(len(name)))
		b = append(b, name...)
	}
	return b
}

func parseHello(b []byte) (hello, error) {
	var h hello
	const fixed = nonceSize + 16 + 16
	if len(b) < fixed {
		return hello{}, fmt.Errorf("hello has %d bytes; want at least %d", len(b), fixed)
	}
	copy(h.nonce[:], b)
	copy(h.node[:], b[nonceSize:])
	copy(h.cluster[:], b[nonceSize+16:])
	if h.node == uuid.Nil {
		return hello{}, errors.New("hello has no node id")
	}
	b = b[fixed:]
	for _, name := range []*string{&h.clusterName, &h.nodeName} {
		if len(b) == 0 || len(b) < 1+int(b[0]) {
			return hello{}, errors.New("hello ends within a name")
		}
		*name, b = string(b[1:1+b[0]]), b[1+int(b[0]):]
		if err := checkName(*name); err != nil {
			return hello{}, err
		}
	}
	if len(b) != 0 {
		return hello{}, fmt.Errorf("hello has %d bytes too many", len(b))
	}
	return h, nil
}

// checkName accepts what can stand in a log line as it is.
func checkName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("name has %d bytes; want 1 to %d", len(name), maxName)
	}
	if !utf8.ValidString(name) {
		return errors.New("name is not UTF-8")
	}
	for _, r := range name {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("name has the character %U", r)
		}
	}
	return nil
}

func writeMessage(w io.Writer, code refusalCode, body []byte) error {
	b := binary.BigEndian.AppendUint16(nil, uint16(1+len(body)))
	b = append(b, byte(code))
	_, err := w.Write(append(b, body...))
	return err
}

// readMessage returns the body of a message. A refusal is returned as an error.
func readMessage(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := binary.BigEndian.Uint16(head[:])
	if size == 0 || size > maxMessage {
		return nil, fmt.Errorf("message has %d bytes; want 1 to %d", size, maxMessage)
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, err
	}
	if code := refusalCode(b[0]); code != goOn {
		return nil, refusalOf(code, b[1:])
	}
	return b[1:], nil
}
