package srt

import (
	"errors"
	"net/http"

	"srsx/proxy"
	"srsx/proxy/srt/wire"
)

// reasonOf puts the refusal of a caller into libsrt's codes.
func reasonOf(err error) wire.Reason {
	if rejected := (rejectedError{}); errors.As(err, &rejected) {
		return rejected.reason
	}
	for _, known := range []struct {
		err    error
		reason wire.Reason
	}{
		{errOld, wire.OldVersion},
		{wire.ErrHandshake, wire.Rogue},
		{wire.ErrMode, wire.BadMode},
		{wire.ErrStreamID, wire.BadRequest},
		{proxy.ErrStreamName, wire.BadRequest},
	} {
		if errors.Is(err, known.err) {
			return known.reason
		}
	}
	switch proxy.RefusalOf(err).Status {
	case http.StatusTooManyRequests:
		return wire.Overload
	case http.StatusNotFound:
		return wire.NotFound
	case http.StatusServiceUnavailable:
		return wire.Down
	default:
		return wire.BadGateway
	}
}
