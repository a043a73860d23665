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
	writeTime      = 10 * time.Second // for a peer of TCP to take what is written
	strayFrames    = 32               // of a connection that has not proved itself
	// maxQueue is what waits for a peer of TCP that does not read, in bytes: some
	// seconds of video. What comes then is lost, as it is over UDP.
	maxQueue = 256 << 10
)

// framed carries datagrams over TCP, each with its length before it (RFC 4571).
// Nobody who sends one waits for the other side: drain writes them.
type framed struct {
	net.Conn
	reader *bufio.Reader

	mu     sync.Mutex // guards what follows
	more   sync.Cond  // there are frames, or the connection is closed
	frames []byte     // queued
	closed bool
}

func newFramed(conn net.Conn) *framed {
	f := &framed{Conn: conn, reader: bufio.NewReaderSize(conn, 4096)}
	f.more.L = &f.mu
	return f
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

// queue has a datagram written, unless too much waits already.
func (f *framed) queue(b []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(b) > maxDatagram || len(f.frames)+2+len(b) > maxQueue {
		return
	}
	f.frames = binary.BigEndian.AppendUint16(f.frames, uint16(len(b))) //nolint:gosec // just checked
	f.frames = append(f.frames, b...)
	f.more.Signal()
}

// drain writes what is queued until the connection is closed. A peer that does not
// take it in time is cut off.
func (f *framed) drain() {
	var frames []byte
	for {
		if frames = f.takeQueued(frames[:0]); len(frames) == 0 {
			return
		}
		err := f.SetWriteDeadline(time.Now().Add(writeTime))
		if err == nil {
			_, err = f.Write(frames)
		}
		if err != nil {
			_ = f.Close()
			return
		}
	}
}

// takeQueued waits for frames and takes them all, for others to be queued in used. There
// are none when the connection is closed.
func (f *framed) takeQueued(used []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.frames) == 0 && !f.closed {
		f.more.Wait()
	}
	if f.closed {
		return nil
	}
	frames := f.frames
	f.frames = used
	return frames
}

// Close closes the connection. What is queued is lost.
func (f *framed) Close() error {
	f.mu.Lock()
	f.closed = true
	f.more.Signal()
	f.mu.Unlock()
	return f.Conn.Close()
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
	frames := newFramed(conn)
	var draining sync.WaitGroup
	draining.Go(frames.drain)
	defer draining.Wait()
	defer frames.Close() //nolint:errcheck // it is over
	defer context.AfterFunc(ctx, func() { _ = frames.Close() })()
	if conn.SetReadDeadline(time.Now().Add(firstCheckTime)) != nil {
		return
	}
	from := source{conn: frames, way: datagram.Way{Remote: proxy.AddrPortOf(conn.RemoteAddr())}}
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
