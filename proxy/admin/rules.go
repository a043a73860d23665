package admin

import (
	"cmp"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// OriginRules say which origins may register and what is known of them beside
// what they say.
type OriginRules struct {
	Allow     proxy.Networks      // where a registered origin may live
	Own       []netip.AddrPort    // listeners of this peer; an unspecified address: on all of its own
	OwnNames  []string            // names and addresses that lead to this peer, beside localhost
	Overrides map[string]Override // by server id or device id
}

// Override is what the configuration knows better than an origin's heartbeat.
type Override struct {
	Address    string // instead of ip: for origins that register an inner address
	Weight     *uint32
	MaxStreams uint32
	Labels     []string
}

const (
	maxField     = 256 // bytes of an identity
	maxEndpoints = 32  // of one protocol
)

// Registration turns a heartbeat into what the balancer takes. Errors name the
// field.
func (o OriginRules) Registration(b Heartbeat) (lb.Registration, error) {
	for _, field := range []struct{ name, value string }{
		{"ip", b.IP}, {"server", b.Server}, {"service", b.Service}, {"pid", string(b.PID)},
	} {
		if field.value == "" {
			return lb.Registration{}, badField(field.name, "is missing")
		}
	}
	if len(b.RTMP) == 0 {
		return lb.Registration{}, badField("rtmp", "is missing: an origin without RTMP is not served (SRS sends it with heartbeat { ports on; })")
	}
	return o.complete(b, cmp.Or(o.overrideOf(b).Address, b.IP))
}

// Static turns an entry of the configuration, in the form of a heartbeat, into
// what the balancer takes. It needs no ip where each endpoint has its host.
func (o OriginRules) Static(b Heartbeat) (lb.Registration, error) {
	if len(b.RTMP) == 0 {
		return lb.Registration{}, badField("rtmp", "is missing: an origin without RTMP is not served")
	}
	r, err := o.complete(b, b.IP)
	if err != nil {
		return lb.Registration{}, err
	}
	if r.Origin.IP == "" {
		r.Origin.IP, _, _ = net.SplitHostPort(r.Origin.Endpoints.RTMP[0])
	}
	r.Origin.Static, r.Replace = true, true
	return r, nil
}

func (o OriginRules) overrideOf(b Heartbeat) Override {
	if over, ok := o.Overrides[b.Server]; ok {
		return over
	}
	return o.Overrides[b.DeviceID]
}

// complete builds the registration of an origin that lives at host.
func (o OriginRules) complete(b Heartbeat, host string) (lb.Registration, error) {
	for _, field := range []struct{ name, value string }{
		{"ip", b.IP}, {"server", b.Server}, {"service", b.Service}, {"pid", string(b.PID)}, {"device_id", b.DeviceID},
	} {
		if len(field.value) > maxField || strings.ContainsFunc(field.value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return lb.Registration{}, badField(field.name, "is too long or holds control characters")
		}
	}
	over := o.overrideOf(b)
	origin := lb.Origin{
		ID:          lb.OriginID(b.Server),
		Incarnation: lb.Incarnation{Server: b.Server, Service: b.Service, PID: string(b.PID)},
		DeviceID:    b.DeviceID, IP: host, Weight: lb.DefaultWeight,
		MaxStreams: over.MaxStreams, Labels: slices.Sorted(slices.Values(over.Labels)),
	}
	if over.Weight != nil {
		origin.Weight = *over.Weight
	}
	for _, list := range []struct {
		name, scheme string
		in           []string
		out          *[]string
	}{
		{"rtmp", "", b.RTMP, &origin.Endpoints.RTMP},
		{"http", "", b.HTTP, &origin.Endpoints.HTTP},
		{"api", "", b.API, &origin.Endpoints.API},
		{"srt", "udp", b.SRT, &origin.Endpoints.SRT},
		{"rtc", "udp", b.RTC, &origin.Endpoints.RTC},
	} {
		if len(list.in) > maxEndpoints {
			return lb.Registration{}, badField(list.name, fmt.Sprintf("has more than %d endpoints", maxEndpoints))
		}
		for _, text := range list.in {
			endpoint, err := parseEndpoint(text, b.IP, host, list.scheme)
			if err != nil {
				return lb.Registration{}, badField(list.name, err.Error())
			}
			*list.out = append(*list.out, endpoint)
		}
	}
	registration := lb.Registration{Origin: origin}
	if s := b.Summaries; s.ok {
		registration.Load = &lb.Load{CPUPercent: s.CPUPercent, Connections: s.Connections, SendBytes: s.SendBytes, At: time.Now()}
	}
	return registration, nil
}

func badField(name, what string) error {
	return &apiError{http.StatusBadRequest, "field " + name + " " + what}
}

// parseEndpoint completes 1935, :1935, tcp://:1935, udp://0.0.0.0:8000 and
// host:port. Where it names no host, an unspecified one or that of the
// heartbeat's ip, it gets host. The result has a scheme where the protocol may
// have two: scheme is then the usual one.
func parseEndpoint(text, ip, host, scheme string) (string, error) {
	given, rest, ok := strings.Cut(text, "://")
	if !ok {
		given, rest = cmp.Or(scheme, "tcp"), text
	}
	if given != "tcp" && given != "udp" {
		return "", fmt.Errorf("has a scheme that is neither tcp nor udp: %q", text)
	}
	if scheme == "" && given == "udp" {
		return "", fmt.Errorf("is not served over UDP: %q", text)
	}
	name, port, err := net.SplitHostPort(rest)
	if err != nil {
		name, port = "", rest
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("has no port: %q", text)
	}
	if addr, err := netip.ParseAddr(name); name == "" || name == "*" || name == ip || err == nil && addr.IsUnspecified() {
		name = host
	}
	if name == "" {
		return "", fmt.Errorf("has no host, and the origin has no address: %q", text)
	}
	endpoint := net.JoinHostPort(name, port)
	if scheme != "" {
		endpoint = given + "://" + endpoint
	}
	return endpoint, nil
}

// admit checks that an origin lives where it may: an address that the API hands
// to every peer to connect to must not be a way to reach what they can reach.
// own is the address that the configuration gives the origin, if it does.
func (o OriginRules) admit(origin lb.Origin, caller netip.Addr, own string) error {
	if err := o.admitHost("ip", origin.IP, caller, own); err != nil {
		return err
	}
	for protocol, host := range hosts(origin) {
		if host == origin.IP {
			continue
		}
		if err := o.admitHost(protocol.String(), host, caller, own); err != nil {
			return err
		}
	}
	return o.RefuseOwn(origin)
}

func (o OriginRules) admitHost(field, host string, caller netip.Addr, own string) error {
	if own != "" && host == own {
		return nil
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return badField(field, "is not an IP address; a name needs an entry in the configuration")
	}
	zone := addr.Zone()
	addr = addr.Unmap()
	switch {
	case addr.IsUnspecified(), addr.IsMulticast(), addr.IsLinkLocalUnicast(), zone != "", addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return &apiError{http.StatusForbidden, "field " + field + " is an address at which no origin may live"}
	case addr == caller, o.Allow.Contains(addr):
		return nil
	default:
		return &apiError{http.StatusForbidden, "field " + field + " is neither the caller's address nor in -origin-allow"}
	}
}

// RefuseOwn returns an error when an endpoint is a listener of this peer: it
// would relay to itself.
func (o OriginRules) RefuseOwn(origin lb.Origin) error {
	for i, list := range origin.Endpoints.Lists() {
		for _, endpoint := range list {
			host, port := split(endpoint)
			if o.isOwn(host, port) {
				return &apiError{http.StatusForbidden, fmt.Sprintf(
					"field %s names this peer's own listener: it would relay to itself", lb.Protocol(i))}
			}
		}
	}
	return nil
}

// hosts yields the host of each endpoint.
func hosts(origin lb.Origin) func(yield func(lb.Protocol, string) bool) {
	return func(yield func(lb.Protocol, string) bool) {
		for i, list := range origin.Endpoints.Lists() {
			for _, endpoint := range list {
				if host, _ := split(endpoint); !yield(lb.Protocol(i), host) {
					return
				}
			}
		}
	}
}

// split takes a complete endpoint apart.
func split(endpoint string) (host, port string) {
	if _, rest, ok := strings.Cut(endpoint, "://"); ok {
		endpoint = rest
	}
	host, port, _ = net.SplitHostPort(endpoint)
	return host, port
}

// isOwn reports whether host and port lead to a listener of this peer.
func (o OriginRules) isOwn(host, port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	addr = addr.Unmap().WithZone("")
	for _, own := range o.Own {
		if uint64(own.Port()) != n {
			continue
		}
		if o.isOwnName(host) || err == nil && (own.Addr().Unmap() == addr || own.Addr().IsUnspecified() && isLocal(addr)) {
			return true
		}
	}
	return false
}

// isOwnName reports whether a host name leads to this peer. It asks no
// resolver: whoever answers that could also change the answer later.
func (o OriginRules) isOwnName(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.ContainsFunc(o.OwnNames, func(name string) bool {
		return strings.EqualFold(strings.TrimSuffix(name, "."), host)
	})
}

func isLocal(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	known, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(known, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Addr().Unmap() == addr
	})
}
