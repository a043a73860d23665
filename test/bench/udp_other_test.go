//go:build !linux

package bench

import "testing"

// udpRelay needs recvmmsg and /proc.
func udpRelay(b *testing.B, _ *report) { b.Skip("only on Linux") }

func serveUDPRelay(string) bool { return false }
