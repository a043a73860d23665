package port

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Why a connection was refused, at either end: both get an error that matches
// the same of these and says in its text what differed.
var (
	// ErrOtherCluster means that name or UUID of the cluster differ.
	ErrOtherCluster = errors.New("peer is of another cluster")
	// ErrUntrusted means another key or certificate, or none on one side.
	ErrUntrusted = errors.New("peer is not trusted")
	// ErrIncompatible means that the versions have no common protocol.
	ErrIncompatible = errors.New("peer speaks another version of the cluster port")
	// ErrWrongNode means that the peer has another node id than was dialed, or
	// our own.
	ErrWrongNode = errors.New("peer is another node than it should be")
	// ErrFenced means that one side has fenced raft off.
	ErrFenced = errors.New("raft is fenced off")
	// ErrUnserved means that nothing takes connections of this kind there, yet
	// or any more.
	ErrUnserved = errors.New("no service for this kind of connection")
	// ErrTooMany means that a limit of connections is reached.
	ErrTooMany = errors.New("too many connections")
)

// refusalCode stands for one of the errors above in a message. The numbers
// never change.
type refusalCode byte

const goOn refusalCode = 0

const maxRefusalText = 300 // bytes

// reasons are in the order of their codes, from 1.
func reasons() []error {
	return []error{ErrOtherCluster, ErrUntrusted, ErrIncompatible, ErrWrongNode, ErrFenced, ErrUnserved, ErrTooMany}
}

// refusal is a reason that is told to the other side.
type refusal struct {
	reason error
	detail string
	remote bool // it came from the other side
}

func refuse(reason error, format string, args ...any) *refusal {
	return &refusal{reason: reason, detail: fmt.Sprintf(format, args...)}
}

func (r *refusal) Error() string {
	text := r.reason.Error()
	if r.remote {
		text = "refused by the peer: " + text
	}
	if r.detail != "" {
		text += ": " + r.detail
	}
	return text
}

func (r *refusal) Unwrap() error { return r.reason }

// message returns code and body that tell the other side.
func (r *refusal) message() (refusalCode, []byte) {
	detail := r.detail
	if len(detail) > maxRefusalText {
		detail = detail[:maxRefusalText]
	}
	for i, reason := range reasons() {
		if errors.Is(r.reason, reason) {
			return refusalCode(i + 1), []byte(detail)
		}
	}
	return refusalCode(len(reasons()) + 1), []byte(detail)
}

// refusalOf is the inverse. The peer may be anybody: its text is cleaned of
// what could forge a log line.
func refusalOf(code refusalCode, text []byte) *refusal {
	r := &refusal{reason: fmt.Errorf("reason %d, unknown to this version", code), remote: true}
	if i := int(code) - 1; i >= 0 && i < len(reasons()) {
		r.reason = reasons()[i]
	}
	if len(text) > maxRefusalText {
		text = text[:maxRefusalText]
	}
	r.detail = strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return -1
	}, strings.ToValidUTF8(string(text), ""))
	return r
}
