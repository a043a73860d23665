package e2e

import (
	"path/filepath"
	"strings"
	"testing"
)

// Every command about the cluster does the same at the leader and at a follower,
// and its exit code tells a script what has become of it: 0 done, 1 refused, 2 not
// understood.
func TestCommandsOfTheClusterAtAnyPeer(t *testing.T) {
	f := startFleet(t, 3)
	leader := f.leader(t, 0)
	var names []string
	for _, p := range f.peers {
		names = append(names, p.Node)
	}
	for where, i := range map[string]int{"leader": leader, "follower": (leader + 1) % len(f.peers)} {
		file := filepath.Join(t.TempDir(), "saved.snap")
		for _, c := range []struct {
			args []string
			code int
			says []string // all of it, on standard output, or on standard error when refused
		}{
			{[]string{"members"}, 0, append([]string{"leader", "voter", "alive"}, names...)},
			{[]string{"raft", "list-peers"}, 0, append([]string{"VOTER"}, names...)},
			{[]string{"snapshot", "save", file}, 0, nil},
			{[]string{"snapshot", "inspect", file}, 0, []string{"cluster ", "index ", "placements "}},
			{[]string{"snapshot", "restore", file}, 0, nil},
			{[]string{"snapshot", "restore", file + "-not"}, 1, []string{file + "-not", "no such file"}},
			{[]string{"keygen"}, 0, []string{"="}},
			{[]string{"keyring", "list"}, 0, []string{"FINGERPRINT"}},
			{[]string{"join", f.peers[(i+1)%len(f.peers)].Gossip}, 0, nil},
			{[]string{"join"}, 2, []string{"join needs ADDR"}},
			{[]string{"join", "127.0.0.1:99999"}, 1, []string{"127.0.0.1:99999"}},
			{[]string{"force-leave", "nobody"}, 1, []string{"nobody", "not a member"}},
			{[]string{"force-leave"}, 2, []string{"force-leave needs NODE"}},
			{[]string{"raft", "remove-peer", "nobody"}, 1, []string{"nobody", "not a member"}},
			{[]string{"raft", "remove-peer"}, 2, []string{"remove-peer needs NODE"}},
			{[]string{"origin", "list"}, 0, []string{"STREAMS"}},
			{[]string{"placement", "get", "live/nobody"}, 1, []string{"live/nobody", "not found"}},
			{[]string{"origin", "drain", "nobody"}, 1, []string{"nobody", "not known"}},
		} {
			stdout, stderr, code := f.peers[i].CLI(t, c.args...)
			said := stdout
			if code != 0 {
				said = stderr
				if lines := strings.Count(strings.TrimSpace(stderr), "\n"); lines > 0 || stdout != "" {
					t.Errorf("%v at the %s = %q, %q; want one line why", c.args, where, stdout, stderr)
				}
			}
			if code != c.code {
				t.Errorf("%v at the %s = exit code %d, %s; want %d", c.args, where, code, stderr, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(said, want) {
					t.Errorf("%v at the %s says\n%s; want %q in it", c.args, where, said, want)
				}
			}
		}
	}
	// Who leads is handed over from wherever it is asked for.
	for range 2 {
		before := f.leader(t, 0)
		if _, stderr, code := f.peers[(before+1)%len(f.peers)].CLI(t, "raft", "transfer-leader"); code != 0 {
			t.Fatalf("raft transfer-leader = %d, %s", code, stderr)
		}
		if after := f.leader(t, (before+1)%len(f.peers)); after == before {
			t.Errorf("%s leads after the transfer as before", names[before])
		}
	}
}
