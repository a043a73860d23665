package relay

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"srsx/proxy"
	"srsx/proxy/datagram"
)

const (
	firstCheckTime = 10 * time.Second // for a new connection to prove itself
	writeTime      = 10 * time.Second // for a peer of TCP to take a datagram
	strayFrames    = 32               // of a connection that has not proved itself
)

// framed carries datagrams over TCP, each with its length before it (RFC 4571).
type framed struct {
	net.Conn
	reader *bufio.Reader

	mu    sync.Mutex
	frame [2 + maxDatagram + 1]byte // guarded by mu: one write a datagram
}

func newFramed(conn net.Conn) *framed {
	return &framed{Conn: conn, reader: bufio.NewReaderSize(conn, 4096)}
}

var errLongFrame = fmt.Errorf("frame of more than %d bytes", maxDatagram)

// read reads one datagram. b has room for the longest.
func (f *framed) read(b []byte) (int, error) {
	var head [2]byte
	if _, err := io.ReadFull(f.reader, head[:]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(head[:]))
	if n > maxDatagram {
		return 0, errLongFrame
	}
	return io.ReadFull(f.reader, b[:n])
}

// write sends one datagram. A peer that does not take it is cut off: half a frame
// is the end of a connection.
func (f *framed) write(b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(b) > maxDatagram {
		return errLongFrame
	}
	binary.BigEndian.PutUint16(f.frame[:], uint16(len(b))) //nolint:gosec // just checked
	n := 2 + copy(f.frame[2:], b)
	err := f.SetWriteDeadline(time.Now().Add(writeTime))
	if err == nil {
		_, err = f.Write(f.frame[:n])
	}
	if err != nil {
		_ = f.Close()
	}
	return err
}

// ServeTCP takes connections of clients until ln is closed, and returns when the
// last of them has gone. When ctx ends they are closed.
func (r *Relay) ServeTCP(ctx context.Context, ln net.Listener) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		clients.Go(func() { r.serveClient(ctx, conn) })
	}
}

// serveClient is one connection from accept to close. It is one path, of one flow
// at a time.
func (r *Relay) serveClient(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if conn.SetReadDeadline(time.Now().Add(firstCheckTime)) != nil {
		return
	}
	from := source{conn: newFramed(conn), way: datagram.Way{Remote: proxy.AddrPortOf(conn.RemoteAddr())}}
	var known *path
	defer func() {
		if known != nil {
			r.dropPath(known)
		}
	}()
	b := make([]byte, maxDatagram)
	for stray := 0; stray < strayFrames; {
		n, err := from.conn.read(b)
		if err != nil {
			return
		}
		former := known
		known = r.fromClient(from, known, b[:n], nil) //nolint:contextcheck // what it starts outlives the connection
		switch {
		case known == nil:
			stray++
		case former != known:
			if former != nil {
				former.flow.removePath(former)
			}
			// From here on the flow's own idle time counts.
			_ = conn.SetReadDeadline(time.Time{})
		default:
		}
	}
}
