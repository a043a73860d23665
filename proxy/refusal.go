package proxy

import (
	"context"
	"errors"
	"net/http"

	"srsx/lb"
)

// Errors of a session's way to its origin.
var (
	// ErrUnreachable means that the stream's origin could not be connected to
	// within the place timeout.
	ErrUnreachable = errors.New("origin unreachable")
	// ErrNotServed means that the stream's origin has no endpoint for the
	// protocol asked for.
	ErrNotServed = errors.New("origin does not serve the protocol")
)

// LimitError says which admission limit refused a client. It matches
// lb.ErrLimit.
type LimitError struct {
	Limit string // for logs, metrics and the client: "sessions", "rate of new streams per address", ...
}

// Error names the limit.
func (e *LimitError) Error() string { return "limit reached: " + e.Limit }

// Unwrap makes errors.Is(err, lb.ErrLimit) true.
func (e *LimitError) Unwrap() error { return lb.ErrLimit }

// RefusalOf puts an error of [Opener.Open], of [Session] or of an Identify
// function into terms that each protocol can translate. The reason is made of
// fixed words, so that no address of an origin and no secret gets out.
func RefusalOf(err error) Refusal {
	if limit := (*LimitError)(nil); errors.As(err, &limit) {
		return Refusal{Status: http.StatusTooManyRequests, Retryable: true, Reason: limit.Error()}
	}
	for _, known := range refusals() {
		if errors.Is(err, known.err) {
			known.Reason = known.err.Error()
			return known.Refusal
		}
	}
	return Refusal{Status: http.StatusBadGateway, Retryable: true, Reason: "origin failed"}
}

type refusal struct {
	err error
	Refusal
}

// refusals is ordered: an error may wrap several, and the first is the one
// that tells the client most.
func refusals() []refusal {
	unavailable := Refusal{Status: http.StatusServiceUnavailable, Retryable: true}
	return []refusal{
		{ErrStreamName, Refusal{Status: http.StatusNotFound}},
		{ErrLoop, Refusal{Status: http.StatusLoopDetected}},
		{ErrShutdown, unavailable},
		{ErrMoved, unavailable},
		{ErrForgotten, unavailable},
		{ErrDrained, unavailable},
		{ErrRemoved, unavailable},
		{ErrKicked, unavailable},
		{ErrSlow, unavailable},
		{ErrNotServed, Refusal{Status: http.StatusBadGateway}},
		{lb.ErrUndecided, unavailable},
		{lb.ErrNoOrigin, unavailable},
		{lb.ErrLimit, unavailable},
		{lb.ErrNotFound, Refusal{Status: http.StatusNotFound, Retryable: true}},
		{lb.ErrConflict, unavailable},
		{lb.ErrClosed, unavailable},
		{ErrUnreachable, Refusal{Status: http.StatusBadGateway, Retryable: true}},
		{context.DeadlineExceeded, unavailable},
		{context.Canceled, unavailable},
	}
}
