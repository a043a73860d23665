package wire

import (
	"bytes"
	"crypto/rand"
	"testing"
)

// Flash players put the digest in one of two places and look for the server's
// in the same.
func TestServersDigestIsWhereTheClientPutItsOwn(t *testing.T) {
	for _, base := range []int{firstDigest, secondDigest} {
		c1 := make([]byte, handshakeSize)
		_, _ = rand.Read(c1)
		signDigest(c1, base, playerText)
		_, mine := findDigest(c1, playerText)
		if mine == nil {
			t.Fatalf("base %d: the client's own digest is not found", base)
		}
		reply := answer(c1)
		s1, s2 := reply[1:1+handshakeSize], reply[1+handshakeSize:]
		if at, digest := findDigest(s1, serverText); digest == nil || at != base {
			t.Errorf("base %d: the server's digest is at %d, %x", base, at, digest)
		}
		signed := bytes.Clone(s2)
		signEcho(signed, mine, serverText)
		if !bytes.Equal(signed, s2) {
			t.Errorf("base %d: S2 does not answer the client's digest", base)
		}
	}
}
