package main

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// asCommand is set where this test binary stands in for srsx itself.
const asCommand = "SRSX_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}
