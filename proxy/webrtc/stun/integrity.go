package stun

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // RFC 8489 section 14.5 has no other for ICE
	"encoding/binary"
	"hash"
	"sync"
)

// Verifier checks the MESSAGE-INTEGRITY of messages that are made with one
// password. It is safe for concurrent use and allocates nothing from its second
// check on.
type Verifier struct {
	mu  sync.Mutex
	mac hash.Hash // guarded by mu
	sum [integritySize]byte
	// head is the header as the sender had it for the MAC.
	head [headerSize]byte
}

// NewVerifier returns a verifier for an ICE password, which is the key as it
// stands (short-term credentials, RFC 8489 section 9.1.1).
func NewVerifier(password string) *Verifier {
	return &Verifier{mac: hmac.New(sha1.New, []byte(password))}
}

// Verify reports whether m was made by somebody who knows the password.
func (v *Verifier) Verify(m *Message) bool {
	if m.integrityAt == 0 {
		return false
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	// The length counts as far as the end of the attribute, whatever follows.
	copy(v.head[:], m.raw)
	covered := m.integrityAt - headerSize + 4 + integritySize
	binary.BigEndian.PutUint16(v.head[2:], uint16(covered)) //nolint:gosec // within a message, whose length is a uint16
	v.mac.Reset()
	_, _ = v.mac.Write(v.head[:])
	_, _ = v.mac.Write(m.raw[headerSize:m.integrityAt])
	return hmac.Equal(v.mac.Sum(v.sum[:0]), m.raw[m.integrityAt+4:m.integrityAt+4+integritySize])
}
