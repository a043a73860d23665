package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Networks is a set of address ranges, such as those whose word about a
// client's address is believed. The zero value holds none.
type Networks []netip.Prefix

// ParseNetworks reads ranges (10.0.0.0/8) and single addresses (::1).
func ParseNetworks(texts ...string) (Networks, error) {
	var networks Networks
	for _, text := range texts {
		prefix, err := parseNetwork(strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("network %q: want an address or address/bits", text)
		}
		networks = append(networks, prefix)
	}
	return networks, nil
}

func parseNetwork(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
			prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96) // Contains looks at the IPv4 address
		}
		return prefix.Masked(), err
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	addr = addr.Unmap().WithZone("")
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

// Contains reports whether addr is in one of the networks. An IPv4 address
// mapped into IPv6 is the IPv4 address.
func (n Networks) Contains(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	for _, prefix := range n {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}

// AddrPortOf returns a connection's address in comparable form, IPv4 unmapped;
// the zero value when it is not an address of IP.
func AddrPortOf(addr net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := addr.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
