package keyring

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/memberlist"
)

// ErrBadKey means that a text is not the base64 of 16, 24 or 32 bytes.
var ErrBadKey = errors.New("not a cluster key")

const (
	generatedSize    = 32 // bytes: AES-256 for gossip
	derivedSize      = 32 // bytes: SHA-256
	fingerprintSize  = 6  // bytes: enough to tell the few keys of a ring apart
	fingerprintLabel = "srsx key fingerprint"
)

// Key is one cluster key. It prints as its fingerprint whatever the verb, so
// that no log and no error shows it; Encode is the only way out. The zero Key
// is no key.
type Key struct{ secret string }

// Fingerprint names a key without giving it away: 12 hexadecimal digits.
type Fingerprint string

// Generate makes a new random key of 32 bytes.
func Generate() Key {
	secret := make([]byte, generatedSize)
	_, _ = rand.Read(secret) // never fails: crypto/rand ends the process instead
	return Key{string(secret)}
}

// Parse reads the base64 of 16, 24 or 32 bytes (RFC 4648 section 4). Its error
// matches [ErrBadKey] and shows nothing of the text.
func Parse(text string) (Key, error) {
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return Key{}, fmt.Errorf("%w: want base64 as `srsx keygen` prints it", ErrBadKey)
	}
	if err := memberlist.ValidateKey(secret); err != nil {
		return Key{}, fmt.Errorf("%w: it has %d bytes; want 16, 24 or 32", ErrBadKey, len(secret))
	}
	return Key{string(secret)}, nil
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.secret == "" }

// Encode returns the key itself in base64, for a file or for its owner.
func (k Key) Encode() string { return base64.StdEncoding.EncodeToString([]byte(k.secret)) }

// Fingerprint returns the name of the key; empty for no key.
func (k Key) Fingerprint() Fingerprint {
	if k.IsZero() {
		return ""
	}
	return Fingerprint(hex.EncodeToString(k.derive(fingerprintLabel)[:fingerprintSize]))
}

// Format implements fmt.Formatter for every verb.
func (k Key) Format(w fmt.State, _ rune) { _, _ = io.WriteString(w, "key "+string(k.Fingerprint())) }

// derive returns 32 bytes for one use of the key (HKDF-SHA256, RFC 5869), so
// that what one protocol gives away is worth nothing to another.
func (k Key) derive(label string) []byte {
	derived, err := hkdf.Key(sha256.New, []byte(k.secret), nil, label, derivedSize)
	if err != nil {
		// Only a length beyond 255 hashes or a secret below 14 bytes (FIPS mode)
		// can get here, and Parse refuses the latter.
		panic(err)
	}
	return derived
}
