package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/hashicorp/raft"
)

// A seal ends the Extensions of every entry on disk:
//
//	what others had put there | commit index, 8 bytes | CRC-32C, 4 bytes | version, 1 byte
//
// all big endian. The checksum covers every field of the entry and the commit
// index. On the wire and above the store the Extensions are as others left them.
const (
	sealSize    = 13
	sealVersion = 1
)

// seal returns a copy of l with the commit index added. l itself is in use by
// raft's replication at the same time.
func seal(l *raft.Log, commit uint64) *raft.Log {
	sealed := *l
	extensions := make([]byte, len(l.Extensions), len(l.Extensions)+sealSize)
	copy(extensions, l.Extensions)
	extensions = binary.BigEndian.AppendUint64(extensions, commit)
	extensions = binary.BigEndian.AppendUint32(extensions, entryChecksum(l, commit))
	extensions = append(extensions, sealVersion)
	sealed.Extensions = extensions
	return &sealed
}

// unseal takes the seal off l and returns the commit index in it, or an error
// when l is not as it was sealed. Empty Extensions come back as nil.
func unseal(l *raft.Log) (commit uint64, err error) {
	own := len(l.Extensions) - sealSize
	if own < 0 {
		return 0, errors.New("it carries no seal")
	}
	tail := l.Extensions[own:]
	if version := tail[sealSize-1]; version != sealVersion {
		return 0, fmt.Errorf("its seal has version %d, not %d", version, sealVersion)
	}
	commit = binary.BigEndian.Uint64(tail)
	l.Extensions = l.Extensions[:own:own]
	if own == 0 {
		l.Extensions = nil
	}
	if binary.BigEndian.Uint32(tail[8:]) != entryChecksum(l, commit) {
		return 0, errors.New("its checksum is wrong")
	}
	return commit, nil
}

func entryChecksum(l *raft.Log, commit uint64) uint32 {
	head := make([]byte, 0, 64)
	head = binary.BigEndian.AppendUint64(head, l.Index)
	head = binary.BigEndian.AppendUint64(head, l.Term)
	head = append(head, byte(l.Type))
	head = binary.BigEndian.AppendUint64(head, uint64(l.AppendedAt.Unix()))
	head = binary.BigEndian.AppendUint32(head, uint32(l.AppendedAt.Nanosecond()))
	head = binary.BigEndian.AppendUint64(head, commit)
	head = binary.BigEndian.AppendUint64(head, uint64(len(l.Extensions))) // says where Data begins
	sum := crc32.Update(0, castagnoli(), head)
	sum = crc32.Update(sum, castagnoli(), l.Extensions)
	return crc32.Update(sum, castagnoli(), l.Data)
}

// castagnoli has hardware support, and the package makes its table once.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }
