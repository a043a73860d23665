package relay

import (
	"sync/atomic"
	"time"

	"srsx/proxy/datagram"
)

// path is one way to a client: a pair of addresses over UDP, or a connection of
// TCP. Somebody who knows the session's password has sent by it.
type path struct {
	flow  *flow
	way   datagram.Way
	heard atomic.Int64 // when something last came, by the relay's clock

	// One of these.
	socket *datagram.Socket
	conn   *framed
}

// send sends a datagram, or queues it in out. What does not go out is lost, as it
// may be anywhere else on its way.
func (p *path) send(b []byte, out *datagram.Sender) {
	if p.conn != nil {
		p.conn.queue(b)
		return
	}
	out.Queue(p.socket, b, p.way)
}

// silent reports whether nothing has come for longer than a time.
func (p *path) silent(now int64, longer time.Duration) bool {
	return now-p.heard.Load() > int64(longer)
}

func (p *path) close() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

// kind is what a datagram is, by its first byte (RFC 7983 section 7).
type kind uint8

const (
	kindOther kind = iota
	kindSTUN
	kindDTLS
	kindMedia // SRTP and SRTCP
)

func kindOf(b []byte) kind {
	switch {
	case len(b) == 0:
		return kindOther
	case b[0] < 4:
		return kindSTUN
	case b[0] >= 20 && b[0] < 64:
		return kindDTLS
	case b[0] >= 128 && b[0] < 192:
		return kindMedia
	default:
		return kindOther
	}
}

const dtlsAlert = 21 // content type (RFC 9147 section 4.1)
