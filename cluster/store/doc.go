// Package store is everything between raft and the disk of one peer: its log,
// its term and vote, and its snapshots, in one directory that one process has.
//
//	raft -> commit tracking ( log cache ( watchdog ( raft-boltdb )))   raft.db
//	raft -> file snapshots                                          snapshots/
//
// # Commit tracking
//
// A peer that starts without the others has its log, but raft does not apply
// what it cannot know to be committed. So the commit index goes to disk with
// every StoreLogs, in the Extensions of the entries, at no further write or
// sync; raft calls StageCommitIndex before and GetCommitIndex at its start when
// RestoreCommittedLogs is on. What is missing afterwards is what was committed
// but not yet followed by another entry: the last batch.
//
// Two defects of raft 1.8.0 come with RestoreCommittedLogs. NewRaft hangs when it
// has too much to apply ([MaxReplay]). And it looks for the members of the
// cluster only among the entries that it has not just applied, and otherwise in
// the snapshot: it forgets every change of membership between the two, on a log
// without a snapshot all members, and after a stop of all peers nobody calls an
// election again. So the owner of raft applies what is committed by itself,
// before NewRaft, and lets raft's log store say 0; RestoreCommittedLogs stays on,
// since raft stages no commit index without it.
//
// # What is checked, and when
//
// Open reads all there is, once: 0.1 s for a log of 12,288 small entries, 0.5 to
// 1 s for one of 200 MB, twice what the settings let it grow to, half of it in
// bbolt itself. What it returns is whole. What it does not understand, it
// refuses with [ErrDamaged], the name of the file and what to do; it repairs
// nothing, and it never goes back to an older state by itself: a peer that has
// forgotten a vote or an acknowledged entry must not take part as if it had not.
//
// bbolt has checksums in its two meta pages only and trusts everything else.
// This package adds
//
//   - the structure of the file: every page in use, its elements, sizes, order
//     and owners, exactly as bbolt writes them, read before bbolt maps the file.
//     bbolt would end the process on a file cut short (SIGBUS) and on most
//     turned bits, in goroutines of its own from which nobody can recover;
//   - both meta pages: bbolt goes back one transaction when one is damaged;
//   - a CRC-32C over every entry with all its fields and its commit index,
//     checked on every read, from the cache too;
//   - a CRC-32C over term and vote together, in a record that is never absent;
//   - the sequence of entries without a gap from the snapshot on, for which the
//     store is monotonic ([Store.IsMonotonic]);
//   - that what a damaged snapshot held is in the log. Raft passes over a
//     damaged snapshot and takes the one before, and then panics on the first
//     entry that was removed since, or starts with less when the log is empty.
//     With TrailingLogs below SnapshotThreshold it always was removed; let
//     TrailingLogs be larger where the second snapshot is to be of use.
//
// Not noticed is an older version of a page in the place of a newer, because the
// disk lost a write that it had acknowledged, or because a turned bit in a page
// number points to one that is still lying about (about one in 20,000 of the bits
// tried in the tests): the log then ends earlier, or with what was replaced. Nor
// is a change to the members or the size in the description of a snapshot: raft
// puts no checksum there.
//
// Contained is the start only. When the disk fails to read a mapped page later,
// the process ends with SIGBUS, as with every mapped file; an entry that has
// changed by then is an error of GetLog, on which raft panics where it needs it.
//
// # Stalled and full disks
//
// A write that does not return blocks raft's main loop, but not its heartbeats:
// the leader stays leader and does nothing. [Options.OnStall] is told, so that
// its owner can leave the cluster. A full disk is an error of the write that
// found it full, recognisable as ENOSPC; what was stored stays, and writing goes
// on when there is room.
package store
