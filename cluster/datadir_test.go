package cluster_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"srsx/cluster"
)

func open(t *testing.T, path string) *cluster.DataDir {
	t.Helper()
	d, err := cluster.OpenDataDir(path)
	if err != nil {
		t.Fatalf("OpenDataDir(%s): %v", path, err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestIdentityOutlivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	first := open(t, path)
	id := first.NodeID()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if got := open(t, path).NodeID(); got != id {
		t.Errorf("NodeID after restart = %s; want %s", got, id)
	}
}

func TestTwoPeersDoNotShareADirectory(t *testing.T) {
	path := t.TempDir()
	open(t, path)
	if _, err := cluster.OpenDataDir(path); !errors.Is(err, cluster.ErrLocked) {
		t.Errorf("second OpenDataDir = %v; want ErrLocked", err)
	}
}

func TestDamagedIdentityIsNeverReplaced(t *testing.T) {
	path := t.TempDir()
	for _, damaged := range []string{"", "not-a-uuid\n"} {
		file := filepath.Join(path, "node-id")
		if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := cluster.OpenDataDir(path)
		if err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("OpenDataDir with node id %q = %v; want an error naming the file", damaged, err)
		}
		if kept, _ := os.ReadFile(file); string(kept) != damaged {
			t.Errorf("node id became %q; want it untouched", kept)
		}
	}
}

func TestDirectoryIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	open(t, path)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o700 {
		t.Errorf("mode = %o; want 700", mode)
	}
}
