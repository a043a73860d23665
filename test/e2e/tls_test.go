package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"srsx/cluster/pki"
	"srsx/test/peertest"
)

// clusterKey is for gossip, which certificates do not protect.
const clusterKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// docCommands returns the blocks of commands below a heading of
// docs/operations.md, so that what is written there is what is tested.
func docCommands(t *testing.T, heading string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(peertest.Root(t), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n"+heading+"\n")
	if !found {
		t.Fatalf("operations.md has no %q", heading)
	}
	if at := strings.Index(section, "\n#"); at >= 0 {
		section = section[:at]
	}
	var blocks []string
	for i, part := range strings.Split(section, "```\n") {
		if i%2 == 1 {
			blocks = append(blocks, part)
		}
	}
	return blocks
}

// certified is the environment of a peer whose three files are in dir.
func certified(dir, node string) []string {
	return []string{
		"PROXY_TLS_CA=" + filepath.Join(dir, "srsx-ca.pem"),
		"PROXY_TLS_CERT=" + filepath.Join(dir, node+".pem"),
		"PROXY_TLS_KEY=" + filepath.Join(dir, node+"-key.pem"),
	}
}

// startCertified is startFleet for three peers with their files in dir.
func startCertified(t *testing.T, dir string) *fleet {
	t.Helper()
	var ports [3]*peertest.Ports
	var seeds [3]string
	for i := range ports {
		ports[i] = peertest.FreePorts(t)
		seeds[i] = ports[i].Gossip
	}
	f := &fleet{flags: []string{
		"-bootstrap-expect", "3", "-retry-join", strings.Join(seeds[:], ","), "-raft-multiplier", "2", "-encrypt", clusterKey,
	}}
	for i := range ports {
		node := fmt.Sprintf("peer%d", i+1)
		f.peers = append(f.peers, f.start(t, peertest.Options{Node: node, Ports: ports[i], NotReady: true, Env: certified(dir, node)}))
	}
	for _, p := range f.peers {
		p.AwaitReady(t)
	}
	f.awaitMembers(t, 3)
	return f
}

// newcomer starts a peer that wants to be let in and founds nothing.
func (f *fleet) newcomer(t *testing.T, node string, env []string) *peertest.Peer {
	t.Helper()
	return peertest.Start(t, peertest.Options{
		Node: node, NotReady: true, Env: env,
		Flags: []string{"-retry-join", f.peers[0].Gossip, "-raft-multiplier", "2", "-encrypt", clusterKey},
	})
}

// flow has streams flow from each peer to the next until the test ends.
func (f *fleet) flow(t *testing.T) []*viewer {
	t.Helper()
	var viewers []*viewer
	for i, p := range f.peers {
		prefix := p.Node + "-"
		for _, e := range startEncoders(t, live(p.RTMP), prefix, 4) {
			peertest.Eventually(t, 30*time.Second, e.name+" is published", e.publishing)
		}
		viewers = append(viewers, startViewers(t, live(f.peers[(i+1)%len(f.peers)].RTMP), prefix, 4)...)
	}
	requireWhole(t, viewers, 10)
	return viewers
}

// logLines returns the lines of a peer's log that hold all texts.
func logLines(p *peertest.Peer, texts ...string) []string {
	var found []string
next:
	for line := range strings.Lines(p.Output()) {
		for _, text := range texts {
			if !strings.Contains(line, text) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

func (f *fleet) awaitLine(t *testing.T, texts ...string) {
	t.Helper()
	for _, p := range f.peers {
		awaitLine(t, p, texts...)
	}
}

func awaitLine(t *testing.T, p *peertest.Peer, texts ...string) {
	t.Helper()
	peertest.Eventually(t, 30*time.Second, fmt.Sprintf("%s logs %q", p.Node, texts), func() bool { return len(logLines(p, texts...)) > 0 })
}

// requireLetIn checks that a newcomer becomes a member and takes new streams.
func requireLetIn(t *testing.T, p *peertest.Peer) {
	t.Helper()
	p.AwaitReady(t)
	peertest.Eventually(t, 30*time.Second, p.Node+" belongs to the cluster and places streams", func() bool {
		return len(logLines(p, "belongs to cluster")) > 0 && publishOnce(t, live(p.RTMP), "late") == nil
	})
}

// requireShutOut checks that a newcomer hears why it stays out, the cluster
// logs it too, and it never gets what the cluster knows.
func (f *fleet) requireShutOut(t *testing.T, p *peertest.Peer, reason string) {
	t.Helper()
	awaitLine(t, p, "peer not accepted", reason)
	peertest.Eventually(t, 30*time.Second, "the cluster logs that "+p.Node+" is not accepted: "+reason, func() bool {
		for _, member := range f.peers {
			if len(logLines(member, "peer not accepted", p.Node, reason)) > 0 {
				return true
			}
		}
		return false
	})
	awaitLine(t, p, "waiting to be let into") // it says so every ten seconds
	if got := p.Placements(t); len(got) > 0 || len(logLines(p, "belongs to cluster")) > 0 {
		t.Errorf("%s knows %d placements; want it kept out", p.Node, len(got))
	}
}

func TestCertificatesByTheCommandsOfTheDocs(t *testing.T) {
	blocks := docCommands(t, "### Mutual TLS")
	if len(blocks) != 5 {
		t.Fatalf("%d blocks of commands; want create, renew and three steps to another CA", len(blocks))
	}
	dir := t.TempDir()
	create, renew, trustBoth, certify, trustNew := blocks[0], blocks[1], blocks[2], blocks[3], blocks[4]
	peertest.Shell(t, dir, create)
	f := startCertified(t, dir)
	register(t, f, "o1", "o2")
	viewers := f.flow(t)

	peertest.Shell(t, dir, renew)
	peertest.Eventually(t, 30*time.Second, "peer1 takes its new certificate", func() bool {
		return len(logLines(f.peers[0], "certificates in use", "peer1.srsx.srsx")) == 2
	})
	// What the folder of the old CA gives to one that comes late.
	peertest.Shell(t, dir, "mkdir old; srsx tls cert create -node late -out old; cp srsx-ca.pem old")

	peertest.Shell(t, dir, trustBoth)
	f.awaitLine(t, "certificates in use", `"ca":["srsx CA","next"]`)
	// One who trusts the new CA alone shows which certificates the others use.
	peertest.Shell(t, dir, `mkdir modern; cp next/srsx-ca.pem modern
		srsx tls cert create -ca next/srsx-ca.pem -key next/srsx-ca-key.pem -node modern -out modern`)
	modern := f.newcomer(t, "modern", certified(filepath.Join(dir, "modern"), "modern"))
	awaitLine(t, modern, "peer not accepted", "unknown authority")

	peertest.Shell(t, dir, certify)
	f.awaitLine(t, "certificates in use", `"issuer":"next","ca":["srsx CA","next"]`)
	requireLetIn(t, modern)

	peertest.Shell(t, dir, trustNew)
	f.awaitLine(t, "certificates in use", `"issuer":"next","ca":["next"]`)
	f.requireShutOut(t, f.newcomer(t, "late", certified(filepath.Join(dir, "old"), "late")), "unknown authority")
	requireWhole(t, viewers, 20)
	for _, p := range f.peers {
		if bad := logLines(p, "other peers will refuse"); len(bad) > 0 {
			t.Errorf("%s logs %s", p.Node, bad[0])
		}
	}
}

func TestPeersThatCannotBeTrustedAreShutOut(t *testing.T) {
	now := time.Now()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	// Made by hand: the command makes nothing that has expired.
	authority, err := pki.NewCA("test", now.AddDate(0, 0, -9), 99)
	if err == nil {
		err = authority.Write(in("srsx-ca.pem"), in("srsx-ca-key.pem"))
	}
	if err != nil {
		t.Fatal(err)
	}
	peertest.Shell(t, dir, "for n in peer1 peer2 peer3; do srsx tls cert create -node $n -days 30; done; mkdir other; srsx tls ca create -out other; "+
		"srsx tls cert create -ca other/srsx-ca.pem -key other/srsx-ca-key.pem -node foreign -out other")
	ca, err := pki.ReadCA(in("srsx-ca.pem"), in("srsx-ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	expired, err := ca.Issue([]string{"expired.srsx.srsx"}, now.AddDate(0, 0, -3), 2)
	if err == nil {
		err = expired.Write(in("expired.pem"), in("expired-key.pem"))
	}
	if err != nil {
		t.Fatal(err)
	}
	f := startCertified(t, dir)
	register(t, f, "o1")
	viewers := f.flow(t)

	outside := map[*peertest.Peer]string{
		f.newcomer(t, "foreign", certified(in("other"), "foreign")): "unknown authority",
		f.newcomer(t, "imposter", certified(dir, "peer2")):          "valid for peer2.srsx.srsx, not imposter.srsx.srsx",
		f.newcomer(t, "expired", certified(dir, "expired")):         "certificate has expired",
		f.newcomer(t, "plain", nil):                                 "the cluster key, and was offered the cluster key and certificates",
	}
	for p, reason := range outside {
		f.requireShutOut(t, p, reason)
	}
	for node, text := range map[string]string{"imposter": "valid for peer2", "expired": "expired"} {
		for p := range outside {
			if p.Node == node {
				awaitLine(t, p, "other peers will refuse this one", text)
			}
		}
	}
	requireWhole(t, viewers, 20)
	if status, _ := f.peers[1].Call(t, http.MethodGet, "/readyz", nil); status != http.StatusOK {
		t.Errorf("/readyz of a member = %d; want 200", status)
	}
}
