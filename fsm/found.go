package fsm

import (
	"strings"
	"time"
)

// Secret is a random value that the peers of a cluster share and nobody else
// knows. Keys are derived from it. It prints as stars.
type Secret [32]byte

// String hides the secret from logs and errors.
func (Secret) String() string { return "***" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "fsm.Secret(***)" }

// Cluster is what a cluster was given when it was founded. It never changes.
type Cluster struct {
	ID     string // UUID
	Secret Secret
}

// Found names the cluster, once: the first one wins, later ones change nothing.
type Found struct {
	ID     string
	Secret Secret
}

func (c Found) apply(s *State) Result {
	if c.ID == "" || s.cluster.ID != "" {
		return Result{}
	}
	s.cluster = Cluster{ID: strings.Clone(c.ID), Secret: c.Secret}
	s.note(Change{Kind: Founded})
	return Result{}
}

// Cluster returns what the cluster was founded with; ok is false before that.
func (s *State) Cluster() (c Cluster, ok bool) { return s.cluster, s.cluster.ID != "" }

// Rename makes a state that was restored from a backup that of another cluster.
// It is not for a state that follows a log.
func (s *State) Rename(c Cluster) { s.cluster = c }

// timeOf returns the time of so many milliseconds since 1970; 0 is none.
func timeOf(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// millisOf is the inverse of timeOf.
func millisOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}
