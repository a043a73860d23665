package proxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A stream that is relayed through peers carries the names of those it passed,
// so that a ring of peers is noticed instead of feeding itself.
const (
	HopHeader   = "X-Srsx-Hop" // of an HTTP request
	HopProperty = "srsxHop"    // of an RTMP connect's command object

	maxHops    = 8
	maxHopMark = 1024 // bytes: 8 host names
)

// ErrLoop refuses a request that has already been here, or at too many peers.
var ErrLoop = errors.New("relay loop")

// CheckHops reads a hop mark as received, names of peers separated by commas,
// and returns [ErrLoop] when self is among them or when they are too many. An
// empty mark is a client's own request.
func CheckHops(mark, self string) error {
	if len(mark) > maxHopMark {
		return fmt.Errorf("%w: mark of %d bytes", ErrLoop, len(mark))
	}
	hops := splitHops(mark)
	if len(hops) > maxHops {
		return fmt.Errorf("%w: more than %d peers passed", ErrLoop, maxHops)
	}
	if slices.Contains(hops, self) {
		return fmt.Errorf("%w: back at %s", ErrLoop, self)
	}
	return nil
}

// AppendHop returns the mark to send on: the received one and self.
func AppendHop(mark, self string) string {
	return strings.Join(append(splitHops(mark), self), ",")
}

func splitHops(mark string) []string {
	hops := strings.Split(mark, ",")
	for i := range hops {
		hops[i] = strings.TrimSpace(hops[i])
	}
	return slices.DeleteFunc(hops, func(hop string) bool { return hop == "" })
}
