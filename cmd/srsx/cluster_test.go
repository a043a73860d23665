package main

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKeygenMakesKeysThatEncryptTakes(t *testing.T) {
	code, key, errs := command("keygen")
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(key))
	if code != exitDone || errs != "" || err != nil || len(raw) != 32 {
		t.Fatalf("keygen = %d %q %q; want 32 bytes in base64", code, key, errs)
	}
	if code, _, errs = command("agent", "-check", "-bootstrap-expect", "3", "-encrypt", strings.TrimSpace(key)); code != exitDone {
		t.Errorf("agent -check -encrypt KEY = %d %s", code, errs)
	}
	if _, again, _ := command("keygen"); again == key {
		t.Error("keygen made the same key twice")
	}
}

func TestAPeerOfAClusterWarnsWhenItRunsAlone(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "cluster-id"), []byte("8f7c6b9e-54f4-4a1c-9d3e-0a1b2c3d4e5f\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := startPeer(t, options{flags: []string{"-data-dir", dir}})
	eventually(t, "the warning", func() bool { return strings.Contains(p.log.String(), "start it with -lb raft") })
}

func TestClusterCommandsAtAPeerThatIsAlone(t *testing.T) {
	p := startPeer(t, options{})
	for _, line := range []string{
		"join 127.0.0.1:1", "leave", "force-leave x", "raft list-peers", "raft remove-peer x", "raft transfer-leader",
		"snapshot save " + filepath.Join(t.TempDir(), "s"), "keyring list", "keyring use x",
	} {
		code, _, errs := p.cli(strings.Fields(line)...)
		requireOneLine(t, line, code, exitRefused, errs, "this peer is alone")
	}
	if code, _, errs := command("snapshot", "inspect", filepath.Join(t.TempDir(), "none")); code != exitRefused || !strings.Contains(errs, "none") {
		t.Errorf("inspect of no file = %d %s", code, errs)
	}
}
