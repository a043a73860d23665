// Package lb decides and remembers which origin holds which stream. The
// [Balancer] interface is what the proxy sees; each backend lives in a package
// of its own and passes the contract of lb/lbtest.
package lb

import "srsx/fsm"

// The vocabulary of fsm, named here so that the proxy needs only this package.
type (
	Stream      = fsm.Stream
	OriginID    = fsm.OriginID
	Incarnation = fsm.Incarnation
	Protocol    = fsm.Protocol
	Endpoints   = fsm.Endpoints
	OriginState = fsm.OriginState
	Origin      = fsm.Origin
	Placement   = fsm.Placement
	Holder      = fsm.Holder
)

// See the constants of the same names in fsm.
const (
	DefaultVHost  = fsm.DefaultVHost
	DefaultWeight = fsm.DefaultWeight

	RTMP = fsm.RTMP
	HTTP = fsm.HTTP
	API  = fsm.API
	SRT  = fsm.SRT
	RTC  = fsm.RTC

	Up       = fsm.Up
	Down     = fsm.Down
	Draining = fsm.Draining
)

// ParseStream reads [vhost/]app/name; see [fsm.ParseStream].
func ParseStream(text string) (Stream, error) { return fsm.ParseStream(text) }
