package fsm

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// DefaultVHost is the vhost of every stream whose host or vhost parameter is
// not configured as one of its own, as in SRS.
const DefaultVHost = "__defaultVhost__"

// ErrStreamName is returned by [ParseStream] for text that names no stream.
var ErrStreamName = errors.New("not a stream name, want [vhost/]app/name")

// Stream names one live stream. It is comparable and the key of everything
// the cluster agrees on. App may hold slashes; VHost and Name never do.
type Stream struct {
	VHost string
	App   string
	Name  string
}

// String returns vhost/app/name with percent escapes wherever a part holds a
// slash, so that [ParseStream] reads it back.
func (s Stream) String() string {
	return url.PathEscape(s.VHost) + "/" + url.PathEscape(s.App) + "/" + url.PathEscape(s.Name)
}

// Compare orders streams by vhost, app and name.
func (s Stream) Compare(o Stream) int {
	return cmp.Or(cmp.Compare(s.VHost, o.VHost), cmp.Compare(s.App, o.App), cmp.Compare(s.Name, o.Name))
}

// IsZero reports whether s names nothing.
func (s Stream) IsZero() bool { return s == Stream{} }

// ParseStream reads [vhost/]app/name; a slash inside a part is written %2F.
func ParseStream(text string) (Stream, error) {
	parts := strings.Split(strings.Trim(text, "/"), "/")
	if len(parts) == 2 {
		parts = append([]string{DefaultVHost}, parts...)
	}
	if len(parts) != 3 {
		return Stream{}, fmt.Errorf("%w: %q", ErrStreamName, text)
	}
	for i, part := range parts {
		plain, err := url.PathUnescape(part)
		if err != nil || plain == "" {
			return Stream{}, fmt.Errorf("%w: %q", ErrStreamName, text)
		}
		parts[i] = plain
	}
	return Stream{VHost: parts[0], App: parts[1], Name: parts[2]}, nil
}

// OriginID is the server id of an origin: SRS keeps it in a file, so it
// survives restarts. Static origins take theirs from the configuration.
type OriginID string

// Incarnation is one run of an origin. SRS keeps Server over a restart and
// changes Service and PID; placements die with the incarnation they name.
type Incarnation struct {
	Server  string
	Service string
	PID     string
}

// Protocol is what an origin has to serve for a stream to be placed on it.
type Protocol uint8

// The protocols of SRS's heartbeat. HTTP covers HTTP-FLV, HTTP-TS and HLS; API
// covers WHIP, WHEP and the older JSON calls.
const (
	RTMP Protocol = iota
	HTTP
	API
	SRT
	RTC
)

// String returns the heartbeat's own name of the protocol.
func (p Protocol) String() string {
	switch p {
	case RTMP:
		return "rtmp"
	case HTTP:
		return "http"
	case API:
		return "api"
	case SRT:
		return "srt"
	case RTC:
		return "rtc"
	default:
		return fmt.Sprintf("protocol(%d)", uint8(p))
	}
}

// Endpoints lists where an origin serves each protocol, complete: RTMP, HTTP
// and API as host:port, SRT and RTC as udp://host:port or tcp://host:port. The
// first of each list is the one to use.
type Endpoints struct {
	RTMP []string `json:"rtmp,omitempty"`
	HTTP []string `json:"http,omitempty"`
	API  []string `json:"api,omitempty"`
	SRT  []string `json:"srt,omitempty"`
	RTC  []string `json:"rtc,omitempty"`
}

// Of returns the endpoints that serve p, none when the origin does not.
func (e Endpoints) Of(p Protocol) []string {
	switch p {
	case RTMP:
		return e.RTMP
	case HTTP:
		return e.HTTP
	case API:
		return e.API
	case SRT:
		return e.SRT
	case RTC:
		return e.RTC
	default:
		return nil
	}
}

// Lists returns the endpoints of all protocols, in the order of [Protocol].
func (e Endpoints) Lists() [][]string { return [][]string{e.RTMP, e.HTTP, e.API, e.SRT, e.RTC} }

// OriginState says what an origin may be used for.
type OriginState uint8

// Up takes new streams; Draining keeps what it has until its deadline; Down is
// agreed to be dead, and its streams are placed anew when next asked for.
const (
	Up OriginState = iota
	Down
	Draining
)

// String returns the state as the API shows it.
func (s OriginState) String() string {
	switch s {
	case Up:
		return "up"
	case Down:
		return "down"
	case Draining:
		return "draining"
	default:
		return fmt.Sprintf("state(%d)", uint8(s))
	}
}

// DefaultWeight is the weight of an origin that names none. An origin of
// weight 200 is given twice its streams, one of weight 0 none.
const DefaultWeight = 100

// Origin is a media server and what is agreed about it.
type Origin struct {
	ID          OriginID
	Incarnation Incarnation
	DeviceID    string // as configured in SRS; may be empty
	IP          string // as registered; the endpoints are complete without it
	Endpoints   Endpoints
	Labels      []string // sorted; a pool is the origins that carry its label
	Weight      uint32
	// WeightPinned means that an operator set the weight: no heartbeat and no
	// configuration changes it.
	WeightPinned bool
	MaxStreams   uint32 // 0: no cap
	Static       bool   // from a configuration, so it never expires, only fails
	State        OriginState
	DrainUntil   time.Time // when Draining: end of the grace; zero: no deadline
	UpSince      time.Time // start of the current time in Up, for slow start
}

// Holder is one run of a peer. What a dead run held can be told from what the
// restarted peer holds, since its epoch differs.
type Holder struct {
	Peer  string
	Epoch uint64
}

// Placement is the agreed answer to "which origin has this stream".
type Placement struct {
	Stream      Stream
	Origin      OriginID
	Incarnation Incarnation // of the origin when the stream was placed
	Generation  uint64      // number of the command that made it; fences later ones
	PlacedAt    time.Time
	Publishing  bool
	Holders     []Holder  // peers with at least one session, sorted; none: about to go
	IdleSince   time.Time // when the last holder went; zero: held
	Orphaned    bool      // the last holder was a peer that was lost
}
