package clustertest

import (
	"errors"
	"io"
	"path/filepath"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
)

// disk is what a peer keeps over restarts.
type disk struct {
	logs      raft.LogStore
	stable    raft.StableStore
	snapshots raft.SnapshotStore
	closers   []io.Closer
}

func openDisk(dir string) (*disk, error) {
	bolt, err := raftboltdb.New(raftboltdb.Options{
		Path: filepath.Join(dir, "raft.db"), BoltOptions: &bbolt.Options{NoFreelistSync: true},
	})
	if err != nil {
		return nil, err
	}
	cache, err := raft.NewLogCache(1024, bolt)
	if err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStore(dir, 2, io.Discard)
	if err != nil {
		return nil, err
	}
	return &disk{logs: cache, stable: bolt, snapshots: snapshots, closers: []io.Closer{bolt}}, nil
}

func (d *disk) close() error {
	var errs error
	for _, c := range d.closers {
		errs = errors.Join(errs, c.Close())
	}
	return errs
}
