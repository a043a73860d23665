// Package clustertest runs clusters of nodes in one process: on a network in
// memory that can be cut, and on disks that outlive a restart.
package clustertest
