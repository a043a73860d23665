// Package durable writes the small files that a peer must find whole after a
// crash: its identity, its keys.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile replaces the file at path by data, mode 0600. When it returns nil
// the data outlive a loss of power; a crash before leaves the old file whole,
// or none where there was none.
func WriteFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already after the rename
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes the rename itself durable: a directory is a file too.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
