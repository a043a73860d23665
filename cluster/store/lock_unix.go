//go:build unix

package store

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const lockRetry = 20 * time.Millisecond

// lockDir locks the directory itself until the returned file is closed or the
// process ends, so that there is no lock file to lose. It returns ErrLocked
// when another has it for longer than timeout.
func lockDir(path string, timeout time.Duration) (*os.File, error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(timeout)
	for {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		if time.Now().After(deadline) {
			err = ErrLocked
			break
		}
		time.Sleep(lockRetry)
	}
	_ = dir.Close()
	return nil, err
}
