package peertest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Shell runs lines of a shell in a folder, where srsx is the built binary, and
// returns what they print. The first one that fails ends the test.
func Shell(tb testing.TB, dir, lines string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-e", "-c", lines)
	cmd.Dir = dir
	cmd.Env = append(environment(), "PATH="+filepath.Dir(binary)+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil {
		tb.Fatalf("%s\n%v:\n%s", lines, err, out)
	}
	return string(out)
}
