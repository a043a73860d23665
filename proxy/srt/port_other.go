//go:build !linux

package srt

import (
	"errors"
	"net"
)

// controlRoom is what packets tell beside their content: nothing.
const controlRoom = 0

// tellAddress is for systems whose way to it is known here: answers leave from
// the address that the system chooses.
func tellAddress(*net.UDPConn) error { return errors.ErrUnsupported }

func answerFrom([]byte) []byte { return nil }
