package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Kind is what a handshake asks or answers, the field "handshake type" (draft
// section 3.2.1). Rejections are kinds too: see [Kind.Rejects].
type Kind uint32

// The kinds of handshakes. Wave, Agreement and Done belong to rendezvous, in
// which nobody listens.
const (
	Wave       Kind = 0
	Induction  Kind = 1
	Conclusion Kind = 0xFFFFFFFF
	Agreement  Kind = 0xFFFFFFFE
	Done       Kind = 0xFFFFFFFD
)

// firstReason is the kind that stands for reason 0.
const firstReason = 1000

// Rejects reports whether k is a rejection, and for which reason.
func (k Kind) Rejects() (Reason, bool) {
	if k < firstReason || k > 1<<31 {
		return 0, false
	}
	return Reason(k - firstReason), true
}

// Kind is the rejection for a reason.
func (r Reason) Kind() Kind { return firstReason + Kind(r) }

// The values of the fields that tell versions apart.
const (
	versionUDT  = 4
	versionSRT  = 5
	magic       = 0x4A17 // in the extension field of an answered induction
	datagramUDT = 2      // in the extension field of an induction
)

// flagConfig is set in the extension field of a conclusion with a stream id.
const flagConfig = 4

// extensionStreamID is the type of the extension that holds the stream id.
const extensionStreamID = 5

// maxStreamID is SRT's own limit, in bytes.
const maxStreamID = 512

// ErrHandshake is the error of what is no handshake; its text says why.
var ErrHandshake = errors.New("malformed handshake")

// Handshake is the fixed part of a handshake.
type Handshake struct {
	Timestamp   uint32 // of the packet
	Destination uint32 // of the packet: 0 is the listener
	Version     uint32
	Encryption  uint16 // key length / 8, 0 for the default or none
	Extension   uint16 // flags in a conclusion
	FirstPacket uint32 // sequence number
	MTU         uint32
	Window      uint32 // packets
	Kind        Kind
	SocketID    uint32 // of the sender
	Cookie      uint32
	// Told is the address of the receiver as the sender knows it, in libsrt's
	// byte order.
	Told [16]byte
}

// ParseHandshake reads the fixed part of a handshake packet.
func ParseHandshake(p []byte) (Handshake, error) {
	if len(p) < HandshakeSize || len(p) > MaxHandshake {
		return Handshake{}, fmt.Errorf("%w: %d bytes", ErrHandshake, len(p))
	}
	if !IsA(p, ControlHandshake) {
		return Handshake{}, fmt.Errorf("%w: another packet", ErrHandshake)
	}
	body := p[HeaderSize:]
	word := func(i int) uint32 { return binary.BigEndian.Uint32(body[4*i:]) }
	return Handshake{
		Timestamp: binary.BigEndian.Uint32(p[8:]), Destination: Destination(p),
		Version:    word(0),
		Encryption: binary.BigEndian.Uint16(body[4:]), Extension: binary.BigEndian.Uint16(body[6:]),
		FirstPacket: word(2), MTU: word(3), Window: word(4), Kind: Kind(word(5)), SocketID: word(6), Cookie: word(7),
		Told: [16]byte(body[32:48]),
	}, nil
}

// Append appends the packet, which has no extensions.
func (h Handshake) Append(b []byte) []byte {
	b = AppendControl(b, ControlHandshake, h.Timestamp, h.Destination)
	b = binary.BigEndian.AppendUint32(b, h.Version)
	b = binary.BigEndian.AppendUint16(b, h.Encryption)
	b = binary.BigEndian.AppendUint16(b, h.Extension)
	for _, word := range []uint32{h.FirstPacket, h.MTU, h.Window, uint32(h.Kind), h.SocketID, h.Cookie} {
		b = binary.BigEndian.AppendUint32(b, word)
	}
	return append(b, h.Told[:]...)
}

// Old reports whether the sender of a conclusion speaks only what came before
// version 5, in which there are no stream ids.
func (h Handshake) Old() bool { return h.Version < versionSRT }

// Inducing returns the induction that would have preceded a conclusion. Every
// caller says in it that it speaks version 4, and learns from the answer what
// the listener does.
func (h Handshake) Inducing() Handshake {
	h.Version, h.Encryption, h.Extension = versionUDT, 0, datagramUDT
	h.Kind, h.Cookie, h.Destination = Induction, 0, 0
	return h
}

// Induced returns a listener's answer to an induction.
func (h Handshake) Induced(cookie uint32) Handshake {
	h.Version, h.Encryption, h.Extension = versionSRT, 0, magic
	h.Kind, h.Destination, h.Cookie = Induction, h.SocketID, cookie
	return h
}

// Induces reports whether h is the answer of a listener that speaks version 5.
func (h Handshake) Induces() bool {
	return h.Kind == Induction && h.Version == versionSRT && h.Extension == magic
}

// Rejected returns a listener's refusal of a handshake.
func (h Handshake) Rejected(reason Reason) Handshake {
	h.Destination, h.Kind = h.SocketID, reason.Kind()
	return h
}

// SetCookie replaces the cookie of a handshake packet.
func SetCookie(p []byte, cookie uint32) { binary.BigEndian.PutUint32(p[HeaderSize+28:], cookie) }

// SetTold replaces the address of the receiver in a handshake packet.
func SetTold(p []byte, addr netip.Addr) {
	told := Told(addr)
	copy(p[HeaderSize+32:], told[:])
}

// Told puts an address into words of libsrt's byte order: the bytes of each
// word are reversed, an IPv4 address is the first word.
func Told(addr netip.Addr) (told [16]byte) {
	copy(told[:], addr.Unmap().AsSlice())
	reverseWords(told[:])
	return told
}

func reverseWords(b []byte) {
	for ; len(b) >= 4; b = b[4:] {
		slices.Reverse(b[:4])
	}
}

// StreamIDOf returns the stream id in a conclusion packet, empty when it has
// none. Extensions of a wrong size are [ErrHandshake], whatever they are: the
// origin would refuse them, or worse.
func StreamIDOf(p []byte) (string, error) {
	h, err := ParseHandshake(p)
	if err != nil {
		return "", err
	}
	id := ""
	for rest := p[HandshakeSize:]; len(rest) > 0; {
		if len(rest) < 4 {
			return "", fmt.Errorf("%w: %d bytes behind the last extension", ErrHandshake, len(rest))
		}
		kind, size := binary.BigEndian.Uint16(rest), 4*int(binary.BigEndian.Uint16(rest[2:]))
		rest = rest[4:]
		if size > len(rest) {
			return "", fmt.Errorf("%w: extension %d of %d bytes, %d are there", ErrHandshake, kind, size, len(rest))
		}
		if kind == extensionStreamID && h.Extension&flagConfig != 0 {
			if size > maxStreamID {
				return "", fmt.Errorf("%w: stream id of %d bytes", ErrHandshake, size)
			}
			id = streamID(rest[:size]) // the last one counts, as in libsrt
		}
		rest = rest[size:]
	}
	return id, nil
}

// streamID decodes the extension's content: words with reversed bytes, filled
// up with zeros.
func streamID(content []byte) string {
	text := slices.Clone(content)
	reverseWords(text)
	for len(text) > 0 && text[len(text)-1] == 0 {
		text = text[:len(text)-1]
	}
	return string(text)
}
