package memlb_test

import (
	"testing"

	"go.uber.org/goleak"

	"srsx/lb"
	"srsx/lb/lbtest"
	"srsx/lb/memlb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestContract(t *testing.T) {
	lbtest.Run(t, func(*testing.T) lb.Balancer { return memlb.New(memlb.Config{Peer: "p"}) })
}
