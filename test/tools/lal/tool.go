//go:build tools

// Package lal names the program that test/tools/install.sh builds, so that
// `go mod tidy` keeps its requirement.
package lal

import _ "github.com/q191201771/lal/app/lalserver"
