package cluster

import "errors"

// Why a [Node] refused. Match them with errors.Is.
var (
	// ErrNoLeader means that no leader took the request in time. Nothing was
	// done; trying again later may help.
	ErrNoLeader = errors.New("cluster has no leader in reach")
	// ErrNotLeader means that only the leader can do this, and this peer is not
	// the leader. Nothing was done.
	ErrNotLeader = errors.New("not the leader")
	// ErrUnknownOutcome means that the request was on its way when its leader
	// was lost or the deadline passed: it may or may not have been carried out.
	ErrUnknownOutcome = errors.New("outcome unknown")
	// ErrClosed means that the node has been closed.
	ErrClosed = errors.New("node closed")
	// ErrFenced means that this peer's disk has stalled, so it takes no part
	// in consensus.
	ErrFenced = errors.New("fenced off: disk stalled")
	// ErrHalted means that this peer met a log entry which it cannot read, so
	// its state is that of the entry before.
	ErrHalted = errors.New("halted at an unreadable log entry")
	// ErrMixedVersions means that some member would not understand what was
	// proposed.
	ErrMixedVersions = errors.New("not understood by every member")
	// ErrUnknownMember means that no server of that id is part of the cluster.
	ErrUnknownMember = errors.New("not a member of the cluster")
	// ErrNotFresh means that the server is too far behind, or did not answer.
	ErrNotFresh = errors.New("server is not up to date")
	// ErrNoMajority means that no majority of the voters said yes to what they
	// were asked.
	ErrNoMajority = errors.New("no majority of the voters agrees")
	// ErrTooLarge means that a backup is larger than Config.BackupSize.
	ErrTooLarge = errors.New("backup is too large")
	// ErrHasState means that a peer with a log or a snapshot was to found a
	// cluster.
	ErrHasState = errors.New("peer has state of a cluster already")
)
