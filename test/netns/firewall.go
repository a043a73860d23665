//go:build linux

package netns

import (
	"fmt"
	"strings"
	"testing"
)

// A firewall has at most one set of rules: a new one takes the place of the old
// at once, for connections that stand as for new ones.

// Cut drops all between the host and others, both ways.
func (h *Host) Cut(tb testing.TB, others ...*Host) {
	tb.Helper()
	h.filter(tb, "ip saddr %s drop", "ip daddr %s drop", others)
}

// Deafen drops what others send to the host. What it sends arrives.
func (h *Host) Deafen(tb testing.TB, others ...*Host) {
	tb.Helper()
	h.filter(tb, "ip saddr %s drop", "", others)
}

// Reset ends the connections between the host and others with a reset, as the
// host sees it, and answers every TCP segment between them with one, to whichever
// side has sent it; UDP passes.
func (h *Host) Reset(tb testing.TB, others ...*Host) {
	tb.Helper()
	// The reset itself comes by here as well.
	const reject = "tcp flags & rst == 0 reject with tcp reset"
	h.filter(tb, "ip saddr %s "+reject, "ip daddr %s "+reject, others)
	for _, o := range others {
		configure(tb, o.space, "ss", "--tcp", "--kill", "dst", h.ip)
	}
}

// Heal lets everything pass again.
func (h *Host) Heal(tb testing.TB) {
	tb.Helper()
	h.filter(tb, "", "", nil)
}

func (h *Host) filter(tb testing.TB, in, out string, others []*Host) {
	tb.Helper()
	const anew = "table inet cut\ndelete table inet cut\n" // the first line for the second not to fail
	rules := &strings.Builder{}
	rules.WriteString(anew)
	if len(others) > 0 {
		addresses := make([]string, len(others))
		for i, o := range others {
			addresses[i] = o.ip
		}
		set := "{ " + strings.Join(addresses, ", ") + " }"
		fmt.Fprintf(rules, "table inet cut {\n%s%s}\n", chain("input", in, set), chain("output", out, set))
	}
	if printed, err := run(h.space, rules.String(), "nft", "-f", "-"); err != nil {
		tb.Fatalf("nft: %v: %s\n%s", err, printed, rules)
	}
}

func chain(hook, rule, set string) string {
	if rule == "" {
		return ""
	}
	return fmt.Sprintf(" chain %s {\n  type filter hook %s priority 0\n  %s\n }\n", hook, hook, fmt.Sprintf(rule, set))
}
