package rpc

import (
	"errors"
	"fmt"
)

// What an error of Call says about the request. Every error of Call matches
// exactly one of these, or is a [CallError] by the handler, which has run.
var (
	// ErrNotExecuted means that no handler has seen the request, nor ever will:
	// it is safe to ask again, here or elsewhere.
	ErrNotExecuted = errors.New("request was not executed")
	// ErrUnknownOutcome means that the request was sent and no answer came: it
	// may have been executed, may be at this moment, or never. Only what is safe
	// to repeat may be asked again.
	ErrUnknownOutcome = errors.New("request may or may not have been executed")
)

var (
	errClosed    = errors.New("exchange is closed")
	errLinkEnded = errors.New("connection ended")
)

// Code tells errors apart across the wire. Those below [FirstCode] are the
// exchange's own.
type Code uint16

// The codes of the exchange. Numbers never change.
const (
	CodeFailed      Code = 1  // a handler's error without a code
	CodeUnknownKind Code = 2  // nobody handles the kind; not executed
	CodeBusy        Code = 3  // too much open for this peer; not executed
	FirstCode       Code = 16 // and above: the application's
)

// CallError is the answer of a handler, or of the exchange in its place, that
// has no reply to give. A handler that returns one sends its code; any other
// error is sent as [CodeFailed] with its text.
type CallError struct {
	Code Code
	Text string // up to 4 KB
}

func (e *CallError) Error() string {
	switch e.Code {
	case CodeFailed:
		return e.Text
	case CodeUnknownKind:
		return "peer does not know this kind of request"
	case CodeBusy:
		return "peer is busy with other requests of ours"
	default:
		return fmt.Sprintf("%s (code %d)", e.Text, e.Code)
	}
}

// Is reports whether the code says that nothing was executed.
func (e *CallError) Is(target error) bool {
	return target == ErrNotExecuted && (e.Code == CodeUnknownKind || e.Code == CodeBusy)
}

// asCallError returns err as it travels.
func asCallError(err error) *CallError {
	if e := (*CallError)(nil); errors.As(err, &e) {
		return e
	}
	return &CallError{Code: CodeFailed, Text: err.Error()}
}

func endedBy(why error) error { return fmt.Errorf("%w: %w", errLinkEnded, why) }

func notExecuted(why error) error { return fmt.Errorf("%w: %w", ErrNotExecuted, why) }

func unknownOutcome(why error) error { return fmt.Errorf("%w: %w", ErrUnknownOutcome, why) }
