// Package wire reads and writes what a relay has to know of SRT: the header of
// a packet, handshakes, and the stream id in them. Everything else of SRT
// passes a relay as bytes. The protocol is that of draft-sharabayko-srt-01
// (handshakes of version 5) as libsrt speaks it.
//
// Functions that take a packet take the whole datagram, header first.
package wire

import (
	"encoding/binary"
	"time"
)

// Sizes in bytes.
const (
	HeaderSize    = 16
	handshakeBody = 48                         // without extensions
	HandshakeSize = HeaderSize + handshakeBody // the smallest handshake
	// MaxHandshake bounds handshakes: libsrt's fit into one packet of 1500
	// bytes, and the stream id is the only long part.
	MaxHandshake = 1500
)

// Control is the type of a control packet (draft section 3.2).
type Control uint16

// The control packets that a relay has to know.
const (
	ControlHandshake Control = 0x0000
	ControlShutdown  Control = 0x0005
)

// controlBit is set in the first byte of control packets.
const controlBit = 0x80

// IsControl reports whether p is a control packet, of at least HeaderSize
// bytes; any other is a data packet.
func IsControl(p []byte) bool { return p[0]&controlBit != 0 }

// IsA reports whether p, of at least HeaderSize bytes, is a control packet of
// type c.
func IsA(p []byte, c Control) bool {
	return IsControl(p) && Control(binary.BigEndian.Uint16(p)&^(controlBit<<8)) == c
}

// Destination returns the id of the socket that p is for, 0 for the listener.
// p has at least HeaderSize bytes.
func Destination(p []byte) uint32 { return binary.BigEndian.Uint32(p[12:]) }

// AppendControl appends the header of a control packet, without type-specific
// information. The timestamp counts microseconds since the sender's start.
func AppendControl(b []byte, c Control, timestamp, destination uint32) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(c)|controlBit<<8)
	b = append(b, 0, 0) // subtype
	b = binary.BigEndian.AppendUint32(b, 0)
	b = binary.BigEndian.AppendUint32(b, timestamp)
	return binary.BigEndian.AppendUint32(b, destination)
}

// AppendShutdown appends the packet that ends a connection. It has four empty
// bytes behind the header, as libsrt sends it.
func AppendShutdown(b []byte, destination uint32) []byte {
	return append(AppendControl(b, ControlShutdown, 0, destination), 0, 0, 0, 0)
}

// Delay moves the timestamp of a packet that was held for d. A receiver takes
// the start of its sender's clock from when a handshake arrives: without this
// it would add the time that a relay took to every packet's latency.
func Delay(p []byte, d time.Duration) {
	at := p[8:12]
	binary.BigEndian.PutUint32(at, binary.BigEndian.Uint32(at)+uint32(d.Microseconds())) //nolint:gosec // it wraps as the clock does
}
