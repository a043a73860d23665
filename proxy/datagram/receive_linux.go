package datagram

import (
	"sync"
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

// receiver is the room for one read, and for what is sent because of it. Sockets
// that wait hold none.
type receiver struct {
	messages [slots]message
	pieces   [slots]unix.Iovec
	names    [slots]unix.RawSockaddrInet6 // or Inet4
	control  [slots][controlSize]byte
	content  []byte // slots of slotSize
	out      Sender
}

var receivers = sync.Pool{New: func() any { //nolint:gochecknoglobals // all sockets share them
	r := &receiver{content: make([]byte, slots*slotSize)}
	for i := range r.messages {
		r.pieces[i].Base = &r.content[i*slotSize]
		r.pieces[i].SetLen(slotSize)
		r.messages[i].header.Iov = &r.pieces[i]
		r.messages[i].header.SetIovlen(1)
	}
	return r
}}

// receive serves until waiting ends, or the system has an error that is not about
// what was sent.
func (s *Socket) receive(take Take) error {
	var failed error
	// One call of Read: within it, what becomes ready after a read is not missed
	// by the wait that follows. So a read that is not full need not be followed by
	// one that says so.
	err := s.raw.Read(func(fd uintptr) bool {
		r, _ := receivers.Get().(*receiver)
		defer receivers.Put(r)
		for !s.over() {
			n, errno := r.read(fd, s)
			switch errno {
			case 0:
				r.each(s, n, take)
				if n < slots {
					return false
				}
			case unix.EAGAIN:
				return false
			case unix.EINTR:
			default:
				if failed = s.learn(errno); failed != nil {
					return true
				}
			}
		}
		return true
	})
	if failed != nil {
		return failed
	}
	return err
}

// read reads what waits at a socket.
func (r *receiver) read(fd uintptr, s *Socket) (int, unix.Errno) {
	for i := range r.messages {
		h := &r.messages[i].header
		h.Name, h.Namelen = nil, 0
		if !s.isConnected {
			h.Name, h.Namelen = (*byte)(unsafe.Pointer(&r.names[i])), unix.SizeofSockaddrInet6
		}
		h.Control = &r.control[i][0]
		h.SetControllen(controlSize)
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.messages[0])), slots, unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// each hands on the datagrams that were read, and sends what came of them.
func (r *receiver) each(s *Socket, n int, take Take) {
	for i := range n {
		m := &r.messages[i]
		way, segment := tellings(r.control[i][:m.header.Controllen])
		if !s.isConnected {
			way.Remote = addressOf(&r.names[i])
		}
		content := r.content[i*slotSize:][:m.length]
		if segment <= 0 {
			segment = len(content)
		}
		for len(content) > segment {
			take(content[:segment], way, &r.out)
			content = content[segment:]
		}
		take(content, way, &r.out)
	}
	r.out.Flush()
}
