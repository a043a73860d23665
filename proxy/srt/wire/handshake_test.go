package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/datarhei/gosrt/circular"
	"github.com/datarhei/gosrt/packet"

	"srsx/proxy/srt/wire"
)

// conclusion is a conclusion as gosrt writes it.
func conclusion(tb testing.TB, streamID string) []byte {
	tb.Helper()
	p := packet.NewPacket(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})
	p.Header().IsControlPacket = true
	p.Header().ControlType = packet.CTRLTYPE_HANDSHAKE
	p.Header().Timestamp = 4711
	cif := &packet.CIFHandshake{
		IsRequest: true, Version: 5, HandshakeType: packet.HSTYPE_CONCLUSION,
		InitialPacketSequenceNumber: circular.New(42, packet.MAX_SEQUENCENUMBER), MaxTransmissionUnitSize: 1500, MaxFlowWindowSize: 8192,
		SRTSocketId: 0x11223344, SynCookie: 0x55667788,
		HasHS: true, SRTHS: &packet.CIFHandshakeExtension{SRTVersion: 0x010401, RecvTSBPDDelay: 120, SendTSBPDDelay: 120},
		HasSID: streamID != "", StreamId: streamID,
	}
	cif.PeerIP.FromNetAddr(&net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 9})
	if err := p.MarshalCIF(cif); err != nil {
		tb.Fatal(err)
	}
	var b bytes.Buffer
	if err := p.Marshal(&b); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func TestConclusionOfGosrtIsRead(t *testing.T) {
	for _, id := range []string{"", "a", "abc", "abcd", "#!::r=live/cam,m=publish", strings.Repeat("x", 512)} {
		p := conclusion(t, id)
		h, err := wire.ParseHandshake(p)
		want := wire.Handshake{
			Timestamp: 4711, Version: 5, Extension: h.Extension, FirstPacket: 42, MTU: 1500, Window: 8192,
			Kind: wire.Conclusion, SocketID: 0x11223344, Cookie: 0x55667788, Told: wire.Told(netip.MustParseAddr("192.0.2.7")),
		}
		if err != nil || h != want || h.Old() {
			t.Errorf("ParseHandshake = %+v, %v; want %+v", h, err, want)
		}
		if got, err := wire.StreamIDOf(p); err != nil || got != id {
			t.Errorf("StreamIDOf = %q, %v; want %q", got, err, id)
		}
	}
}

// reader is gosrt as the reader of what we write.
func reader(t *testing.T, p []byte) (packet.Packet, *packet.CIFHandshake) {
	t.Helper()
	read, err := packet.NewPacketFromData(&net.UDPAddr{}, p)
	if err != nil {
		t.Fatal(err)
	}
	cif := &packet.CIFHandshake{}
	if err := read.UnmarshalCIF(cif); err != nil {
		t.Fatal(err)
	}
	return read, cif
}

func TestGosrtReadsOurAnswers(t *testing.T) {
	request, err := wire.ParseHandshake(conclusion(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	request.Told = wire.Told(netip.MustParseAddr("192.0.2.8"))
	p, cif := reader(t, request.Inducing().Append(nil))
	if p.Header().DestinationSocketId != 0 || cif.Version != 4 || cif.EncryptionField != 0 || cif.ExtensionField != 2 ||
		cif.HandshakeType != packet.HSTYPE_INDUCTION || cif.SynCookie != 0 || cif.SRTSocketId != 0x11223344 ||
		cif.InitialPacketSequenceNumber.Val() != 42 || cif.MaxTransmissionUnitSize != 1500 || cif.MaxFlowWindowSize != 8192 {
		t.Errorf("induction = %+v; want version 4 and the caller's numbers", cif)
	}
	p, cif = reader(t, request.Induced(7).Append(nil))
	if p.Header().DestinationSocketId != 0x11223344 || cif.Version != 5 || cif.ExtensionField != 0x4A17 || cif.SynCookie != 7 ||
		cif.PeerIP.String() != "192.0.2.8" {
		t.Errorf("answer = %+v to %#x; want version 5, the magic number and the cookie", cif, p.Header().DestinationSocketId)
	}
	_, cif = reader(t, request.Rejected(wire.BadMode).Append(nil))
	if cif.HandshakeType != 2405 || !cif.HandshakeType.IsRejection() {
		t.Errorf("rejection = %d; want 1000 + 1405", cif.HandshakeType)
	}
	read, err := packet.NewPacketFromData(&net.UDPAddr{}, wire.AppendShutdown(nil, 9))
	if err != nil {
		t.Fatal(err)
	}
	if h := read.Header(); h.ControlType != packet.CTRLTYPE_SHUTDOWN || h.DestinationSocketId != 9 || read.UnmarshalCIF(&packet.CIFShutdown{}) != nil {
		t.Errorf("shutdown = %s", read.String())
	}
}

func TestKindsTellRejections(t *testing.T) {
	for kind, want := range map[wire.Kind]wire.Reason{1000: 0, 1002: 2, 2403: 1403, 3001: 2001} {
		if got, ok := kind.Rejects(); !ok || got != want {
			t.Errorf("%d rejects for %d, %v; want %d", kind, got, ok, want)
		}
	}
	for _, kind := range []wire.Kind{wire.Wave, wire.Induction, wire.Conclusion, wire.Agreement, wire.Done, 999, 1<<31 + 1} {
		if reason, ok := kind.Rejects(); ok {
			t.Errorf("%d rejects for %d; want none", kind, reason)
		}
	}
	for reason, want := range map[wire.Reason]string{wire.Rogue: "4 rogue", wire.Down: "1503 down", 1499: "1499 other"} {
		if reason.String() != want {
			t.Errorf("reason = %q; want %q", reason, want)
		}
	}
}

func TestHeldHandshakeMovesItsTimestamp(t *testing.T) {
	p := conclusion(t, "x")
	wire.Delay(p, 1500*time.Millisecond)
	if h, _ := wire.ParseHandshake(p); h.Timestamp != 4711+1_500_000 {
		t.Errorf("timestamp = %d; want it moved by 1.5 s of microseconds", h.Timestamp)
	}
	binary.BigEndian.PutUint32(p[8:], 0xFFFFFFFF)
	wire.Delay(p, time.Microsecond)
	if h, _ := wire.ParseHandshake(p); h.Timestamp != 0 {
		t.Errorf("timestamp = %d; want it to wrap", h.Timestamp)
	}
}

func TestCookieAndAddressAreReplacedAndNothingElse(t *testing.T) {
	p := conclusion(t, "live/cam")
	before := slices.Clone(p)
	wire.SetCookie(p, 1)
	wire.SetTold(p, netip.MustParseAddr("::ffff:10.1.2.3"))
	h, err := wire.ParseHandshake(p)
	if err != nil || h.Cookie != 1 || h.Told != wire.Told(netip.MustParseAddr("10.1.2.3")) || h.Told[3] != 10 {
		t.Errorf("handshake = %+v, %v; want the new cookie and address", h, err)
	}
	if six := wire.Told(netip.MustParseAddr("2001:db8::1")); six != [16]byte{0xb8, 0x0d, 0x01, 0x20, 12: 1} {
		t.Errorf("address of IPv6 = %x; want its words in libsrt's order", six)
	}
	copy(p[16+28:64], before[16+28:64])
	if !bytes.Equal(p, before) {
		t.Error("something else has changed")
	}
}

// extension appends one of n words.
func extension(p []byte, kind uint16, words int, content ...byte) []byte {
	p = binary.BigEndian.AppendUint16(p, kind)
	p = binary.BigEndian.AppendUint16(p, uint16(words))
	return append(p, content...)
}

func TestExtensionsOfWrongSizesAreRefused(t *testing.T) {
	whole := conclusion(t, "live/cam")
	bare := slices.Clip(conclusion(t, "")[:wire.HandshakeSize])
	bare[16+7] |= 4
	for n := range whole {
		cut := whole[:n]
		_, err := wire.StreamIDOf(cut)
		ends := n == wire.HandshakeSize || n == wire.HandshakeSize+16 // between two extensions
		if ends != (err == nil) {
			t.Errorf("StreamIDOf of %d bytes of %d = %v; want an error but between extensions", n, len(whole), err)
		}
	}
	for name, p := range map[string][]byte{
		"longer than the packet": extension(bare, 5, 2, 1, 2, 3, 4),
		"longest":                extension(bare, 5, 0xFFFF),
		"two bytes":              append(slices.Clone(bare), 0, 5),
		"above the limit of ids": extension(bare, 5, 129, make([]byte, 4*129)...),
		"packet too long":        append(extension(bare, 1, 350, make([]byte, 1400)...), make([]byte, 40)...),
		"behind a good one":      append(extension(bare, 5, 1, 1, 2, 3, 4), 0),
	} {
		if _, err := wire.StreamIDOf(slices.Clone(p)); !errors.Is(err, wire.ErrHandshake) {
			t.Errorf("%s: %v; want it refused", name, err)
		}
	}
	for name, test := range map[string]struct {
		p    []byte
		want string
	}{
		"empty":                 {extension(bare, 5, 0), ""},
		"unknown before":        {extension(extension(bare, 999, 1, 1, 1, 1, 1), 5, 1, 'd', 'c', 'b', 'a'), "abcd"},
		"the last of two":       {extension(extension(bare, 5, 1, 'd', 'c', 'b', 'a'), 5, 1, 'h', 'g', 'f', 'e'), "efgh"},
		"without the flag":      {extension(slices.Clip(conclusion(t, "")[:wire.HandshakeSize]), 5, 1, 'd', 'c', 'b', 'a'), ""},
		"zeros within it stay":  {extension(bare, 5, 2, 'd', 0, 'b', 'a', 0, 0, 0, 'e'), "ab\x00de"},
		"nothing but its zeros": {extension(bare, 5, 1, 0, 0, 0, 0), ""},
	} {
		if got, err := wire.StreamIDOf(slices.Clone(test.p)); err != nil || got != test.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, test.want)
		}
	}
}

func TestOtherPacketsAreNoHandshakes(t *testing.T) {
	p := conclusion(t, "x")
	p[1] = 2 // ACK
	if _, err := wire.ParseHandshake(p); !errors.Is(err, wire.ErrHandshake) {
		t.Errorf("an ACK: %v; want it refused", err)
	}
	p[0], p[1] = 0, 0 // data
	if _, err := wire.ParseHandshake(p); !errors.Is(err, wire.ErrHandshake) {
		t.Errorf("a data packet: %v; want it refused", err)
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add(conclusion(f, ""))
	f.Add(conclusion(f, "#!::r=live/cam,m=publish"))
	f.Add(conclusion(f, strings.Repeat("y", 512)))
	h, _ := wire.ParseHandshake(conclusion(f, "x"))
	f.Add(h.Inducing().Append(nil))
	f.Add(h.Induced(1).Append(nil))
	f.Add(h.Rejected(wire.Down).Append(nil))
	f.Add(wire.AppendShutdown(nil, 1))
	f.Add(extension(h.Append(nil), 5, 0xFFFF))
	f.Fuzz(func(t *testing.T, p []byte) {
		before := slices.Clone(p)
		h, err := wire.ParseHandshake(p)
		id, idErr := wire.StreamIDOf(p)
		if err != nil {
			if idErr == nil || id != "" {
				t.Errorf("no handshake has the stream id %q", id)
			}
			return
		}
		if len(id) > 512 {
			t.Errorf("stream id of %d bytes", len(id))
		}
		if again, err := wire.ParseHandshake(h.Append(nil)); err != nil || again != h {
			t.Errorf("written and read again: %+v, %v; want %+v", again, err, h)
		}
		if !bytes.Equal(p, before) {
			t.Error("reading has changed the packet")
		}
		requireGosrtAgrees(t, p, h, id, idErr)
	})
}

// requireGosrtAgrees compares with gosrt where it reads the same: it takes no
// heed of the flag, and refuses in other extensions what is none of our business.
func requireGosrtAgrees(t *testing.T, p []byte, h wire.Handshake, id string, idErr error) {
	t.Helper()
	if h.Kind != wire.Conclusion || h.Extension&4 == 0 || idErr != nil || len(p) == wire.HandshakeSize {
		return
	}
	read, err := packet.NewPacketFromData(&net.UDPAddr{}, p)
	if err != nil {
		return
	}
	cif := &packet.CIFHandshake{}
	if read.UnmarshalCIF(cif) == nil && cif.StreamId != id {
		t.Errorf("gosrt reads the stream id %q; we read %q", cif.StreamId, id)
	}
}
