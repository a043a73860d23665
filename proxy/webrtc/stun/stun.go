// Package stun reads STUN messages (RFC 8489) as ICE uses them (RFC 8445), in
// place and without allocation: what it is given comes from strangers, a
// thousand times a second.
package stun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

const (
	headerSize = 20
	cookie     = 0x2112A442

	methodBinding = 0x0001

	attrUsername     = 0x0006
	attrIntegrity    = 0x0008
	attrUseCandidate = 0x0025
	attrFingerprint  = 0x8028

	integritySize   = 20
	fingerprintSize = 4
	fingerprintXOR  = 0x5354554e
	maxUsername     = 513 // bytes, RFC 8489 section 14.3
)

// Why a datagram is no STUN message, or none that ICE may use.
var (
	ErrShort       = errors.New("shorter than its header says")
	ErrHeader      = errors.New("no STUN header")
	ErrAttribute   = errors.New("attribute beyond the end")
	ErrFingerprint = errors.New("fingerprint missing or wrong")
)

// Class is what a message is for.
type Class uint8

// The classes of RFC 8489 section 5.
const (
	Request Class = iota
	Indication
	Success
	Failure
)

// TransactionID pairs a response with its request.
type TransactionID [12]byte

// Message is a view of a message: its slices are those of the datagram.
type Message struct {
	Class       Class
	Binding     bool // of the only method that ICE has
	Transaction TransactionID

	// What follows is filled in only where it stands before MESSAGE-INTEGRITY,
	// which does not cover what comes after it.
	Username     []byte
	UseCandidate bool

	raw         []byte
	integrityAt int // where the attribute starts; 0: there is none
}

// Is reports whether a datagram on a port that carries DTLS and RTP as well is
// meant to be STUN (RFC 7983).
func Is(b []byte) bool {
	return len(b) >= headerSize && b[0] < 4 && binary.BigEndian.Uint32(b[4:]) == cookie
}

// Parse reads a whole datagram. A message of the binding method needs a right
// FINGERPRINT, as its last attribute, if it is a request (RFC 8445 section 7.1).
func Parse(b []byte) (Message, error) {
	if !Is(b) {
		return Message{}, ErrHeader
	}
	kind, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
	if length%4 != 0 || len(b) != headerSize+length {
		return Message{}, ErrShort
	}
	m := Message{
		Class:       Class(kind>>7&2 | kind>>4&1),
		Binding:     kind&0x3eef == methodBinding,
		Transaction: TransactionID(b[8:headerSize]),
		raw:         b,
	}
	hasFingerprint, err := m.readAttributes()
	if err == nil && m.Class == Request && !hasFingerprint {
		err = ErrFingerprint
	}
	return m, err
}

// readAttributes walks over the attributes. A FINGERPRINT is the last one.
func (m *Message) readAttributes() (hasFingerprint bool, err error) {
	b := m.raw
	for at := headerSize; at < len(b); {
		if hasFingerprint || len(b)-at < 4 {
			return false, ErrAttribute
		}
		kind, size := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		next := at + 4 + (size+3)&^3
		if next > len(b) {
			return false, ErrAttribute
		}
		value := b[at+4 : at+4+size]
		switch {
		case kind == attrFingerprint:
			if hasFingerprint = isFingerprint(b[:at], value); !hasFingerprint {
				return false, ErrFingerprint
			}
		case m.integrityAt != 0: // nothing vouches for it
		case kind == attrUsername:
			if size > maxUsername {
				return false, ErrAttribute
			}
			m.Username = value
		case kind == attrUseCandidate:
			m.UseCandidate = true
		case kind == attrIntegrity:
			if size != integritySize {
				return false, ErrAttribute
			}
			m.integrityAt = at
		default:
		}
		at = next
	}
	return hasFingerprint, nil
}

// isFingerprint checks the CRC over all that comes before the attribute; the
// length in the header covers it already.
func isFingerprint(before, value []byte) bool {
	return len(value) == fingerprintSize &&
		binary.BigEndian.Uint32(value) == crc32.ChecksumIEEE(before)^fingerprintXOR
}

// Halves splits the user name of a request that a client sends: the server's
// ufrag, then the client's own.
func (m *Message) Halves() (server, client []byte, ok bool) {
	return bytes.Cut(m.Username, []byte{':'})
}

// HasIntegrity reports whether there is a MESSAGE-INTEGRITY to verify.
func (m *Message) HasIntegrity() bool { return m.integrityAt != 0 }
