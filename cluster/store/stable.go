package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// settings is what raft keeps outside its log: its term and its vote. All of it
// is one record with one checksum, because a vote that is missing is as bad as
// one that is wrong, and a record by itself cannot say that another is gone.
type settings map[string][]byte

const settingsKey = "settings"

// ErrKeyNotFound is what Get and GetUint64 return for a key never set. Raft
// knows it by its text.
var ErrKeyNotFound = raftboltdb.ErrKeyNotFound

// Set stores a value and returns when it is durable.
func (s *Store) Set(key, value []byte) error {
	s.settingMu.Lock()
	defer s.settingMu.Unlock()
	next := maps.Clone(*s.settings.Load())
	next[string(key)] = bytes.Clone(value)
	if err := s.watched.Set([]byte(settingsKey), next.encode()); err != nil {
		return fmt.Errorf("store %s in %s: %w", key, s.path, err)
	}
	s.settings.Store(&next)
	return nil
}

// Get returns a value of its own, or [ErrKeyNotFound].
func (s *Store) Get(key []byte) ([]byte, error) {
	value, ok := (*s.settings.Load())[string(key)]
	if !ok {
		return nil, ErrKeyNotFound
	}
	return append([]byte{}, value...), nil
}

// SetUint64 stores a number as 8 bytes, big endian.
func (s *Store) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 returns a number, or [ErrKeyNotFound].
func (s *Store) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("%s in %s has %d bytes and is no number", key, s.path, len(value))
	}
	return binary.BigEndian.Uint64(value), nil
}

func (s *Store) loadSettings() error {
	record, err := s.disk.Get([]byte(settingsKey))
	if err != nil {
		return fmt.Errorf("raft's term and vote: %w", err)
	}
	loaded, err := decodeSettings(record)
	if err != nil {
		return fmt.Errorf("raft's term and vote: %w", err)
	}
	s.settings.Store(&loaded)
	return nil
}

// encode writes, in the order of keys, each key and value behind their lengths
// (uvarint), and a CRC-32C of it all, big endian.
func (v settings) encode() []byte {
	var record []byte
	for _, key := range slices.Sorted(maps.Keys(v)) {
		record = binary.AppendUvarint(record, uint64(len(key)))
		record = append(record, key...)
		record = binary.AppendUvarint(record, uint64(len(v[key])))
		record = append(record, v[key]...)
	}
	return binary.BigEndian.AppendUint32(record, crc32.Checksum(record, castagnoli()))
}

func decodeSettings(record []byte) (settings, error) {
	end := len(record) - crc32.Size
	if end < 0 {
		return nil, errors.New("the record is cut off")
	}
	rest := record[:end]
	if binary.BigEndian.Uint32(record[end:]) != crc32.Checksum(rest, castagnoli()) {
		return nil, errors.New("the checksum is wrong")
	}
	v := make(settings)
	for len(rest) > 0 {
		key, afterKey, ok := cutField(rest)
		if !ok {
			return nil, errors.New("a key is cut off")
		}
		value, afterValue, ok := cutField(afterKey)
		if !ok {
			return nil, fmt.Errorf("the value of %s is cut off", key)
		}
		v[string(key)] = bytes.Clone(value)
		rest = afterValue
	}
	return v, nil
}

func cutField(b []byte) (field, rest []byte, ok bool) {
	size, n := binary.Uvarint(b)
	if n <= 0 || size > uint64(len(b)-n) {
		return nil, nil, false
	}
	b = b[n:]
	return b[:size], b[size:], true
}
