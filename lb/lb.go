// Package lb decides and remembers which origin holds which stream. The
// [Balancer] interface is what the proxy sees; each backend lives in a package
// of its own and passes the contract of lb/lbtest.
package lb

import "srsx/fsm"

// The vocabulary of fsm has names here too, so that the proxy needs only this
// package.
type (
	// Stream is a stream's key; see [fsm.Stream].
	Stream = fsm.Stream
	// OriginID is an origin's server id; see [fsm.OriginID].
	OriginID = fsm.OriginID
	// Incarnation is one run of an origin; see [fsm.Incarnation].
	Incarnation = fsm.Incarnation
	// Protocol is what an origin has to serve; see [fsm.Protocol].
	Protocol = fsm.Protocol
	// Endpoints is where an origin serves what; see [fsm.Endpoints].
	Endpoints = fsm.Endpoints
	// OriginState is up, down or draining; see [fsm.OriginState].
	OriginState = fsm.OriginState
	// Origin is a media server; see [fsm.Origin].
	Origin = fsm.Origin
	// Placement says which origin has a stream; see [fsm.Placement].
	Placement = fsm.Placement
	// Holder is one run of a peer; see [fsm.Holder].
	Holder = fsm.Holder
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
