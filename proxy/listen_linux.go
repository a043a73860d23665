package proxy

import (
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// tune makes the kernel notice clients that vanish: keepalive while nothing is
// sent, TCP_USER_TIMEOUT (RFC 5482) while something is.
func tune(conn *net.TCPConn, userTimeout time.Duration) error {
	if err := conn.SetKeepAliveConfig(keepAlive()); err != nil {
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
	})
	return errors.Join(err, setErr)
}
