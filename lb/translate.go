package lb

import (
	"errors"
	"fmt"
	"time"

	"srsx/fsm"
)

// ErrorOf puts an error of the state machine into the words of [Balancer]. For
// backends.
func ErrorOf(err error) error {
	for from, to := range map[error]error{
		fsm.ErrUnknownOrigin: ErrNotFound,
		fsm.ErrUnknownStream: ErrNotFound,
		fsm.ErrNoCandidate:   ErrNoOrigin,
		fsm.ErrFull:          ErrLimit,
		fsm.ErrStale:         ErrConflict,
		fsm.ErrOriginDown:    ErrConflict,
		fsm.ErrDraining:      ErrConflict,
	} {
		if errors.Is(err, from) {
			return translated{as: to, err: err}
		}
	}
	return err
}

// translated is an error of the state machine that also matches one of ours.
type translated struct{ as, err error }

func (t translated) Error() string   { return t.err.Error() }
func (t translated) Unwrap() []error { return []error{t.as, t.err} }

// EventOf returns what a change of the state machine is to subscribers; ok is
// false for those of interest to nobody. For backends.
func EventOf(c fsm.Change, at time.Time) (e Event, ok bool) {
	kind, ok := kindOf(c.Kind)
	return Event{
		At: at, Kind: kind, Stream: c.Stream, Origin: c.Origin, From: c.From,
		Generation: c.Generation, Reason: c.Reason,
	}, ok
}

func kindOf(k fsm.ChangeKind) (EventKind, bool) {
	switch k {
	case fsm.Placed:
		return StreamPlaced, true
	case fsm.Replaced:
		return StreamReplaced, true
	case fsm.Moved:
		return StreamMoved, true
	case fsm.Forgotten:
		return StreamForgotten, true
	case fsm.Released:
		return StreamReleased, true
	case fsm.Published:
		return StreamPublished, true
	case fsm.Unpublished:
		return StreamUnpublish, true
	case fsm.OriginCameUp:
		return OriginUp, true
	case fsm.OriginWentDown:
		return OriginDown, true
	case fsm.OriginDrains:
		return OriginDraining, true
	case fsm.OriginDrained:
		return OriginDrained, true
	case fsm.OriginRemoved:
		return OriginRemoved, true
	case fsm.Held, fsm.OriginChanged, fsm.Founded:
		return "", false
	default:
		return EventKind(fmt.Sprintf("change(%d)", k)), true
	}
}
