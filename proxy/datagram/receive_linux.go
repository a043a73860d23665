package datagram

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	slots = 32 // datagrams, or runs of them, that one read takes
	// slotSize is the room of each, in bytes: a run may be as long as a datagram.
	slotSize = maxLength
	// controlSize is the room for what a datagram tells beside its content: our
	// address and the size of the segments.
	controlSize = 128
)

// message is struct mmsghdr (recvmmsg(2)).
type message struct {
	header unix.Msghdr
	length uint32
}

// receiver is the room for one read, and for what is sent because of it.
type receiver struct {
	messages [slots]message
	pieces   [slots]unix.Iovec
	names    [slots]unix.RawSockaddrInet6 // or Inet4
	control  [slots][controlSize]byte
	content  []byte // slots of slotSize, of which the system gives what is used
	out      Sender
}

func newReceiver() *receiver {
	r := &receiver{content: make([]byte, slots*slotSize)}
	for i := range r.messages {
		r.pieces[i].Base = &r.content[i*slotSize]
		r.pieces[i].SetLen(slotSize)
		r.messages[i].header.Iov = &r.pieces[i]
		r.messages[i].header.SetIovlen(1)
	}
	return r
}

// serve reads a socket once: others may wait.
func (r *receiver) serve(s *Socket) {
	s.serving.Lock()
	defer s.serving.Unlock()
	n, errno := r.read(s)
	switch errno {
	case 0:
		r.each(s, n)
	case unix.EAGAIN, unix.EINTR, unix.EBADF:
	default:
		if s.learn(errno); !isPassing(errno) {
			time.Sleep(time.Millisecond) // the next may follow at once
		}
	}
}

// read reads what waits at a socket. The error is EBADF for one that is stopped, or
// closed.
func (r *receiver) read(s *Socket) (int, unix.Errno) {
	for i := range r.messages {
		h := &r.messages[i].header
		h.Name, h.Namelen = nil, 0
		if !s.connected {
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&r.names[i])), unix.SizeofSockaddrInet6
		}
		h.Control = &r.control[i][0]
		h.SetControllen(controlSize)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.loop == nil {
		return 0, unix.EBADF
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&r.messages[0])), slots, unix.MSG_DONTWAIT, 0, 0) //nolint:gosec // a descriptor
	return int(n), errno
}

// each hands on the datagrams that were read, and sends what came of them.
func (r *receiver) each(s *Socket, n int) {
	for i := range n {
		m := &r.messages[i]
		way, segment := tellings(r.control[i][:m.header.Controllen])
		if !s.connected {
			way.Remote = addressOf(&r.names[i])
		}
		content := r.content[i*slotSize:][:m.length]
		if segment <= 0 {
			segment = len(content)
		}
		for len(content) > segment {
			s.take(content[:segment], way, &r.out)
			content = content[segment:]
		}
		s.take(content, way, &r.out)
	}
	r.out.Flush()
}
