// Package fsm is what the cluster agrees on: which origins exist, which of
// them holds each stream, and the rules by which that changes. It is a pure
// state machine: one writer, no locks, no clock, no randomness. Memory mode
// drives it directly, the cluster replicates the commands that drive it.
package fsm
