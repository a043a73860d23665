package webrtc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"srsx/proxy/webrtc/sdp"
)

const (
	resolveTime  = 2 * time.Second
	resolvedTime = 10 * time.Second // that the addresses of a name are used again
)

// errCandidates means that no name of this peer could be resolved.
var errCandidates = errors.New("addresses of this peer are not known")

// candidates are where clients reach the media port of this peer.
type candidates struct {
	hosts []hostPort
	tcp   bool
	// resolve looks a name up.
	resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	mu    sync.Mutex
	names map[string]resolved // guarded by mu
}

type hostPort struct {
	host string
	port uint16
}

type resolved struct {
	addrs []netip.Addr
	until time.Time
}

// ParseCandidate reads where clients reach the media port: an address or a name,
// maybe with a port of its own; port is 0 without one.
func ParseCandidate(text string) (host string, port uint16, err error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.String(), 0, usable(addr)
	}
	host, number := text, ""
	if h, p, err := net.SplitHostPort(text); err == nil {
		host, number = h, p
	}
	if number != "" {
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("%q has no valid port", text)
		}
		port = uint16(n)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.String(), port, usable(addr)
	}
	for _, c := range host {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return "", 0, fmt.Errorf("%q is neither an address nor a host name", text)
		}
	}
	if host == "" {
		return "", 0, fmt.Errorf("%q is neither an address nor a host name", text)
	}
	return host, port, nil
}

func usable(addr netip.Addr) error {
	if addr.IsUnspecified() || addr.IsMulticast() || addr.Zone() != "" {
		return fmt.Errorf("%s is no address that clients can reach", addr)
	}
	return nil
}

// newCandidates takes texts that ParseCandidate does.
func newCandidates(texts []string, port uint16, tcp bool) *candidates {
	c := &candidates{tcp: tcp, names: make(map[string]resolved), resolve: func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}}
	for _, text := range texts {
		host, own, err := ParseCandidate(text)
		if err != nil {
			continue
		}
		if own == 0 {
			own = port
		}
		c.hosts = append(c.hosts, hostPort{host, own})
	}
	return c
}

// list returns the candidates for an answer: UDP in the order of the
// configuration, then TCP.
func (c *candidates) list(ctx context.Context) ([]sdp.Candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveTime)
	defer cancel()
	var list []sdp.Candidate
	var failed []error
	for _, h := range c.hosts {
		addrs, err := c.addrs(ctx, h.host)
		if err != nil {
			failed = append(failed, err)
		}
		for _, addr := range addrs {
			list = append(list, sdp.Candidate{Addr: netip.AddrPortFrom(addr.Unmap(), h.port)})
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%w: %w", errCandidates, errors.Join(failed...))
	}
	if c.tcp {
		for _, udp := range list {
			list = append(list, sdp.Candidate{Addr: udp.Addr, TCP: true})
		}
	}
	return list, nil
}

// addrs returns the addresses of a host. Those of a name are kept for a while,
// and longer when it cannot be resolved any more.
func (c *candidates) addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	c.mu.Lock()
	known := c.names[host]
	c.mu.Unlock()
	now := time.Now()
	if now.Before(known.until) {
		return known.addrs, nil
	}
	addrs, err := c.resolve(ctx, host)
	if err != nil {
		return known.addrs, err
	}
	c.mu.Lock()
	c.names[host] = resolved{addrs, now.Add(resolvedTime)}
	c.mu.Unlock()
	return addrs, nil
}
