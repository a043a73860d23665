// Package store is everything between raft and the disk of one peer: its log,
// its term and vote, and its snapshots.
package store
