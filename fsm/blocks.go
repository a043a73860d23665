package fsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A snapshot is a magic number, a version byte and then blocks:
//
//	type      1 byte
//	length    4 bytes, little endian, of the payload
//	payload
//	checksum  4 bytes, little endian: CRC32C of all that came before it in the
//	          file, the other checksums left out
//
// A checksum thus covers where a block stands as well as what is in it: one
// that is missing, twice or out of order is found at the next.
const (
	magic = "srsxsnap"

	blockEntries = 4096    // entries in a block at most
	blockFull    = 1 << 20 // bytes after which a block is closed
	maxBlock     = 1 << 26 // bytes of a block that is read at most
)

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) } // made once by the library

// blockWriter writes blocks. The first error stays.
type blockWriter struct {
	w       io.Writer
	sum     uint32
	written int64
	payload []byte // of the block being filled
	entries int
	err     error
}

func newBlockWriter(w io.Writer, version byte) *blockWriter {
	bw := &blockWriter{w: w}
	bw.put(append([]byte(magic), version))
	return bw
}

// put writes bytes that checksums cover.
func (bw *blockWriter) put(b []byte) {
	bw.sum = crc32.Update(bw.sum, castagnoli(), b)
	bw.raw(b)
}

func (bw *blockWriter) raw(b []byte) {
	if bw.err != nil {
		return
	}
	n, err := bw.w.Write(b)
	bw.written += int64(n)
	bw.err = err
}

// added closes the block of the given type when the entry just added filled it.
func (bw *blockWriter) added(kind byte) {
	if bw.entries++; bw.entries == blockEntries || len(bw.payload) >= blockFull {
		bw.flush(kind)
	}
}

// flush ends the block being filled, if there is anything in it.
func (bw *blockWriter) flush(kind byte) {
	if len(bw.payload) == 0 {
		return
	}
	bw.put(binary.LittleEndian.AppendUint32([]byte{kind}, uint32(len(bw.payload)))) // blockFull and one entry
	bw.put(bw.payload)
	bw.raw(binary.LittleEndian.AppendUint32(nil, bw.sum))
	bw.payload, bw.entries = bw.payload[:0], 0
}

// blockReader reads what blockWriter wrote and returns nothing unchecked.
type blockReader struct {
	r      io.Reader
	sum    uint32
	buffer bytes.Buffer
}

// open reads magic and version.
func (br *blockReader) open() (version byte, err error) {
	head := make([]byte, len(magic)+1)
	if _, err := io.ReadFull(br.r, head); err != nil {
		return 0, cutOff(err)
	}
	if string(head[:len(magic)]) != magic {
		return 0, fmt.Errorf("%w: not a snapshot", ErrCorrupt)
	}
	br.sum = crc32.Update(0, castagnoli(), head)
	return head[len(magic)], nil
}

// next returns the next block, its payload as text that stays.
func (br *blockReader) next() (kind byte, payload string, err error) {
	var head [5]byte
	if _, err := io.ReadFull(br.r, head[:]); err != nil {
		return 0, "", cutOff(err)
	}
	length := binary.LittleEndian.Uint32(head[1:])
	if length > maxBlock {
		return 0, "", fmt.Errorf("%w: block of %d bytes", ErrCorrupt, length)
	}
	br.buffer.Reset()
	// Grows with what is there, not with what is announced.
	if _, err := io.CopyN(&br.buffer, br.r, int64(length)); err != nil {
		return 0, "", cutOff(err)
	}
	var want [4]byte
	if _, err := io.ReadFull(br.r, want[:]); err != nil {
		return 0, "", cutOff(err)
	}
	br.sum = crc32.Update(crc32.Update(br.sum, castagnoli(), head[:]), castagnoli(), br.buffer.Bytes())
	if binary.LittleEndian.Uint32(want[:]) != br.sum {
		return 0, "", fmt.Errorf("%w: checksum does not match", ErrCorrupt)
	}
	return head[0], br.buffer.String(), nil
}

// done wants nothing to follow.
func (br *blockReader) done() error {
	var b [1]byte
	switch _, err := io.ReadFull(br.r, b[:]); {
	case err == nil:
		return fmt.Errorf("%w: bytes after the end", ErrCorrupt)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}

// cutOff tells a file that ends too soon from one that cannot be read.
func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: cut off", ErrCorrupt)
	}
	return err
}
