package srt

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"time"

	"srsx/proxy/srt/wire"
)

// cookiePeriod is how long a cookie is valid at least; at most it is twice as
// long. Callers come back with theirs after a round trip.
const cookiePeriod = 30 * time.Second

// caller is a socket of a client: what a handshake is about.
type caller struct {
	addr netip.AddrPort
	id   uint32
}

// cookies proves that callers receive what is sent to their address, without
// keeping anything of them.
type cookies struct{ key [32]byte }

func newCookies() cookies {
	var c cookies
	_, _ = rand.Read(c.key[:]) // never fails
	return c
}

// period numbers the stretches of time in which cookies are made.
func period(at time.Time) int64 { return at.UnixNano() / int64(cookiePeriod) }

// of returns the cookie of a caller. It is the beginning of a hash over a key
// and fields of fixed sizes.
func (c *cookies) of(who caller, period int64) uint32 {
	var text [32 + 16 + 2 + 4 + 8]byte
	copy(text[:], c.key[:])
	addr := who.addr.Addr().As16()
	copy(text[32:], addr[:])
	binary.BigEndian.PutUint16(text[48:], who.addr.Port())
	binary.BigEndian.PutUint32(text[50:], who.id)
	binary.BigEndian.PutUint64(text[54:], uint64(period)) //nolint:gosec // any number will do
	sum := sha256.Sum256(text[:])
	return binary.BigEndian.Uint32(sum[:])
}

// valid reports whether a cookie was made for the caller in this period or the
// last.
func (c *cookies) valid(cookie uint32, who caller, at time.Time) bool {
	now := period(at)
	return cookie == c.of(who, now) || cookie == c.of(who, now-1)
}

// refusal is how a caller was answered: rejected for a reason, or not at all
// any more since its connection has ended.
type refusal struct {
	rejected bool
	reason   wire.Reason
}

// maxAnswered bounds the memory of callers for each period. One that is not
// remembered can only start anew what it could start anyway.
const maxAnswered = 1 << 16

// answered remembers callers that were refused and whose connections have
// ended, as long as their cookies are valid: a copy of their conclusion that
// comes late, or is played again, starts nothing.
type answered struct {
	period       int64
	now, earlier map[caller]refusal
}

// turn forgets what is older than the last period.
func (a *answered) turn(at time.Time) {
	switch now := period(at); {
	case now == a.period && a.now != nil:
	case now == a.period+1:
		a.earlier, a.now, a.period = a.now, make(map[caller]refusal), now
	default:
		a.earlier, a.now, a.period = nil, make(map[caller]refusal), now
	}
}

func (a *answered) put(who caller, how refusal, at time.Time) {
	a.turn(at)
	if len(a.now) < maxAnswered {
		a.now[who] = how
	}
}

func (a *answered) get(who caller, at time.Time) (how refusal, known bool) {
	a.turn(at)
	if how, known = a.now[who]; !known {
		how, known = a.earlier[who]
	}
	return how, known
}
