package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"sync"
	"time"

	"srsx/lb"
)

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

// registerTimeout bounds a registration. SRS's timer loop waits for the answer,
// so a probe of the incarnation before that hangs must not take long.
const registerTimeout = time.Second

// refusalBurst is how many refusals are logged at once, and then one a second.
const refusalBurst = 20

// registerOrSay logs a refusal: SRS looks at no answer, so that nobody else
// would say why an origin does not appear.
func (s *Server) registerOrSay(r *http.Request) (map[string]any, error) {
	answer, err := s.register(r)
	if err != nil && s.refusals.Allow() {
		s.config.Log.WarnContext(r.Context(), "registration refused", "client", r.RemoteAddr, "err", err)
	}
	return answer, err
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
	if err = s.config.Origins.admit(registration.Origin, caller, s.config.Origins.overrideOf(beat).Address); err != nil {
		return nil, err
	}
	repeats, err := s.mayChange(registration.Origin, caller)
	if err != nil && !proved {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(r.Context(), registerTimeout)
	defer cancel()
	if err = s.config.Balancer.Register(ctx, registration); err != nil {
		return nil, fmt.Errorf("register %s: %w", beat.Server, err)
	}
	if !repeats {
		s.callers.remember(registration.Origin.ID, caller, s.knows)
	}
	return map[string]any{"pid": strconv.Itoa(os.Getpid())}, nil
}

// mayRegister checks the token in the path, and what a browser would send.
// proved is true when the caller had a token.
func (s *Server) mayRegister(r *http.Request) (proved bool, err error) {
	access := s.config.Access
	proved = equal(r.PathValue("token"), access.RegisterToken) || equal(bearer(r), access.Token)
	if access.RegisterToken != "" && !proved {
		return false, &apiError{http.StatusUnauthorized, "registration needs the token in its path: /api/v1/srs/register/TOKEN"}
	}
	if r.Header.Get("Origin") != "" && !access.ownOrigin(r) {
		return false, &apiError{http.StatusForbidden, "request comes from a page of another site"}
	}
	return proved, nil
}

// mayChange refuses that a caller takes over a live origin from elsewhere: by
// another incarnation, or by the same one with other endpoints. The address
// that an origin first registered from is its own, as is the one it lives at.
// repeats is true when the origin says what is known.
func (s *Server) mayChange(said lb.Origin, caller netip.Addr) (repeats bool, err error) {
	known, ok := s.config.Balancer.Origin(said.ID)
	switch {
	case !ok:
		return false, nil
	case known.Static:
		return false, fmt.Errorf("%w: %s is a static origin of the configuration", lb.ErrDuplicateOrigin, said.ID)
	case known.Incarnation == said.Incarnation && known.IP == said.IP && reflect.DeepEqual(known.Endpoints, said.Endpoints):
		return true, nil
	case known.State == lb.Down, known.IP == caller.String(), s.callers.of(said.ID) == caller:
		return false, nil
	default:
		return false, fmt.Errorf("%w: %s lives at another address", lb.ErrDuplicateOrigin, said.ID)
	}
}

func (s *Server) knows(id lb.OriginID) bool {
	_, ok := s.config.Balancer.Origin(id)
	return ok
}

// callers remembers from which address each origin registered: behind NAT and
// in containers it is not the one at which it lives.
type callers struct {
	mu    sync.Mutex
	known map[lb.OriginID]netip.Addr // guarded by mu
	room  int                        // guarded by mu; then those that are gone are looked for
}

func (c *callers) of(id lb.OriginID) netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[id]
}

func (c *callers) remember(id lb.OriginID, addr netip.Addr, known func(lb.OriginID) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known, c.room = make(map[lb.OriginID]netip.Addr), 64
	}
	if len(c.known) >= c.room {
		maps.DeleteFunc(c.known, func(id lb.OriginID, _ netip.Addr) bool { return !known(id) })
		c.room = max(c.room, 2*len(c.known))
	}
	c.known[id] = addr
}
