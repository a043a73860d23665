package datagram

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxMessages = 64
	maxPieces   = 256
	// maxSegments is how many datagrams one message may be cut into (UDP_MAX_SEGMENTS
	// of the oldest kernels that cut any).
	maxSegments = 64
	// maxMessage is the longest message, in bytes: what UDP over IPv4 carries.
	maxMessage = 1<<16 - 1 - 20 - 8
)

// Sender queues datagrams and sends them together: those for one socket in one
// call, and a run of them that goes one way as one message. What cannot be sent is
// lost, as on any network. The zero value is ready, and nil sends each at once. It
// is not safe for concurrent use.
type Sender struct {
	to       *Socket // of all that is queued
	queued   int     // messages
	used     int     // pieces
	sent     int     // messages, of those queued
	runs     [maxMessages]run
	messages [maxMessages]message
	pieces   [maxPieces]unix.Iovec
	names    [maxMessages]unix.RawSockaddrInet6 // or Inet4
	control  [maxMessages][sendControl]byte
	tail     []byte     // the last piece: what follows it in memory lengthens it
	part     unix.Iovec // of a run that is sent in parts
}

// run is datagrams that are one message.
type run struct {
	to     Way
	count  int
	size   int // of each, but the last, which may be shorter and is then the last
	total  int
	pieces int
}

// Queue queues a datagram, which must stay as it is until Flush.
func (o *Sender) Queue(s *Socket, b []byte, to Way) {
	if o == nil {
		_ = s.Send(b, to)
		return
	}
	if len(b) == 0 {
		return // nothing that is relayed, and a run cannot have it
	}
	if o.to != s || o.used == maxPieces {
		o.Flush()
		o.to = s
	}
	if o.queued > 0 && o.joins(b, to) {
		return
	}
	if o.queued == maxMessages {
		o.Flush()
		o.to = s
	}
	o.runs[o.queued] = run{to: to, count: 1, size: len(b), total: len(b), pieces: 1}
	o.addPiece(b)
	o.queued++
}

// joins adds a datagram to the last run, if that can take it.
func (o *Sender) joins(b []byte, to Way) bool {
	last := &o.runs[o.queued-1]
	if len(b) > last.size || last.total < last.count*last.size || last.count == maxSegments ||
		last.total+len(b) > maxMessage || last.to != to || !o.to.segments.Load() {
		return false
	}
	last.count++
	last.total += len(b)
	if end := len(o.tail); end < cap(o.tail) && &o.tail[:end+1][end] == &b[0] {
		o.tail = o.tail[:end+len(b)]
		o.pieces[o.used-1].SetLen(len(o.tail))
		return true
	}
	o.addPiece(b)
	last.pieces++
	return true
}

func (o *Sender) addPiece(b []byte) {
	o.pieces[o.used].Base = &b[0]
	o.pieces[o.used].SetLen(len(b))
	o.tail = b
	o.used++
}

// Flush sends what is queued.
func (o *Sender) Flush() {
	if o == nil || o.queued == 0 {
		return
	}
	first := 0
	for i := range o.queued {
		o.address(i, &o.pieces[first])
		first += o.runs[i].pieces
	}
	s := o.to
	s.mu.RLock()
	learnt := o.send(uintptr(s.fd)) //nolint:gosec // a descriptor, or -1, which the system refuses
	s.mu.RUnlock()
	clear(o.pieces[:o.used]) // nothing is kept alive
	o.to, o.queued, o.used, o.tail = nil, 0, 0, nil
	s.learn(learnt)
}

// address makes the header of a message.
func (o *Sender) address(i int, first *unix.Iovec) {
	r, h := &o.runs[i], &o.messages[i].header
	h.Iov = first
	h.SetIovlen(r.pieces)
	h.Name, h.Namelen = nil, 0
	if r.to.Remote.IsValid() {
		h.Name = (*byte)(unsafe.Pointer(&o.names[i]))
		h.Namelen = o.to.putAddress(&o.names[i], r.to.Remote)
	}
	control := o.to.appendSource(o.control[i][:0], r.to.Local)
	if r.count > 1 {
		control = appendSegment(control, r.size)
	}
	h.Control = nil
	if len(control) > 0 {
		h.Control = &o.control[i][0]
	}
	h.SetControllen(len(control))
}

// send sends what is queued. The error is what the socket reported about what was
// sent before.
func (o *Sender) send(fd uintptr) (learnt error) {
	for o.sent = 0; o.sent < o.queued; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&o.messages[o.sent])),
			uintptr(o.queued-o.sent), unix.MSG_DONTWAIT, 0, 0) //nolint:gosec // a count
		switch {
		case errno == 0:
			o.sent += int(n)
		case errno == unix.EINTR:
		case errno == unix.EBADF:
			return nil
		case errno == unix.ECONNREFUSED && learnt == nil:
			learnt = errno // what is to be sent has not been tried
		case errno == unix.EAGAIN && awaitRoom(fd):
		case o.runs[o.sent].count > 1 && errno != unix.EAGAIN:
			o.cut(fd, errno)
			o.sent++
		default:
			o.sent++
		}
	}
	return learnt
}

// awaitRoom waits for a moment until a socket takes more.
func awaitRoom(fd uintptr) bool {
	const moment = 1                                                                  // ms
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, moment) //nolint:gosec // a descriptor
	return err == nil && n > 0
}

// cut sends the datagrams of a run one by one: the interface does not cut them, or
// they are longer than the way takes in one packet.
func (o *Sender) cut(fd uintptr, why unix.Errno) {
	if why == unix.EIO {
		o.to.segments.Store(false) // it has no checksums by hardware
	}
	r, h := o.runs[o.sent], &o.messages[o.sent].header
	pieces := unsafe.Slice(h.Iov, r.pieces)
	h.Iov = &o.part
	h.SetIovlen(1)
	h.SetControllen(len(o.to.appendSource(o.control[o.sent][:0], r.to.Local)))
	for _, p := range pieces {
		for rest := unsafe.Slice(p.Base, p.Len); len(rest) > 0; {
			n := min(len(rest), r.size)
			o.part.Base = &rest[0]
			o.part.SetLen(n)
			_, _, _ = unix.Syscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(h)), unix.MSG_DONTWAIT)
			rest = rest[n:]
		}
	}
	o.part = unix.Iovec{}
}
