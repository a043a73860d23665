//go:build !linux

package proxy

import (
	"net"
	"time"
)

// tune sets keepalive; a timeout of unacknowledged bytes is not portable.
func tune(conn *net.TCPConn, _ time.Duration) error {
	return conn.SetKeepAliveConfig(keepAlive())
}
