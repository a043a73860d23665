package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"srsx/test/peertest"
)

// The sequences of docs/operations, "When peers are lost", as they stand there.

// more starts a peer that joins those that run.
func (f *fleet) more(t *testing.T, name string) *peertest.Peer {
	t.Helper()
	var seeds []string
	for _, p := range f.peers {
		seeds = append(seeds, p.Gossip)
	}
	p := peertest.Start(t, peertest.Options{
		Node: name, Flags: []string{"-retry-join", strings.Join(seeds, ","), "-raft-multiplier", "2"},
	})
	f.peers = append(f.peers, p)
	return p
}

// drop forgets a peer that has ended.
func (f *fleet) drop(i int) { f.peers = append(f.peers[:i:i], f.peers[i+1:]...) }

// must runs a command of the CLI at a peer, which succeeds.
func must(t *testing.T, p *peertest.Peer, args ...string) string {
	t.Helper()
	out, errs, code := p.CLI(t, args...)
	if code != 0 {
		t.Fatalf("srsx %s = %d %s", strings.Join(args, " "), code, errs)
	}
	return out
}

func (f *fleet) awaitVoters(t *testing.T, n int) {
	t.Helper()
	for _, p := range f.peers {
		peertest.Eventually(t, 60*time.Second, fmt.Sprintf("%s sees %d voters", p.Node, n), func() bool {
			voters := 0
			for _, m := range membersAt(t, p) {
				if m.State == "alive" && (m.Role == "voter" || m.Role == "leader") {
					voters++
				}
			}
			return voters == n
		})
	}
}

func TestDeadPeerIsReplaced(t *testing.T) {
	f := startFleet(t, 3)
	register(t, f, "o1")
	encoder := startEncoders(t, live(f.peers[0].RTMP), "s", 1)[0]
	peertest.Eventually(t, 30*time.Second, "published", encoder.publishing)
	f.peers[2].Kill()
	must(t, f.peers[0], "force-leave", f.peers[2].Node)
	f.drop(2)
	f.more(t, "peer4")
	f.awaitMembers(t, 3)
	f.awaitVoters(t, 3)
	requireWhole(t, startViewers(t, live(f.peers[2].RTMP), "s", 1), 10)
	if list := must(t, f.peers[1], "raft", "list-peers"); strings.Contains(list, "peer3") || !strings.Contains(list, "peer4") {
		t.Errorf("raft list-peers = %s; want peer4 and no peer3", list)
	}
}

func TestMajorityIsLostForGood(t *testing.T) {
	f := startFleet(t, 3)
	register(t, f, "o1")
	encoder := startEncoders(t, live(f.peers[0].RTMP), "s", 1)[0]
	peertest.Eventually(t, 30*time.Second, "published", encoder.publishing)
	before := clusterOf(t, f.peers[0])
	last := f.peers[0]
	f.peers[1].Kill()
	f.peers[2].Kill()
	last.Signal(t, syscall.SIGTERM)
	if code := last.Code(t, 40*time.Second); code != 0 {
		t.Errorf("%s ended with %d; want 0", last.Node, code)
	}
	id, err := os.ReadFile(filepath.Join(last.DataDir, "node-id"))
	if err != nil {
		t.Fatal(err)
	}
	members := fmt.Sprintf(`[{"id": %q, "address": %q, "non_voter": false}]`, strings.TrimSpace(string(id)), last.Cluster)
	if err := os.WriteFile(filepath.Join(last.DataDir, "peers.json"), []byte(members), 0o600); err != nil {
		t.Fatal(err)
	}
	f.peers = f.peers[:1]
	f.again(t, 0)
	if after := clusterOf(t, f.peers[0]); after != before {
		t.Errorf("cluster = %s; want the same, %s", after, before)
	}
	peertest.Eventually(t, 60*time.Second, "the stream is published again", encoder.publishing)
	f.more(t, "peer4")
	f.more(t, "peer5")
	f.awaitVoters(t, 3)
	requireWhole(t, startViewers(t, live(f.peers[2].RTMP), "s", 1), 10)
}

// A backup of one cluster starts another, whose identity it leaves alone.
func TestBackupIsRestored(t *testing.T) {
	f := startFleet(t, 3)
	origins := register(t, f, "o1", "o2")
	must(t, f.peers[1], "origin", "weight", "o1", "7")
	file := filepath.Join(t.TempDir(), "backup")
	must(t, f.peers[1], "snapshot", "save", file)
	if about := must(t, f.peers[1], "snapshot", "inspect", file); !strings.Contains(about, "origins     2") {
		t.Errorf("snapshot inspect = %s; want 2 origins", about)
	}
	for _, p := range f.peers {
		p.Kill()
	}
	for _, o := range origins {
		o.Kill()
	}
	other := startFleet(t, 3)
	identity := clusterOf(t, other.peers[0])
	must(t, other.peers[other.leader(t, 0)], "snapshot", "restore", file)
	for _, p := range other.peers {
		peertest.Eventually(t, 30*time.Second, p.Node+" has what was saved", func() bool {
			known := p.Origins(t)
			return len(known) == 2 && known["o1"].Weight == 7
		})
	}
	if after := clusterOf(t, other.peers[1]); after != identity {
		t.Errorf("cluster = %s; want its own identity, %s", after, identity)
	}
}
