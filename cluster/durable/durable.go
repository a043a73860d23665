// Package durable writes the small files that a peer must find whole after a
// crash: its identity, its keys.
package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// WriteFile replaces the file at path by data, mode 0600. When it returns nil
// the data outlive a loss of power; a crash before leaves the old file whole,
// or none where there was none.
func WriteFile(path string, data []byte) error {
	return through(path, data, 0o600, os.Rename)
}

// CreateFile is WriteFile for a file that must not be there yet: its error then
// matches [fs.ErrExist], and what is there stays as it is. It needs a file system
// that has hard links.
func CreateFile(path string, data []byte, mode fs.FileMode) error {
	return through(path, data, mode, os.Link)
}

// through writes a temporary file beside path and has place put it there.
func through(path string, data []byte, mode fs.FileMode, place func(from, to string) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".tmp-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already after a rename
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := place(tmp.Name(), path); err != nil {
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
