package fsm

import "time"

// Command is one change of the state. Each is safe to repeat, since whoever
// proposed it may not have learnt that it was applied. The set is closed.
type Command interface {
	apply(s *State) Result
	kind() kind
	appendTo(b []byte) []byte // its fields, after its kind
}

// Result is what a command did. Err says why it was refused; Changes lists what
// is different now, in the order in which it changed.
type Result struct {
	Err       error
	Placement Placement // of Place, Unpublish, Release and Move: as it is now
	Created   bool      // of Place: this command made the placement
	Changes   []Change
}

// ChangeKind says what happened.
type ChangeKind uint8

// What can happen to a stream, to an origin or to the cluster.
const (
	Placed ChangeKind = iota
	Replaced
	Moved
	Forgotten
	Released
	Published
	Unpublished
	Held // holders changed; of no interest outside the read index
	OriginChanged
	OriginCameUp
	OriginWentDown
	OriginDrains
	OriginDrained
	OriginRemoved
	Founded // the cluster has its name and secret
)

// Change is one difference that a command made.
type Change struct {
	Kind       ChangeKind
	Stream     Stream   // zero for changes of an origin
	Origin     OriginID // where the stream is now, or the origin concerned
	From       OriginID // where it was: Replaced, Moved
	Generation uint64
	Reason     string
}

// Apply runs the commands of one log entry in order and returns what each did.
// Index is the entry's place in the log and grows; at is the proposer's clock,
// of which milliseconds count. Time inside the machine never goes back.
func (s *State) Apply(index uint64, at time.Time, commands ...Command) []Result {
	s.index = index
	s.now = max(s.now, min(at.UnixMilli(), latest))
	s.changes = nil // the results of the entry before have it
	results := make([]Result, len(commands))
	for i, c := range commands {
		s.sequence++
		from := len(s.changes)
		results[i] = c.apply(s)
		if to := len(s.changes); to > from {
			results[i].Changes = s.changes[from:to:to]
		}
	}
	return results
}

// note adds to the changes of the command that is being applied.
func (s *State) note(c Change) { s.changes = append(s.changes, c) }

// noteStream notes what happened to a placement.
func (s *State) noteStream(kind ChangeKind, n uint32, stream Stream, reason string) {
	s.note(Change{
		Kind: kind, Stream: stream, Origin: s.homeOf(n).origin.ID,
		Generation: s.placed.records.at(n).generation, Reason: reason,
	})
}
