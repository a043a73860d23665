package peer

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"srsx/fsm"
)

var update = flag.Bool("update", false, "keep what this version writes as test data")

// kept holds the data directory of a peer of each version, as it was stopped, and
// in the file state what it knew.
const kept = "testdata"

// What a release has written each later one reads.
func TestDataOfEarlierVersionsIsRead(t *testing.T) {
	if *update {
		keep(t, filepath.Join(kept, fmt.Sprintf("v%d", fsm.BatchVersion)))
	}
	versions, err := filepath.Glob(filepath.Join(kept, "v*"))
	if err != nil || len(versions) < fsm.BatchVersion {
		t.Fatalf("data of %d versions, %v; want that of version %d and those before", len(versions), err, fsm.BatchVersion)
	}
	for _, version := range versions {
		want, err := os.ReadFile(filepath.Join(version, "state"))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "data")
		if err = os.CopyFS(path, os.DirFS(filepath.Join(version, "data"))); err != nil {
			t.Fatal(err)
		}
		p := start(t, "a", func(c *Config) { c.Dir = dataDir(t, path) })
		eventually(t, "it leads with the data of "+version, func() bool { return p.keeper.Load() != nil })
		if got := p.describe(); got != string(want) {
			t.Errorf("%s: state is\n%s\nwant\n%s", version, got, want)
		}
		place(t, p, "new")
	}
}

// keep runs a peer through a snapshot and commands after it, and copies what it
// leaves on disk.
func keep(t *testing.T, to string) {
	t.Helper()
	from := t.TempDir()
	p := start(t, "a", func(c *Config) { c.Expect, c.Dir = 1, dataDir(t, from) })
	eventually(t, "it has a name", func() bool { return p.clusterID() != "" })
	for _, name := range []string{"in the snapshot", "released", "moved", "forgotten"} {
		place(t, p, name)
	}
	if err := p.SnapshotNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	place(t, p, "in the log")
	var released fsm.Placement
	p.View(func(s *fsm.State) { released, _ = s.Placement(stream("released")) })
	other := fsm.Incarnation{Server: "s2", Service: "1"}
	if _, err := p.Propose(t.Context(),
		fsm.PutOrigin{Origin: fsm.Origin{ID: "o2", Incarnation: other, IP: "10.0.0.2", Weight: 50}},
		fsm.Release{Stream: released.Stream, Generation: released.Generation, Holder: fsm.Holder{Peer: p.id, Epoch: 1}},
		fsm.Move{Stream: stream("moved"), To: "o2", Incarnation: other},
		fsm.Forget{Stream: stream("forgotten")},
	); err != nil {
		t.Fatal(err)
	}
	state := p.describe()
	p.shutDown(t)
	for _, old := range []string{"lock", "peers"} {
		_ = os.Remove(filepath.Join(from, old))
	}
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(to, "data"), os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, "state"), []byte(state), 0o600); err != nil {
		t.Fatal(err)
	}
}

// describe puts what a peer knows into lines.
func (r *running) describe() string {
	var lines []string
	r.View(func(s *fsm.State) {
		c, _ := s.Cluster()
		lines = append(lines, fmt.Sprintf("cluster %s secret %x", c.ID, c.Secret))
		for _, o := range s.Origins() {
			lines = append(lines, fmt.Sprintf("origin %s of %v at %s weight %d is %s since %v", o.ID, o.Incarnation, o.IP, o.Weight, o.State, o.UpSince))
		}
		for p := range s.Placements() {
			lines = append(lines, fmt.Sprintf("placement %s on %s generation %d publishing %t holders %v idle %t",
				p.Stream, p.Origin, p.Generation, p.Publishing, p.Holders, !p.IdleSince.IsZero()))
		}
	})
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}
