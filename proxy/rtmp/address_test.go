package rtmp

import (
	"bytes"
	"io"
	"net/netip"
	"testing"
)

// after is a client that sends b.
func after(b []byte) io.ReadWriter {
	return struct {
		io.Reader
		io.Writer
	}{bytes.NewReader(b), io.Discard}
}

func FuzzClientAddress(f *testing.F) {
	f.Add([]byte{3, 1, 2, 3})
	f.Add([]byte{0xf3, 0, 4, 203, 0, 113, 7, 3})
	f.Add(append([]byte{0xf3, 0, 16}, make([]byte, 17)...))
	f.Add([]byte{0xf3, 0xff, 0xff})
	f.Add(appendClientAddress(nil, netip.MustParseAddr("2001:db8::1")))
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, rw, err := readClientAddress(after(b))
		if err != nil {
			return
		}
		rest, err := io.ReadAll(rw)
		if err != nil {
			t.Fatal(err)
		}
		if !addr.IsValid() {
			if !bytes.Equal(rest, b) {
				t.Fatalf("without a header % x is read as % x", b, rest)
			}
			return
		}
		again, rw, err := readClientAddress(after(append(appendClientAddress(nil, addr), rest...)))
		if err != nil || again != addr {
			t.Fatalf("address %v became %v, %v", addr, again, err)
		}
		if kept, _ := io.ReadAll(rw); !bytes.Equal(kept, rest) {
			t.Fatalf("what follows is read as % x; want % x", kept, rest)
		}
	})
}
