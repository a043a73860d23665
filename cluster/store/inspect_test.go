package store

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
)

// leafOf returns a leaf page with the keys, and values of one byte.
func leafOf(keys ...string) []byte {
	page := make([]byte, pageHeader+len(keys)*elementSize)
	var content []byte
	binary.NativeEndian.PutUint16(page[8:], leafPage)
	binary.NativeEndian.PutUint16(page[10:], uint16(len(keys)))
	for i, key := range keys {
		at := pageHeader + i*elementSize
		binary.NativeEndian.PutUint32(page[at+4:], uint32(len(page)+len(content)-at))
		binary.NativeEndian.PutUint32(page[at+8:], uint32(len(key)))
		binary.NativeEndian.PutUint32(page[at+12:], 1)
		content = append(append(content, key...), 'v')
	}
	return slices.Concat(page, content)
}

func TestPagesWithKeysOutOfPlaceAreRefused(t *testing.T) {
	for _, c := range []struct {
		keys   []string
		within span
		want   bool
	}{
		{[]string{"b", "c", "d"}, span{}, true},
		{[]string{"b", "c", "d"}, span{from: []byte("b"), below: []byte("e")}, true},
		{[]string{"b", "d", "c"}, span{}, false},
		{[]string{"b", "b"}, span{}, false},
		{[]string{"b", ""}, span{}, false},
		{[]string{"b", "c"}, span{from: []byte("bb")}, false},
		{[]string{"b", "c"}, span{below: []byte("c")}, false},
	} {
		page := leafOf(c.keys...)
		visited := ""
		used, err := headerOf(page).leaf(page, c.within, func(e element) error {
			visited += fmt.Sprintf("%s=%s ", e.key, e.value)
			return nil
		})
		if (err == nil) != c.want {
			t.Errorf("keys %q within %q: %v; want them accepted: %t", c.keys, c.within, err, c.want)
		}
		if err == nil && (used != uint64(len(page)) || visited != "b=v c=v d=v ") {
			t.Errorf("keys %q: visited %q, used %d of %d bytes", c.keys, visited, used, len(page))
		}
	}
}
