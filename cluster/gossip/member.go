package gossip

import (
	"net/netip"
	"time"
)

// State is what is known of a member's presence.
type State uint8

// States of a [Member].
const (
	Alive  State = iota + 1
	Failed       // silent, and a member still: it may come back, at any address
	Left         // left for good, or was declared gone by [Gossip.ForceLeave]
)

// String returns the state as `srsx members` shows it.
func (s State) String() string {
	switch s {
	case Alive:
		return "alive"
	case Failed:
		return "failed"
	case Left:
		return "left"
	default:
		return "unknown"
	}
}

// MarshalText writes the state as [State.String] does.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote; anything else is the zero State.
func (s *State) UnmarshalText(text []byte) error {
	*s = 0
	for _, known := range []State{Alive, Failed, Left} {
		if known.String() == string(text) {
			*s = known
		}
	}
	return nil
}

// Member is one peer as this one sees it. Members are values: they do not change
// after they were handed out.
type Member struct {
	Meta
	Gossip netip.AddrPort `json:"gossip"` // where its gossip was last reached
	State  State          `json:"state"`
	Since  time.Time      `json:"since"` // when it came to State, by the clock here
}

// EventKind says what happened to a member.
type EventKind uint8

// Kinds of an [Event].
const (
	Joined    EventKind = iota + 1 // alive, and was not before
	Updated                        // says something else of itself; a restart shows as another Epoch
	HasFailed                      // silent
	HasLeft                        // gone for good
)

// String returns the kind for the log.
func (k EventKind) String() string {
	switch k {
	case Joined:
		return "joined"
	case Updated:
		return "updated"
	case HasFailed:
		return "failed"
	case HasLeft:
		return "left"
	default:
		return "unknown"
	}
}

// Event is a change of one member. A change of address is a Joined or Updated
// whose Was has other addresses.
type Event struct {
	Kind   EventKind
	Member Member
	Was    Member // as known before; the zero Member when it was not
}

// Moved reports whether the member is reached at other addresses than before.
func (e Event) Moved() bool {
	return e.Was.ID != "" && (e.Was.Gossip != e.Member.Gossip || e.Was.ClusterAddr != e.Member.ClusterAddr)
}
