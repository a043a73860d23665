package e2e

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"srsx/test/peertest"
)

// key is one of `keyring list`.
type key struct {
	Fingerprint           string
	Primary, Peers, Total int
}

func keysOf(t *testing.T, p *peertest.Peer) []key {
	t.Helper()
	var answer struct{ Data struct{ Keys []key } }
	status, body := p.Call(t, http.MethodGet, "/api/v1/keyring", nil)
	if status != http.StatusOK {
		t.Fatalf("keyring = %d %s", status, body)
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Data.Keys
}

// The key is rotated by the commands of the docs while streams flow and one peer
// is away. That one comes back as the docs say.
func TestKeyIsRotatedByTheCommandsOfTheDocs(t *testing.T) {
	blocks := docCommands(t, "### Rotate the key")
	if len(blocks) != 3 {
		t.Fatalf("%d blocks of commands; want install, use and remove", len(blocks))
	}
	f := startFleet(t, 3, "-encrypt", clusterKey)
	register(t, f, "o1")
	away := f.peers[2]
	away.Signal(t, syscall.SIGTERM)
	requireEnd(t, away)
	f.peers = f.peers[:2]
	for _, p := range f.peers {
		peertest.Eventually(t, 60*time.Second, p.Node+" sees that "+away.Node+" is away", func() bool {
			return membersAt(t, p)[away.Node].State != "alive"
		})
	}
	viewers := f.flow(t)

	dir := t.TempDir()
	at := func(p *peertest.Peer, block, fingerprint string) {
		t.Helper()
		peertest.Shell(t, dir, "export SRSX_ADDR=http://"+p.System+"\n"+strings.ReplaceAll(block, "FINGERPRINT", fingerprint))
	}
	old := keysOf(t, f.peers[0])
	if len(old) != 1 || old[0].Primary != 2 {
		t.Fatalf("keys before = %+v; want the first of both peers", old)
	}
	at(f.peers[0], blocks[0], "")
	both := keysOf(t, f.peers[1])
	if len(both) != 2 || both[0].Fingerprint != old[0].Fingerprint || both[1].Primary != 0 || both[1].Peers != 2 || both[1].Total != 2 {
		t.Fatalf("keys once installed = %+v; want the old one in use and the new one at both peers", both)
	}
	at(f.peers[1], blocks[1], both[1].Fingerprint)
	at(f.peers[0], blocks[2], old[0].Fingerprint)
	if last := keysOf(t, f.peers[1]); len(last) != 1 || last[0].Fingerprint != both[1].Fingerprint || last[0].Primary != 2 {
		t.Errorf("keys at the end = %+v; want the new one alone", last)
	}
	requireWhole(t, viewers, 10)

	f.peers = append(f.peers, away)
	f.againUnready(t, 2)
	late := f.peers[2]
	awaitLine(t, late, "peer not accepted", "key")
	late.Signal(t, syscall.SIGTERM)
	requireEnd(t, late)
	if err := os.Remove(filepath.Join(late.DataDir, "keyring")); err != nil {
		t.Fatal(err)
	}
	f.flags = append(f.flags, "-encrypt", "@"+filepath.Join(dir, "next.key"))
	f.again(t, 2)
	f.awaitMembers(t, 3)
	peertest.Eventually(t, 30*time.Second, "all three use the new key", func() bool {
		keys := keysOf(t, f.peers[2])
		return len(keys) == 1 && keys[0].Fingerprint == both[1].Fingerprint && keys[0].Primary == 3
	})
	requireWhole(t, viewers, 20)
}
