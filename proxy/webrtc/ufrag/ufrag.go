// Package ufrag makes and reads ICE user fragments that carry a route: where
// the media of a session goes, signed, so that any peer can tell it from the
// first datagram.
package ufrag

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// Size is the length of a ufrag in bytes, and of its password: all letters and
// digits, since they pass through queries. SRS takes 4 to 32 and 22 to 32.
const Size = 32

// Layout of the 20 bytes that a ufrag stands for.
const (
	publishBit  = 0x80 // of byte 0; the rest of it is the key's id
	atOrigin    = 1    // short fingerprint of the incarnation
	atExpiry    = 6    // 16 bits, in steps
	atStream    = 8    // hash
	atNonce     = 12
	atMAC       = 16
	size        = 20
	passwordLen = 20
)

// step is the unit of the expiry. Its 16 bits wrap after 455 days, so a time is
// told from one half of that away at most.
const step = 10 * time.Minute

// coding of letters and digits in lower case, without padding.
var coding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding) //nolint:gochecknoglobals // a constant

// Key signs routes. Every peer of a cluster has the same.
type Key [32]byte

// Route is what a ufrag says.
type Route struct {
	Origin  proxy.ShortPrint // of the incarnation that has the session
	Stream  StreamHash
	Publish bool
}

// StreamHash tells streams of one origin apart.
type StreamHash [4]byte

// HashStream returns the hash of a stream.
func HashStream(s lb.Stream) StreamHash {
	sum := sha256.Sum256([]byte(s.String()))
	return StreamHash(sum[:4])
}

// Make returns a new ufrag for a route, which starts flows until expiry, and its
// password.
func (k *Key) Make(r Route, expiry time.Time) (ufrag, password string) {
	var b [size]byte
	b[0] = k.id()
	if r.Publish {
		b[0] |= publishBit
	}
	copy(b[atOrigin:], r.Origin[:])
	binary.BigEndian.PutUint16(b[atExpiry:], steps(expiry))
	copy(b[atStream:], r.Stream[:])
	_, _ = rand.Read(b[atNonce:atMAC]) // never fails
	sum := k.sum(b[:atMAC])
	copy(b[atMAC:], sum[:])
	return coding.EncodeToString(b[:]), password32(sum)
}

// Read returns what a ufrag says, and its password; ok is false for one that has
// expired or is not of this key. It believes a MAC of 32 bits: who guesses that
// still does not know the password.
func (k *Key) Read(ufrag []byte, now time.Time) (r Route, password string, ok bool) {
	var b [size]byte
	if len(ufrag) != Size {
		return Route{}, "", false
	}
	if _, err := coding.Decode(b[:], ufrag); err != nil || b[0]&^publishBit != k.id() {
		return Route{}, "", false
	}
	if int16(binary.BigEndian.Uint16(b[atExpiry:])-steps(now)) < 0 { //nolint:gosec // a difference that wraps
		return Route{}, "", false
	}
	sum := k.sum(b[:atMAC])
	if !hmac.Equal(sum[:size-atMAC], b[atMAC:]) {
		return Route{}, "", false
	}
	return Route{
		Origin: proxy.ShortPrint(b[atOrigin:]), Stream: StreamHash(b[atStream:]), Publish: b[0]&publishBit != 0,
	}, password32(sum), true
}

// steps is a time in steps, modulo 2^16, rounded down.
func steps(t time.Time) uint16 { return uint16(t.Unix() / int64(step/time.Second)) } //nolint:gosec // wraps on purpose

// id tells keys apart, as far as 7 bits do.
func (k *Key) id() byte {
	sum := sha256.Sum256(k[:])
	return sum[0] &^ publishBit
}

// sum makes the MAC, its first bytes, and the password of what it covers.
func (k *Key) sum(b []byte) [sha256.Size]byte {
	mac := hmac.New(sha256.New, k[:])
	_, _ = mac.Write([]byte("srsx ufrag\x00"))
	_, _ = mac.Write(b)
	return [sha256.Size]byte(mac.Sum(nil))
}

func password32(sum [sha256.Size]byte) string {
	return coding.EncodeToString(sum[size-atMAC:][:passwordLen])
}
