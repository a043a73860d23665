package gossip

import (
	"context"
	"net/netip"

	"github.com/hashicorp/memberlist"
)

// Tune lets a test hurry the timers of memberlist and stand between peers.
func (c *Config) Tune(tune func(*memberlist.Config)) { c.tune = tune }

// Lookup replaces the resolver.
func (c *Config) Lookup(lookup func(context.Context, string) ([]netip.Addr, error)) {
	c.lookup = lookup
}
