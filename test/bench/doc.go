// Package bench measures the figures of a cluster: three peers in processes of
// their own on this machine, with durable logs, beside the plain design in the
// same run. `make bench` prints them as one table; `go test` alone measures
// nothing. What a datagram of media costs is measured at one peer, beside relays
// that know no protocol.
//
// A process is this test binary, run again with a role. It does the measuring
// within itself and is driven over its standard input and output, so that what
// is measured is the cluster and not the drive.
package bench
