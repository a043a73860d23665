package datagram

import (
	"bytes"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// A run that the way does not take in one piece goes datagram by datagram.
func TestRunThatCannotBeCutByTheKernel(t *testing.T) {
	sink := listen(t, "[::1]:0")
	got := received(t, sink)
	s := dial(t, sink.Addr(), nil)
	const least = 1280 // bytes, of IPv6
	if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_MTU, least); err != nil {
		t.Fatal(err)
	}
	var out Sender
	const longer = 2000 // bytes, than the MTU
	for n := range 7 {
		out.Queue(s, numbered(n, longer), Way{})
	}
	if out.queued != 1 {
		t.Fatalf("7 datagrams are %d messages; want one run", out.queued)
	}
	out.Flush()
	for n := range 7 {
		if b := next(t, got); !bytes.Equal(b, numbered(n, longer)) {
			t.Fatalf("datagram %d arrived as %d bytes, %x", n, len(b), b[:4])
		}
	}
}

func TestAddressesAsTheKernelHasThem(t *testing.T) {
	for text, inet6 := range map[string]bool{
		"127.0.0.1:20080": false, "10.1.2.3:1": true, "[::1]:65535": true, "[fe80::1%3]:80": true,
	} {
		s := &Socket{inet6: inet6}
		want := netip.MustParseAddrPort(text)
		var name unix.RawSockaddrInet6
		if size := s.putAddress(&name, want); (size == unix.SizeofSockaddrInet6) != inet6 {
			t.Errorf("%s takes %d bytes", text, size)
		}
		if got := addressOf(&name); got != want {
			t.Errorf("%s became %s", want, got)
		}
	}
}
