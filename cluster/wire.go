package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The kinds of requests between peers. The numbers never change.
const (
	kindPropose   byte = 1  // commands, to the leader
	kindAsk       byte = 2  // a question of this program's, to the leader
	kindReadIndex byte = 3  // up to where a reader has to have applied, to the leader
	kindConfirm   byte = 4  // whether a term is still the latest, to each voter
	kindChange    byte = 5  // a change of membership, to the leader
	kindPosition  byte = 6  // how far a peer is
	kindDeath     byte = 7  // whether a peer saw the leader die, to each voter
	kindWitness   byte = 8  // a question of this program's that is answered by yes or no, to each voter
	kindRestore   byte = 9  // have the leader restore a backup that the asker offers
	kindBackup    byte = 10 // a part of it, to who offers it
	kindCommitted byte = 11 // up to where the log is committed, to each member
)

// ErrUnsent is what an [RPC]'s error matches when the peer cannot have seen the
// request.
var ErrUnsent = errors.New("request not sent")

// errTruncated means that a peer sent a message that no version sends.
var errTruncated = errors.New("malformed message of a peer")

// codes lists the errors that are told to other peers. The order never changes.
func codes() []error {
	return []error{
		ErrNotLeader, ErrNoLeader, ErrUnknownOutcome, ErrClosed, ErrFenced, ErrHalted, ErrMixedVersions,
		ErrUnknownMember, ErrNotFresh, ErrHasState, ErrTooLarge,
	}
}

const (
	codeNone  byte = 0
	codeOther byte = 255
)

// remoteError is an error as another peer told it.
type remoteError struct {
	matches error // may be nil
	text    string
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.matches }

// appendError appends a code and, unless err is nil, the text.
func appendError(b []byte, err error) []byte {
	if err == nil {
		return append(b, codeNone)
	}
	code := codeOther
	for i, known := range codes() {
		if errors.Is(err, known) {
			code = byte(i + 1) //nolint:gosec // a handful
			break
		}
	}
	return appendBytes(append(b, code), []byte(err.Error()))
}

func appendBytes(b, data []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(data))), data...)
}

// message takes values from the front of what a peer sent. The first that is not
// there ends it: all later ones are zero.
type message struct {
	rest   []byte
	failed bool
}

func (m *message) fail() { m.rest, m.failed = nil, true }

func (m *message) uvarint() uint64 {
	v, n := binary.Uvarint(m.rest)
	if n <= 0 {
		m.fail()
		return 0
	}
	m.rest = m.rest[n:]
	return v
}

func (m *message) octet() byte {
	if len(m.rest) == 0 {
		m.fail()
		return 0
	}
	b := m.rest[0]
	m.rest = m.rest[1:]
	return b
}

func (m *message) bytes() []byte {
	n := m.uvarint()
	if n > uint64(len(m.rest)) {
		m.fail()
		return nil
	}
	b := m.rest[:n:n]
	m.rest = m.rest[n:]
	return b
}

func (m *message) text() string { return string(m.bytes()) }

// count reads how many items follow, each of a byte at least.
func (m *message) count() int {
	n := m.uvarint()
	if n > uint64(len(m.rest)) {
		m.fail()
		return 0
	}
	return int(n) //nolint:gosec // at most the length of a slice
}

// problem reads what appendError appended.
func (m *message) problem() error {
	code := m.octet()
	if m.failed {
		return errTruncated
	}
	if code == codeNone {
		return nil
	}
	e := &remoteError{text: m.text()}
	if all := codes(); int(code) <= len(all) {
		e.matches = all[code-1]
	}
	return e
}

// end returns an error unless the message was read whole and nothing is left.
func (m *message) end() error {
	if m.failed || len(m.rest) > 0 {
		return errTruncated
	}
	return nil
}

// refusedWhole reports whether an error of a leader says that it did nothing,
// and that another leader may.
func refusedWhole(err error) bool {
	for _, e := range []error{ErrNotLeader, ErrNoLeader, ErrClosed, ErrFenced, ErrHalted, ErrUnsent} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func malformed(kind string, from string) error {
	return fmt.Errorf("%s from %s: %w", kind, from, errTruncated)
}
