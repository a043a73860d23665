// Package cluster is one peer's part in what the cluster agrees on: its identity,
// which outlives restarts and changes of address, and [Node], which proposes,
// applies and answers. How the peers find and reach each other is in the packages
// below it; cluster/peer puts all of it together.
package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"srsx/cluster/durable"
)

// ErrLocked means that another process uses the data directory. Two peers with
// one identity would vote twice and overwrite each other's log.
var ErrLocked = errors.New("data directory is used by another process")

const (
	lockFile   = "lock"
	nodeIDFile = "node-id"
)

// DataDir is the directory in which a peer keeps what must outlive a restart.
// It is locked from OpenDataDir until Close, or the end of the process.
type DataDir struct {
	path   string
	nodeID string
	lock   *os.File
}

// OpenDataDir creates path where it does not exist (mode 0700), locks it and
// reads the peer's identity, made now on the first start. It returns an error
// matching [ErrLocked] when another process has the directory.
func OpenDataDir(path string) (*DataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of data directory: %w", err)
	}
	d := &DataDir{path: path, lock: lock}
	if err = lockExclusively(lock); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if d.nodeID, err = readOrMakeNodeID(path); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return d, nil
}

// NodeID returns the UUID of this peer, the same after every restart.
func (d *DataDir) NodeID() string { return d.nodeID }

// Path returns where a file of the given name lives in the directory.
func (d *DataDir) Path(name string) string { return filepath.Join(d.path, name) }

// Close gives up the lock.
func (d *DataDir) Close() error { return d.lock.Close() }

func readOrMakeNodeID(dir string) (string, error) {
	path := filepath.Join(dir, nodeIDFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeNodeID(path)
	}
	if err != nil {
		return "", fmt.Errorf("read node id: %w", err)
	}
	id, err := uuid.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return "", fmt.Errorf("node id in %s: %w; restore the file, or remove the directory to join as a new peer", path, err)
	}
	return id.String(), nil
}

// makeNodeID writes a new identity so that a crash leaves either none or all of
// it: the peers count on it never to change once it was told to any of them.
func makeNodeID(path string) (string, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return "", fmt.Errorf("make node id: %w", err)
	}
	if err := durable.WriteFile(path, []byte(id.String()+"\n")); err != nil {
		return "", fmt.Errorf("keep node id: %w", err)
	}
	return id.String(), nil
}
