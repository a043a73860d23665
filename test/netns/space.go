//go:build linux

package netns

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// space is a network namespace without a name: it lasts as long as its file, a
// socket or a process in it, so that neither a crash nor another run of the
// tests meets anything of it.
type space struct{ file *os.File }

// threadSpace is the namespace of the calling thread.
const threadSpace = "/proc/thread-self/ns/net"

func newSpace() (space, error) {
	var s space
	err := aside(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace, which takes root: %w", err)
		}
		file, err := os.Open(threadSpace)
		s.file = file
		return err
	})
	return s, err
}

// do calls f on a thread in the namespace. What f opens and starts there itself,
// not by another goroutine, belongs to the namespace for good.
func (s space) do(f func() error) error {
	return aside(func() error {
		if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter the network namespace: %w", err)
		}
		return f()
	})
}

// path names the namespace to other programs, while this process lives.
func (s space) path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), s.file.Fd()) }

// aside calls f, which changes the namespace of its thread, and changes it back.
// The thread must not be thrown away instead: with it would die, by their
// parent-death signal, the processes that f has started.
func aside(f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(threadSpace)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() { _ = home.Close() }()
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		panic(fmt.Sprintf("a thread is lost in a network namespace: %v", back))
	}
	runtime.UnlockOSThread()
	return err
}
