package lb

import (
	"context"
	"errors"
	"iter"
	"time"
)

// The errors of a [Balancer]. Match them with errors.Is.
var (
	// ErrNoOrigin means that no origin may take the stream now; the error's
	// text names the reason for each candidate. Trying again later may help.
	ErrNoOrigin = errors.New("no origin available")

	// ErrUndecided means that the backend could not decide in time: no
	// majority, or its store is out of reach. Trying again later may help.
	ErrUndecided = errors.New("placement undecided")

	// ErrNotFound means that the named origin or stream is not known.
	ErrNotFound = errors.New("not found")

	// ErrDuplicateOrigin means that a live origin already has this server id.
	ErrDuplicateOrigin = errors.New("duplicate server id")

	// ErrConflict means that the change was refused because the state it was
	// based on is gone; reading again and repeating may help.
	ErrConflict = errors.New("conflict")

	// ErrLimit means that a configured cap is reached.
	ErrLimit = errors.New("limit reached")

	// ErrClosed means that the balancer has been closed.
	ErrClosed = errors.New("balancer closed")
)

// Want is what a session asks of the balancer.
type Want struct {
	Stream   Stream
	Protocol Protocol
	Publish  bool
	// Avoid lists origins that this peer cannot reach at present. They get no
	// new stream on its behalf; a stream already placed there stays there.
	Avoid []OriginID
}

// Lease is one session's hold on a placement, from Acquire until Release.
type Lease struct {
	Placement Placement
	Origin    Origin
	// Created is true when this call made the placement, so that nobody else
	// can have relied on it yet.
	Created bool
	// Publish repeats the Want, for Release.
	Publish bool
}

// Registration is an origin's heartbeat after parsing: the identity and
// endpoints are complete, Load is set where the origin sent its summaries.
type Registration struct {
	Origin Origin // State, UpSince and DrainUntil are the balancer's to set
	Load   *Load
	// Replace allows a new incarnation to take the place of a live one at
	// once: the caller proved who it is. Else the old one must fail a probe.
	Replace bool
}

// Load is what an origin says of itself (SRS's summaries). Zero fields are
// unknown.
type Load struct {
	CPUPercent  float64
	Connections int64
	SendBytes   int64 // since the origin's start
	At          time.Time
}

// OriginStatus is an origin as this peer sees it.
type OriginStatus struct {
	Origin
	Streams  int       // placed on it
	LastSeen time.Time // last heartbeat that reached the cluster; zero: static
	Load     *Load
}

// PlacementStatus is a placement and how many sessions of this peer use it.
type PlacementStatus struct {
	Placement
	Sessions int
}

// Candidate is one origin in an explanation: chosen, scored or passed over.
type Candidate struct {
	Origin OriginID `json:"origin"`
	Score  float64  `json:"score"`            // load per weight, lowest wins
	Reason string   `json:"reason,omitempty"` // why it was passed over; empty: eligible
	Chosen bool     `json:"chosen"`
}

// Explanation says where a stream is or would be placed, and why.
type Explanation struct {
	Stream     Stream
	Placed     *Placement // nil when not placed: Candidates say where it would go
	Pool       string     // label demanded by the matching rule; empty: all origins
	Rule       string     // pattern of that rule
	Candidates []Candidate
}

// EventKind says what happened to a stream or an origin.
type EventKind string

// The kinds of events that [Balancer.Events] reports.
const (
	StreamPlaced    EventKind = "placed"
	StreamMoved     EventKind = "moved"     // by an operator: sessions on From end
	StreamReplaced  EventKind = "replaced"  // origin down or replaced: placed anew
	StreamForgotten EventKind = "forgotten" // by an operator
	StreamReleased  EventKind = "released"  // last holder gone
	StreamPublished EventKind = "published" // a publisher came
	StreamUnpublish EventKind = "unpublished"
	OriginUp        EventKind = "origin-up" // new, back, or ready again
	OriginDown      EventKind = "origin-down"
	OriginDraining  EventKind = "origin-draining"
	OriginDrained   EventKind = "origin-drained" // deadline over: its sessions end
	OriginRemoved   EventKind = "origin-removed" // its sessions end
)

// Event is one change of state, in the order of application.
type Event struct {
	At         time.Time
	Kind       EventKind
	Stream     Stream   // zero for events of an origin
	Origin     OriginID // where the stream is now, or the origin concerned
	From       OriginID // where it was: moved, replaced
	Generation uint64   // of the placement
	Reason     string
}

// Balancer finds the one origin of each stream. All methods are safe for
// concurrent use. Reads (Lookup, Origin, Origins, Placements, History) are
// local and never wait; the others may wait for a majority, until ctx ends.
type Balancer interface {
	// Acquire returns the placement of w.Stream, made now if there is none or
	// if its origin is down, and holds it for one session. The first placement
	// wins on every peer. It waits for an origin or a decision until ctx ends,
	// and then returns ErrNoOrigin or ErrUndecided. A cap: ErrLimit.
	Acquire(ctx context.Context, w Want) (Lease, error)

	// Release ends the hold of one successful Acquire. The placement goes some
	// seconds after its last holder. Release never waits and is safe to call
	// when the placement was moved or is gone.
	Release(l Lease)

	// Abandon releases l and, if nobody else holds the placement that l
	// created, undoes it: its origin could not be reached, and the stream has
	// to go elsewhere. A placement that others rely on stays.
	Abandon(ctx context.Context, l Lease) error

	// Suspect reports that a dial to an origin was refused or timed out. The
	// backend probes it and agrees on its state; Suspect does not wait.
	Suspect(id OriginID, reason error)

	// Lookup returns where s is placed, from local state, without allocation.
	Lookup(s Stream) (Placement, Origin, bool)

	// Origin returns one origin, Origins all of them ordered by id.
	Origin(id OriginID) (OriginStatus, bool)
	Origins() []OriginStatus

	// Placements yields the placements in the order of their stream's text.
	Placements() iter.Seq[PlacementStatus]

	// Register takes a heartbeat: a new origin, a new incarnation (whose old
	// placements go), or a sign of life. ErrDuplicateOrigin refuses a second
	// live incarnation, ErrLimit too many origins.
	Register(ctx context.Context, r Registration) error

	// Drain stops new streams on an origin; its sessions end at the deadline
	// (zero: never). Ready takes it back. Remove forgets the origin and its
	// placements. All return ErrNotFound for an unknown id.
	Drain(ctx context.Context, id OriginID, deadline time.Time) error
	Ready(ctx context.Context, id OriginID) error
	Remove(ctx context.Context, id OriginID) error
	SetWeight(ctx context.Context, id OriginID, weight uint32) error

	// Explain says where w.Stream is or would be placed, by the same code that
	// decides, and changes nothing.
	Explain(ctx context.Context, w Want) (Explanation, error)

	// Move places a placed stream on another origin; Forget removes its
	// placement. Both end the sessions of the old one by way of an event.
	Move(ctx context.Context, s Stream, to OriginID) error
	Forget(ctx context.Context, s Stream) error

	// History returns the last events of one stream, oldest first, as far as
	// this peer remembers.
	History(s Stream) []Event

	// Events subscribes to changes. The channel is closed by cancel, when the
	// balancer closes, or when the reader falls so far behind that events were
	// lost: then read the state again and subscribe anew.
	Events() (events <-chan Event, cancel func())

	// Decisive returns nil when new streams can be placed as far as the
	// backend goes, else the reason. Origins do not count.
	Decisive() error

	// Close releases what this peer holds and stops the backend's goroutines.
	Close() error
}
