package wire

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// ErrVersion means that the first byte of a peer is not RTMP's version 3.
var ErrVersion = errors.New("not RTMP: version byte is not 3")

const (
	version       = 3
	handshakeSize = 1536 // bytes of C1, S1, C2 and S2 (RTMP 1.0 section 5.2)
	digestSize    = sha256.Size
)

// The complex handshake's keys: a text and 32 bytes that every implementation
// knows. They authenticate nobody; players of old wanted to see them.
var (
	playerText = []byte("Genuine Adobe Flash Player 001")       //nolint:gochecknoglobals // constant
	serverText = []byte("Genuine Adobe Flash Media Server 001") //nolint:gochecknoglobals // constant
	keyTail    = []byte{                                        //nolint:gochecknoglobals // constant
		0xf0, 0xee, 0xc2, 0x4a, 0x80, 0x68, 0xbe, 0xe8, 0x2e, 0x00, 0xd0, 0xd1, 0x02, 0x9e, 0x7e, 0x57,
		0x6e, 0xec, 0x5d, 0x2d, 0x29, 0x80, 0x6f, 0xab, 0x93, 0xb8, 0xe6, 0x36, 0xcf, 0xeb, 0x31, 0xae,
	}
)

// C1 and S1 carry their digest in one of two places, which starts with four
// bytes whose sum is the offset behind them.
const (
	firstDigest  = 8
	secondDigest = 772
)

// Accept does the server's side of the handshake: complex when the client's C1
// carries a digest, else simple. The caller sets the deadline.
func Accept(rw io.ReadWriter) error {
	var c [1 + handshakeSize]byte
	if _, err := io.ReadFull(rw, c[:1]); err != nil {
		return fmt.Errorf("read C0: %w", err)
	}
	if c[0] != version {
		return ErrVersion
	}
	if _, err := io.ReadFull(rw, c[1:]); err != nil {
		return fmt.Errorf("read C1: %w", err)
	}
	if _, err := rw.Write(answer(c[1:])); err != nil {
		return fmt.Errorf("write S0, S1 and S2: %w", err)
	}
	if _, err := io.ReadFull(rw, c[1:]); err != nil {
		return fmt.Errorf("read C2: %w", err)
	}
	return nil // C2 is not checked: clients differ in what they echo
}

// answer returns S0, S1 and S2 for a C1.
func answer(c1 []byte) []byte {
	out := make([]byte, 1+2*handshakeSize)
	out[0] = version
	s1, s2 := out[1:1+handshakeSize], out[1+handshakeSize:]
	_, _ = rand.Read(s1[8:]) // never fails
	base, digest := findDigest(c1, playerText)
	if digest == nil {
		copy(s2, c1)
		return out
	}
	copy(s1[4:8], []byte{4, 5, 0, 1}) // any version but zero
	signDigest(s1, base, serverText)  // where the client put its own and looks for it
	_, _ = rand.Read(s2)
	signEcho(s2, digest, serverText)
	return out
}

// Connect does the client's side: it offers the complex handshake and takes
// whichever the server answers. The caller sets the deadline.
func Connect(rw io.ReadWriter) error {
	c := make([]byte, 1+handshakeSize)
	c[0] = version
	_, _ = rand.Read(c[9:]) // never fails
	copy(c[5:9], []byte{0x80, 0, 7, 2})
	signDigest(c[1:], firstDigest, playerText)
	if _, err := rw.Write(c); err != nil {
		return fmt.Errorf("write C0 and C1: %w", err)
	}
	var s [1 + 2*handshakeSize]byte
	if _, err := io.ReadFull(rw, s[:1]); err != nil {
		return fmt.Errorf("read S0: %w", err)
	}
	if s[0] != version {
		return ErrVersion
	}
	if _, err := io.ReadFull(rw, s[1:]); err != nil {
		return fmt.Errorf("read S1 and S2: %w", err)
	}
	c2 := s[1 : 1+handshakeSize] // the simple handshake echoes S1
	if _, digest := findDigest(c2, serverText); digest != nil {
		digest = bytes.Clone(digest)
		_, _ = rand.Read(c2)
		signEcho(c2, digest, playerText)
	}
	if _, err := rw.Write(c2); err != nil {
		return fmt.Errorf("write C2: %w", err)
	}
	return nil
}

func sum(key []byte, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, p := range parts {
		_, _ = mac.Write(p)
	}
	return mac.Sum(nil)
}

func digestOffset(b []byte, base int) int {
	return base + 4 + (int(b[base])+int(b[base+1])+int(b[base+2])+int(b[base+3]))%728
}

// findDigest returns the valid digest in C1 or S1 and its place, nil when there
// is none.
func findDigest(b, text []byte) (base int, digest []byte) {
	for _, base := range []int{secondDigest, firstDigest} {
		at := digestOffset(b, base)
		if digest := b[at : at+digestSize]; hmac.Equal(digest, sum(text, b[:at], b[at+digestSize:])) {
			return base, digest
		}
	}
	return 0, nil
}

// signDigest puts the digest of C1 or S1 into it.
func signDigest(b []byte, base int, text []byte) {
	at := digestOffset(b, base)
	copy(b[at:], sum(text, b[:at], b[at+digestSize:]))
}

// signEcho signs C2 or S2 with the digest that it answers.
func signEcho(b, digest, text []byte) {
	end := handshakeSize - digestSize
	key := sum(append(bytes.Clone(text), keyTail...), digest)
	copy(b[end:], sum(key, b[:end]))
}
