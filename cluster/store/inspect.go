package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
)

// Layout of a bbolt file, format version 2, in the byte order of the machine.
//
//	page     id 8 | flags 2 | count 2 | overflow 4 | elements | keys and values
//	branch   pos 4 | ksize 4 | page 8                  one element for each child
//	leaf     flags 4 | pos 4 | ksize 4 | vsize 4       one for each key
//	bucket   root page 8 | sequence 8 | root page itself, where the first is 0
//	freelist numbers of pages, 8 each
//	meta     magic 4 | version 4 | page size 4 | flags 4 | root bucket 16 |
//	         free list 8 | pages in use 8 | transaction 8 | FNV-1a of these 8
//
// Pages 0 and 1 are meta pages, written in turns: the one with the higher
// transaction counts.
const (
	pageHeader   = 16
	elementSize  = 16
	bucketHeader = 16
	metaSize     = 56 // without the page header and the checksum

	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = ^uint64(0)

	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freelistPage = 0x10

	leafOfBucket = 0x01 // flag of a leaf element whose value is a bucket
)

// inspection reads a bbolt file without mapping it.
type inspection struct {
	file     io.ReaderAt
	size     uint64
	pageSize uint64
	pages    uint64 // below this are the pages in use or free
	freelist uint64 // page of the list of free pages, or noFreelist
	seen     map[uint64]bool
}

// inspect reads the whole tree of a log and returns an error matching
// [ErrDamaged] unless it is exactly as bbolt writes it. bbolt itself trusts the
// file: it maps it, so that one that is cut short ends the process with SIGBUS,
// and looks for free pages on a goroutine of its own, whose panic nobody can
// recover. This is why what follows is done before bbolt sees the file.
func inspect(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open raft log: %w", err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("open raft log: %w", err)
	}
	if err := newInspection(file, info.Size()).run(); err != nil {
		return damaged(path, err)
	}
	return nil
}

func newInspection(file io.ReaderAt, size int64) *inspection {
	return &inspection{file: file, size: uint64(size), seen: make(map[uint64]bool)}
}

func (f *inspection) run() error {
	root, err := f.metas()
	if err != nil {
		return err
	}
	buckets := make(map[string]element)
	err = f.tree(root, span{}, func(e element) error {
		if e.flags != leafOfBucket {
			return fmt.Errorf("%q beside the buckets is none", e.key)
		}
		e.key, e.value = bytes.Clone(e.key), bytes.Clone(e.value)
		buckets[string(e.key)] = e
		return nil
	})
	if err != nil {
		return err
	}
	if len(buckets) != 2 {
		return fmt.Errorf("it has %d buckets, not 2", len(buckets))
	}
	for _, bucket := range []struct {
		name  string
		visit func(element) error
	}{
		{"logs", func(e element) error {
			if e.flags != 0 || len(e.key) != 8 {
				return fmt.Errorf("%q is no entry", e.key)
			}
			return nil
		}},
		{"conf", func(e element) error {
			if e.flags != 0 {
				return fmt.Errorf("%q is no setting", e.key)
			}
			return nil
		}},
	} {
		if err := f.bucket(buckets[bucket.name].value, bucket.visit); err != nil {
			return fmt.Errorf("bucket %q: %w", bucket.name, err)
		}
	}
	return f.free()
}

// free inspects the list of free pages. We write none, but `bbolt compact` and
// whatever else opens the file for writing does.
func (f *inspection) free() error {
	if f.freelist == noFreelist {
		return nil
	}
	page, h, err := f.page(f.freelist, freelistPage)
	if err != nil {
		return fmt.Errorf("list of free pages: %w", err)
	}
	list, count := page[pageHeader:], uint64(h.count)
	if h.count == 0xFFFF { // then the first says how many follow
		count, list = binary.NativeEndian.Uint64(list), list[8:]
	}
	if count > uint64(len(list))/8 {
		return fmt.Errorf("list of free pages: %d in %d bytes", count, len(list))
	}
	for range count {
		id := binary.NativeEndian.Uint64(list)
		if id < 2 || id >= f.pages || f.seen[id] {
			return fmt.Errorf("list of free pages: page %d is not free", id)
		}
		f.seen[id] = true
		list = list[8:]
	}
	return nil
}

// metas reads both meta pages and returns the page of the root bucket.
//
// bbolt makes do with one that is whole. But the other was written and synced
// as well, and if it was the newer, then with it went a vote or entries that
// others count on. A write that power loss has cut in two is no excuse: the 64
// bytes lie in one sector.
func (f *inspection) metas() (root uint64, err error) {
	first, err := f.meta(0, 0)
	if err != nil {
		return 0, err
	}
	f.pageSize = uint64(binary.NativeEndian.Uint32(first[8:]))
	if f.pageSize < 1024 || f.pageSize > 1<<16 {
		return 0, fmt.Errorf("meta page 0: pages of %d bytes", f.pageSize)
	}
	second, err := f.meta(1, f.pageSize)
	if err != nil {
		return 0, err
	}
	const root0, list0, pages0, transaction0 = 16, 32, 40, 48
	newest := first
	if binary.NativeEndian.Uint64(second[transaction0:]) > binary.NativeEndian.Uint64(first[transaction0:]) {
		newest = second
	}
	f.freelist = binary.NativeEndian.Uint64(newest[list0:])
	f.pages = binary.NativeEndian.Uint64(newest[pages0:])
	if f.pages < 4 || f.pages > f.size/f.pageSize {
		return 0, fmt.Errorf("it has %d bytes, but %d pages of %d in use", f.size, f.pages, f.pageSize)
	}
	return binary.NativeEndian.Uint64(newest[root0:]), nil
}

func (f *inspection) meta(number, offset uint64) ([]byte, error) {
	page := make([]byte, pageHeader+metaSize+8)
	if _, err := f.file.ReadAt(page, int64(offset)); err != nil {
		return nil, fmt.Errorf("meta page %d: %w", number, err)
	}
	meta := page[pageHeader:][:metaSize]
	sum := fnv.New64a()
	_, _ = sum.Write(meta)
	switch {
	case binary.NativeEndian.Uint64(page) != number || binary.NativeEndian.Uint16(page[8:]) != metaPage:
		return nil, fmt.Errorf("meta page %d is none", number)
	case binary.NativeEndian.Uint32(meta) != boltMagic || binary.NativeEndian.Uint32(meta[4:]) != boltVersion:
		return nil, fmt.Errorf("meta page %d is of no bbolt file, or of another version", number)
	case binary.NativeEndian.Uint64(page[pageHeader+metaSize:]) != sum.Sum64():
		return nil, fmt.Errorf("meta page %d: its checksum is wrong", number)
	}
	return meta, nil
}

// element is one element of a leaf page; what it points to is only lent.
type element struct {
	flags      uint32
	key, value []byte
}

// span says between which keys those of a page lie: from, included, to below.
// nil leaves that side open.
type span struct{ from, below []byte }

func (s span) holds(key []byte) bool {
	return bytes.Compare(key, s.from) >= 0 && (s.below == nil || bytes.Compare(key, s.below) < 0)
}

// bucket inspects the tree behind the value of a bucket.
func (f *inspection) bucket(value []byte, visit func(element) error) error {
	if len(value) < bucketHeader {
		return errors.New("its head is cut off")
	}
	root := binary.NativeEndian.Uint64(value)
	switch sequence := binary.NativeEndian.Uint64(value[8:]); {
	case sequence != 0:
		return fmt.Errorf("its sequence is %d, never used by this program", sequence)
	case root != 0 && len(value) != bucketHeader:
		return fmt.Errorf("its head has %d bytes", len(value))
	case root != 0:
		return f.tree(root, span{}, visit)
	}
	page := value[bucketHeader:]
	if len(page) < pageHeader {
		return errors.New("its inner page is cut off")
	}
	h := headerOf(page)
	if h.id != 0 || h.flags != leafPage || h.overflow != 0 {
		return errors.New("its inner page is no leaf")
	}
	used, err := h.leaf(page, span{}, visit)
	if err == nil && used != uint64(len(page)) {
		err = fmt.Errorf("its inner page has %d bytes, %d of them used", len(page), used)
	}
	return err
}

// tree inspects a page and all below it and visits the elements of the leaves
// in the order of their keys.
func (f *inspection) tree(id uint64, within span, visit func(element) error) error {
	page, h, err := f.page(id, leafPage, branchPage)
	if err != nil {
		return err
	}
	var used uint64
	var children []child
	if h.flags == leafPage {
		used, err = h.leaf(page, within, visit)
	} else {
		used, children, err = h.branch(page, within)
	}
	if err == nil && (used+f.pageSize-1)/f.pageSize != 1+uint64(h.overflow) {
		err = fmt.Errorf("%d bytes used in %d more pages", used, h.overflow)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	for _, c := range children {
		if err := f.tree(c.page, c.within, visit); err != nil {
			return err
		}
	}
	return nil
}

// page reads a page of one of the kinds with those that it flows over to.
func (f *inspection) page(id uint64, kinds ...uint16) ([]byte, header, error) {
	if id < 2 || id >= f.pages {
		return nil, header{}, fmt.Errorf("page %d is not among the %d in use", id, f.pages)
	}
	head := make([]byte, pageHeader)
	if _, err := f.file.ReadAt(head, int64(id*f.pageSize)); err != nil {
		return nil, header{}, fmt.Errorf("page %d: %w", id, err)
	}
	h := headerOf(head)
	run := 1 + uint64(h.overflow)
	if h.id != id || !slices.Contains(kinds, h.flags) || run > f.pages-id {
		return nil, header{}, fmt.Errorf("page %d says that it is page %d of kind %#x with %d more", id, h.id, h.flags, h.overflow)
	}
	for i := id; i < id+run; i++ {
		if f.seen[i] {
			return nil, header{}, fmt.Errorf("page %d has two owners", i)
		}
		f.seen[i] = true
	}
	page := make([]byte, run*f.pageSize)
	if _, err := f.file.ReadAt(page, int64(id*f.pageSize)); err != nil {
		return nil, header{}, fmt.Errorf("page %d: %w", id, err)
	}
	return page, h, nil
}
