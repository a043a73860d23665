package store

import (
	"errors"
	"fmt"
)

var (
	// ErrLocked means that another process uses the directory.
	ErrLocked = errors.New("in use by another process")

	// ErrDamaged means that a file does not hold what was stored in it.
	ErrDamaged = errors.New("damaged")
)

// wayOut is for the operator. Only to remove the damaged file is no way out: a
// peer that keeps its identity but forgets its vote or its newest entries can
// make the cluster lose what it has agreed on.
const wayOut = "move this peer's whole data directory away and start it anew, to join as a new peer " +
	"(then remove the old one with force-leave); where no other peer has the state, restore a saved snapshot"

func damaged(path string, why error) error {
	return fmt.Errorf("%s is %w: %w; %s", path, ErrDamaged, why, wayOut)
}
