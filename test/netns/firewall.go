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

// Lose drops a share, in percent, of the UDP packets that others send to the
// host, at random.
func (h *Host) Lose(tb testing.TB, percent int) {
	tb.Helper()
	h.load(tb, chain("input", fmt.Sprintf("iifname %s meta l4proto udp numgen random mod 100 < %d counter drop", device, percent), ""))
}

// Lost returns how many packets Lose has dropped.
func (h *Host) Lost(tb testing.TB) (packets int) {
	tb.Helper()
	printed, err := run(h.space, "", "nft", "list", "table", "inet", "cut")
	if err != nil {
		tb.Fatalf("nft: %v: %s", err, printed)
	}
	_, count, found := strings.Cut(printed, "counter packets ")
	if _, err = fmt.Sscanf(count, "%d", &packets); err != nil || !found {
		tb.Fatalf("nft counts nothing: %s", printed)
	}
	return packets
}

// Heal lets everything pass again.
func (h *Host) Heal(tb testing.TB) {
	tb.Helper()
	h.filter(tb, "", "", nil)
}

func (h *Host) filter(tb testing.TB, in, out string, others []*Host) {
	tb.Helper()
	if len(others) == 0 {
		h.load(tb, "")
		return
	}
	addresses := make([]string, len(others))
	for i, o := range others {
		addresses[i] = o.ip
	}
	set := "{ " + strings.Join(addresses, ", ") + " }"
	h.load(tb, chain("input", in, set)+chain("output", out, set))
}

// load replaces the rules by chains, which may be none.
func (h *Host) load(tb testing.TB, chains string) {
	tb.Helper()
	rules := "table inet cut\ndelete table inet cut\n" // the first line for the second not to fail
	if chains != "" {
		rules += "table inet cut {\n" + chains + "}\n"
	}
	if printed, err := run(h.space, rules, "nft", "-f", "-"); err != nil {
		tb.Fatalf("nft: %v: %s\n%s", err, printed, rules)
	}
}

// chain filters by one rule, in which %s stands for a set of addresses.
func chain(hook, rule, set string) string {
	if rule == "" {
		return ""
	}
	return fmt.Sprintf(" chain %s {\n  type filter hook %s priority 0\n  %s\n }\n", hook, hook, strings.ReplaceAll(rule, "%s", set))
}
