package fsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Why bytes of a log or a snapshot were refused.
var (
	// ErrVersion means that a newer srsx wrote them.
	ErrVersion = errors.New("written by a newer version")
	// ErrCorrupt means that they are not what any version writes.
	ErrCorrupt = errors.New("corrupt")
)

// latest bounds times on the wire, in milliseconds around 1970: far beyond any
// deadline, and what a placement has room for.
const latest = 1<<47 - 1

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func appendTexts(b []byte, texts []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(texts)))
	for _, t := range texts {
		b = appendText(b, t)
	}
	return b
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.AppendVarint(b, min(max(millisOf(t), -latest), latest))
}

// flags packs what is true, the first argument in the lowest bit.
func flags(set ...bool) byte {
	var b byte
	for i, on := range set {
		if on {
			b |= 1 << i
		}
	}
	return b
}

func appendStream(b []byte, s Stream) []byte {
	return appendText(appendText(appendText(b, s.VHost), s.App), s.Name)
}

func appendIncarnation(b []byte, i Incarnation) []byte {
	return appendText(appendText(appendText(b, i.Server), i.Service), i.PID)
}

func appendHolder(b []byte, h Holder) []byte {
	return binary.AppendUvarint(appendText(b, h.Peer), h.Epoch)
}

// reader takes values from the front of text. The first value that is not there
// or not what the encoder writes, byte for byte, ends it: err says so, and all
// later values are zero. Texts share the memory of text.
type reader struct {
	text string
	err  error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s, %d bytes before the end", ErrCorrupt, what, len(r.text))
	}
	r.text = ""
}

func (r *reader) octet() byte {
	if r.text == "" {
		r.fail("cut off")
		return 0
	}
	c := r.text[0]
	r.text = r.text[1:]
	return c
}

// uvarint reads what binary.AppendUvarint writes: seven bits a byte, lowest
// first, and never a last byte of zero.
func (r *reader) uvarint() uint64 {
	var v uint64
	for i := range min(len(r.text), binary.MaxVarintLen64) {
		c := r.text[i]
		if i == binary.MaxVarintLen64-1 && c > 1 || i > 0 && c == 0 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			r.text = r.text[i+1:]
			return v
		}
	}
	r.fail("not a number")
	return 0
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// below reads a number that has to be less than limit.
func (r *reader) below(limit uint64, what string) uint64 {
	v := r.uvarint()
	if r.err == nil && v >= limit {
		r.fail(fmt.Sprintf("%s is %d of %d", what, v, limit))
		return 0
	}
	return v
}

// count reads how many items follow; each takes a byte at least.
func (r *reader) count(what string) int { return int(r.below(uint64(len(r.text))+1, what)) }

func (r *reader) uint32() uint32 { return uint32(r.below(1<<32, "number")) }

func (r *reader) string() string { return r.take(r.uvarint()) }

// take reads n bytes.
func (r *reader) take(n uint64) string {
	if n > uint64(len(r.text)) {
		r.fail("cut off")
		return ""
	}
	s := r.text[:n]
	r.text = r.text[n:]
	return s
}

// own reads a text that is kept for long: a copy, so that it does not keep the
// whole of what was read in memory.
func (r *reader) own() string { return strings.Clone(r.string()) }

func (r *reader) owns() []string {
	n := r.count("list")
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.own()
	}
	return list
}

// millis reads a time in unix ms.
func (r *reader) millis() int64 {
	ms := r.varint()
	if ms < -latest || ms > latest {
		r.fail("time out of range")
		return 0
	}
	return ms
}

func (r *reader) time() time.Time { return timeOf(r.millis()) }

// flags reads n flags.
func (r *reader) flags(n int) byte {
	b := r.octet()
	if b>>n != 0 {
		r.fail("unknown flag")
		return 0
	}
	return b
}

func (r *reader) stream() Stream {
	return Stream{VHost: r.string(), App: r.string(), Name: r.string()}
}

func (r *reader) incarnation() Incarnation {
	return Incarnation{Server: r.string(), Service: r.string(), PID: r.string()}
}

func (r *reader) holder() Holder { return Holder{Peer: r.string(), Epoch: r.uvarint()} }

// end fails when something is left.
func (r *reader) end() error {
	if r.err == nil && r.text != "" {
		r.fail("more than was announced")
	}
	return r.err
}
