package rtmp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// addressMark starts SRS's header that a proxy sends before C0: mark, 16-bit
// length, and the client's address in as many bytes.
const addressMark = 0xf3

var errClientAddress = errors.New("client address header is not 4 or 16 bytes long")

// readClientAddress reads the header if there is one; the address is invalid if
// there is none. What follows is read through the returned stream.
func readClientAddress(rw io.ReadWriter) (netip.Addr, io.ReadWriter, error) {
	var first [1]byte
	if _, err := io.ReadFull(rw, first[:]); err != nil {
		return netip.Addr{}, nil, fmt.Errorf("read first byte: %w", err)
	}
	if first[0] != addressMark {
		return netip.Addr{}, struct {
			io.Reader
			io.Writer
		}{io.MultiReader(bytes.NewReader(first[:]), rw), rw}, nil
	}
	var length [2]byte
	if _, err := io.ReadFull(rw, length[:]); err != nil {
		return netip.Addr{}, nil, fmt.Errorf("read client address: %w", err)
	}
	n := binary.BigEndian.Uint16(length[:])
	if n != 4 && n != 16 {
		return netip.Addr{}, nil, errClientAddress
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(rw, b); err != nil {
		return netip.Addr{}, nil, fmt.Errorf("read client address: %w", err)
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr.Unmap(), rw, nil
}

// appendClientAddress appends the header for an address.
func appendClientAddress(b []byte, addr netip.Addr) []byte {
	raw := addr.Unmap().AsSlice()
	b = binary.BigEndian.AppendUint16(append(b, addressMark), uint16(len(raw)))
	return append(b, raw...)
}
