package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
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
	Overrides map[string]Override // by server id or device id
}

// Override is what the configuration knows better than an origin's heartbeat.
type Override struct {
	Address    string // instead of ip: for origins that register an inner address
	Weight     *uint32
	MaxStreams uint32
	Labels     []string
}

// Heartbeat is the body of a registration as SRS sends it.
type Heartbeat struct {
	IP        string    `json:"ip"`
	Server    string    `json:"server"`
	Service   string    `json:"service"`
	PID       text      `json:"pid"`
	DeviceID  string    `json:"device_id"`
	RTMP      []string  `json:"rtmp"`
	HTTP      []string  `json:"http"`
	API       []string  `json:"api"`
	SRT       []string  `json:"srt"`
	RTC       []string  `json:"rtc"`
	Summaries summaries `json:"summaries"`
}

// text is a string that some scripts send as a number.
type text string

// UnmarshalJSON takes a string or a number.
func (t *text) UnmarshalJSON(b []byte) error {
	var n json.Number
	if err := json.Unmarshal(b, &n); err == nil && len(b) > 0 && b[0] != '"' {
		*t = text(n.String())
		return nil
	}
	return json.Unmarshal(b, (*string)(t))
}

// summaries is SRS's report of itself, as far as placement uses it. It is
// optional, and its form differs between versions: what does not fit is as if
// it were not there.
type summaries struct {
	CPUPercent  float64
	Connections int64
	SendBytes   int64
	ok          bool
}

// UnmarshalJSON takes the fields directly, or below data.self and data.system.
func (s *summaries) UnmarshalJSON(b []byte) error {
	type fields struct {
		CPUPercent  *float64 `json:"cpu_percent"`
		Connections int64    `json:"conn_srs"`
		SendBytes   int64    `json:"srs_send_bytes"`
	}
	var flat fields
	var deep struct {
		Data struct {
			System fields `json:"system"`
		} `json:"data"`
	}
	if errors.Join(json.Unmarshal(b, &flat), json.Unmarshal(b, &deep)) != nil {
		return nil //nolint:nilerr // a report that cannot be read refuses no origin
	}
	if flat.CPUPercent == nil {
		flat = deep.Data.System
	}
	if flat.CPUPercent != nil {
		// SRS counts in parts of one.
		*s = summaries{CPUPercent: *flat.CPUPercent * 100, Connections: flat.Connections, SendBytes: flat.SendBytes, ok: true}
	}
	return nil
}

func (s *Server) register(r *http.Request) (map[string]any, error) {
	caller := addrOf(r)
	if !s.rates.allow(caller) {
		return nil, &apiError{http.StatusTooManyRequests, "too many registrations from this address"}
	}
	proved, err := s.mayRegister(r)
	if err != nil {
		return nil, err
	}
	var beat Heartbeat
	if err = decode(r, &beat); err != nil {
		return nil, err
	}
	registration, err := s.config.Origins.Registration(beat)
	if err != nil {
		return nil, err
	}
	if err := s.config.Origins.admit(registration.Origin, caller); err != nil {
		return nil, err
	}
	if old, ok := s.config.Balancer.Origin(registration.Origin.ID); ok && !proved && old.State != lb.Down &&
		old.Incarnation != registration.Origin.Incarnation && old.IP != registration.Origin.IP && old.IP != caller.String() {
		return nil, fmt.Errorf("%w: %s lives at another address", lb.ErrDuplicateOrigin, old.ID)
	}
	if err := s.config.Balancer.Register(r.Context(), registration); err != nil {
		return nil, fmt.Errorf("register %s: %w", beat.Server, err)
	}
	return map[string]any{"pid": strconv.Itoa(os.Getpid())}, nil
}

// mayRegister checks the token in the path, and what a browser would send.
func (s *Server) mayRegister(r *http.Request) (proved bool, err error) {
	want := s.config.Access.RegisterToken
	given := r.PathValue("token")
	if want != "" && !equal(given, want) {
		return false, &apiError{http.StatusUnauthorized, "registration needs the token in its path: /api/v1/srs/register/TOKEN"}
	}
	if r.Header.Get("Origin") != "" && !s.config.Access.ownOrigin(r) {
		return false, &apiError{http.StatusForbidden, "request comes from a page of another site"}
	}
	return want != "", nil
}

// Registration turns a heartbeat, or a static origin in the same form, into
// what the balancer takes. Errors name the field.
func (o OriginRules) Registration(b Heartbeat) (lb.Registration, error) {
	for name, value := range map[string]string{"ip": b.IP, "server": b.Server, "service": b.Service, "pid": string(b.PID)} {
		if value == "" {
			return lb.Registration{}, badField(name, "is missing")
		}
		if len(value) > 256 || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return lb.Registration{}, badField(name, "is too long or holds control characters")
		}
	}
	if len(b.RTMP) == 0 {
		return lb.Registration{}, badField("rtmp", "is missing: an origin without RTMP is not served")
	}
	over, known := o.Overrides[b.Server]
	if !known {
		over = o.Overrides[b.DeviceID]
	}
	host := b.IP
	if over.Address != "" {
		host = over.Address
	}
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
		for _, text := range list.in {
			endpoint, err := parseEndpoint(text, host, list.scheme)
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
// host:port. The result has a scheme where the protocol may have two.
func parseEndpoint(text, host, scheme string) (string, error) {
	given, rest, ok := strings.Cut(text, "://")
	if !ok {
		given, rest = scheme, text
	}
	if given != "" && given != "tcp" && given != "udp" {
		return "", fmt.Errorf("has a scheme that is neither tcp nor udp: %q", text)
	}
	name, port, err := net.SplitHostPort(rest)
	if err != nil {
		name, port = "", rest
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("has no port: %q", text)
	}
	if addr, err := netip.ParseAddr(name); name == "" || name == "*" || err == nil && addr.IsUnspecified() {
		name = host
	}
	endpoint := net.JoinHostPort(name, port)
	if scheme != "" {
		endpoint = given + "://" + endpoint
	}
	return endpoint, nil
}

// admit checks that an origin lives where it may: an address that the API hands
// to every peer to connect to must not be a way to reach what they can reach.
func (o OriginRules) admit(origin lb.Origin, caller netip.Addr) error {
	if err := o.admitHost("ip", origin.IP, caller); err != nil {
		return err
	}
	for i, list := range origin.Endpoints.Lists() {
		for _, endpoint := range list {
			_, rest, ok := strings.Cut(endpoint, "://")
			if !ok {
				rest = endpoint
			}
			host, port, err := net.SplitHostPort(rest)
			if err != nil {
				return badField(lb.Protocol(i).String(), "is not host:port")
			}
			if host != origin.IP {
				if err := o.admitHost(lb.Protocol(i).String(), host, caller); err != nil {
					return err
				}
			}
			if o.isOwn(host, port) {
				return &apiError{http.StatusForbidden, "an endpoint is this peer's own listener: it would relay to itself"}
			}
		}
	}
	return nil
}

func (o OriginRules) admitHost(field, host string, caller netip.Addr) error {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return badField(field, "is not an IP address; a name needs an entry in the configuration")
	}
	addr = addr.Unmap()
	switch {
	case addr.IsUnspecified(), addr.IsMulticast(), addr.IsLinkLocalUnicast(), addr.Zone() != "":
		return &apiError{http.StatusForbidden, "field " + field + " is an address at which no origin may live"}
	case addr == caller, o.Allow.Contains(addr), o.isOverride(host):
		return nil
	default:
		return &apiError{http.StatusForbidden, "field " + field + " is neither the caller's address nor in -origin-allow"}
	}
}

// isOverride reports whether the configuration itself gave the address.
func (o OriginRules) isOverride(host string) bool {
	for _, over := range o.Overrides {
		if over.Address == host {
			return true
		}
	}
	return false
}

// isOwn reports whether host and port lead to a listener of this peer.
func (o OriginRules) isOwn(host, port string) bool {
	addr, err := netip.ParseAddr(host)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil {
		return false
	}
	addr = addr.Unmap()
	for _, own := range o.Own {
		if uint64(own.Port()) == n && (own.Addr().Unmap() == addr || own.Addr().IsUnspecified() && isLocal(addr)) {
			return true
		}
	}
	return false
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
