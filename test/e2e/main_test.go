// Package e2e runs the real binary between real origins, encoders and players:
// lalserver and nginx-rtmp; ffmpeg, OBS and GStreamer; ffmpeg and Chromium.
// `make deps` installs them. A missing one fails, it does not skip.
package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"srsx/test/peertest"
)

func TestMain(m *testing.M) { peertest.Main(m) }

// part returns the path of a program that `make deps` installs.
func part(t *testing.T, name string) string {
	t.Helper()
	own := filepath.Join(peertest.Root(t), ".tools", "bin", name)
	if _, err := os.Stat(own); err == nil {
		return own
	}
	for _, dir := range []string{"", "/usr/sbin/", "/sbin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed: make deps", name)
	return ""
}

// artifact returns where a test leaves a file for people to look at.
func artifact(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(peertest.Root(t), "test", "artifacts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}
