package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// header of a page; see the layout in inspect.go.
type header struct {
	id       uint64
	flags    uint16
	count    uint16
	overflow uint32
}

func headerOf(page []byte) header {
	return header{
		id:       binary.NativeEndian.Uint64(page),
		flags:    binary.NativeEndian.Uint16(page[8:]),
		count:    binary.NativeEndian.Uint16(page[10:]),
		overflow: binary.NativeEndian.Uint32(page[12:]),
	}
}

// child is one element of a branch page: a page and the keys below it.
type child struct {
	page   uint64
	within span
}

// packing follows the keys and values of a page, which bbolt writes one after
// the other behind the elements. A count, a position or a size that was changed
// does not fit its neighbours.
type packing struct {
	page []byte
	next uint64 // where the next key has to begin
	last []byte // key
}

func (h header) packing(page []byte) (packing, error) {
	next := uint64(pageHeader) + uint64(h.count)*elementSize
	if next > uint64(len(page)) {
		return packing{}, fmt.Errorf("no room for %d elements", h.count)
	}
	return packing{page: page, next: next}, nil
}

// element returns the i-th element and where in the page it stands.
func (p *packing) element(i uint16) (e []byte, at uint64) {
	at = uint64(pageHeader) + uint64(i)*elementSize
	return p.page[at:][:elementSize], at
}

// take returns the next key and value, which have to begin at begin.
func (p *packing) take(begin, keySize, valueSize uint64, within span) (key, value []byte, err error) {
	if begin != p.next {
		return nil, nil, fmt.Errorf("a key begins at %d instead of %d", begin, p.next)
	}
	if keySize == 0 || keySize+valueSize > uint64(len(p.page))-begin {
		return nil, nil, fmt.Errorf("a key of %d bytes with a value of %d", keySize, valueSize)
	}
	key = p.page[begin:][:keySize]
	value = p.page[begin+keySize:][:valueSize]
	if !within.holds(key) || p.last != nil && bytes.Compare(key, p.last) <= 0 {
		return nil, nil, fmt.Errorf("key %x is out of order", key)
	}
	p.next, p.last = begin+keySize+valueSize, key
	return key, value, nil
}

// leaf visits the elements of a leaf page and returns how many bytes it uses.
func (h header) leaf(page []byte, within span, visit func(element) error) (used uint64, err error) {
	p, err := h.packing(page)
	if err != nil {
		return 0, err
	}
	for i := range h.count {
		e, at := p.element(i)
		key, value, err := p.take(
			at+uint64(binary.NativeEndian.Uint32(e[4:])),
			uint64(binary.NativeEndian.Uint32(e[8:])),
			uint64(binary.NativeEndian.Uint32(e[12:])),
			within,
		)
		if err != nil {
			return 0, err
		}
		if err := visit(element{flags: binary.NativeEndian.Uint32(e), key: key, value: value}); err != nil {
			return 0, err
		}
	}
	return p.next, nil
}

// branch returns the children of a branch page and how many bytes it uses.
func (h header) branch(page []byte, within span) (used uint64, children []child, err error) {
	p, err := h.packing(page)
	if err != nil {
		return 0, nil, err
	}
	if h.count == 0 {
		return 0, nil, errors.New("a branch without children")
	}
	for i := range h.count {
		e, at := p.element(i)
		key, _, err := p.take(
			at+uint64(binary.NativeEndian.Uint32(e)),
			uint64(binary.NativeEndian.Uint32(e[4:])),
			0,
			within,
		)
		if err != nil {
			return 0, nil, err
		}
		if i > 0 {
			children[i-1].within.below = key
		}
		children = append(children, child{
			page:   binary.NativeEndian.Uint64(e[8:]),
			within: span{from: key, below: within.below},
		})
	}
	return p.next, children, nil
}
