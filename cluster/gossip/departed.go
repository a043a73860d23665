package gossip

import (
	"encoding/binary"
	"errors"
	"time"
)

// departure says that a run of a peer, and every one before it, is out of the
// cluster for good: the peer left, or somebody declared it gone. Only a later
// run undoes it, so the word holds even where others still take the peer for
// alive or failed and say so again.
type departure struct {
	epoch uint64
	at    time.Time // when it was heard of here
}

const (
	departuresLayout = 1
	departureSize    = 16 + 8 // id, epoch
	// maxDepartures bounds what one exchange may carry. Departures are rare and
	// are forgotten after three days.
	maxDepartures = 1024
)

var errDepartures = errors.New("list of departed peers is malformed")

// encodeDepartures writes which runs are out: layout, then id and epoch of each.
func encodeDepartures(departed map[string]departure) []byte {
	b := []byte{departuresLayout}
	for id, d := range departed {
		if len(b) > maxDepartures*departureSize {
			break
		}
		b = appendUUID(b, id)
		b = binary.BigEndian.AppendUint64(b, d.epoch)
	}
	return b
}

// decodeDepartures returns the last run that is out, by peer id.
func decodeDepartures(b []byte) (map[string]uint64, error) {
	if len(b) == 0 || b[0] != departuresLayout || (len(b)-1)%departureSize != 0 || len(b) > 1+maxDepartures*departureSize {
		return nil, errDepartures
	}
	r := reader{left: b[1:]}
	epochs := make(map[string]uint64)
	for len(r.left) > 0 {
		id := r.uuid()
		epochs[id] = binary.BigEndian.Uint64(r.take(8))
	}
	return epochs, nil
}
