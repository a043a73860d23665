// Package webrtc serves WebRTC clients: it signals for them at the origin of
// their stream (WHIP, RFC 9725; WHEP; SRS's older API), says in the answer that
// media goes to this peer, and relays it.
package webrtc

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"srsx/lb"
	"srsx/proxy"
	"srsx/proxy/webrtc/relay"
	"srsx/proxy/webrtc/ufrag"
)

// Secret is what routes and hints are signed with. Every peer of a cluster has
// the same.
type Secret [32]byte

// Paths are where an origin takes WHIP and WHEP, with {vhost}, {app} and {stream}
// for the parts of the stream. Empty: SRS's own.
type Paths struct{ WHIP, WHEP string }

// Config of a [Server]. Zero values mean the defaults.
type Config struct {
	Opener  proxy.Opener  // required
	Finder  relay.Finder  // required
	Secret  func() Secret // required; may change once the peer is in its cluster
	VHosts  proxy.VHosts
	Trusted proxy.Networks // whose X-Forwarded-For and clientip are believed
	NodeID  string         // of this peer, in the hop mark

	// Candidates are where clients reach the media port of this peer: addresses
	// or host names, each with a port if it is another than Port; required.
	Candidates []string
	Port       uint16 // of media, UDP and, unless NoTCP is set, TCP
	NoTCP      bool

	// PathsOf returns where an origin takes WHIP and WHEP. Default: as SRS.
	PathsOf func(lb.Origin) Paths
	// Ask puts a question to the other peers; see relay.Config.
	Ask func(ctx context.Context, question []byte) (answer []byte)

	AnswerTimeout time.Duration // for an origin's answer; default 15 s
	BodyTimeout   time.Duration // for a client to send its offer; default 10 s
	IdleTime      time.Duration // see relay.Config
	AwaitTime     time.Duration // see relay.Config
	MaxFlows      int           // see relay.Config
	Log           *slog.Logger  // default: none
}

// Server is the WebRTC side of a peer: a handler for the port of the HTTP API,
// and a relay for the port of the media.
type Server struct {
	*relay.Relay

	config     Config
	transport  *http.Transport
	candidates *candidates
	prints     proxy.Prints
	refusals   *proxy.RefusalLog
}

// NewServer returns a server. Run has to run.
func NewServer(config Config) *Server {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.PathsOf == nil {
		config.PathsOf = func(lb.Origin) Paths { return Paths{} }
	}
	if config.AnswerTimeout <= 0 {
		config.AnswerTimeout = 15 * time.Second
	}
	if config.BodyTimeout <= 0 {
		config.BodyTimeout = 10 * time.Second
	}
	s := &Server{
		config: config, transport: newTransport(),
		candidates: newCandidates(config.Candidates, config.Port, !config.NoTCP),
		refusals:   proxy.NewRefusalLog(config.Log, "webrtc"),
	}
	s.Relay = relay.New(relay.Config{
		Opener: config.Opener, Finder: config.Finder, Key: s.routeKey, Ask: config.Ask, Ended: s.tellOrigin,
		IdleTime: config.IdleTime, AwaitTime: config.AwaitTime, MaxFlows: config.MaxFlows, Log: config.Log,
	})
	return s
}

// Run works until ctx ends, and then ends all sessions.
func (s *Server) Run(ctx context.Context) error {
	defer s.transport.CloseIdleConnections()
	return s.Relay.Run(ctx)
}

func (s *Server) routeKey() ufrag.Key { return ufrag.Key(s.config.Secret()) }

// errMethod refuses a method.
var errMethod = errors.New("method not served here")

// ServeHTTP routes one request of the HTTP API's port.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	allowEverywhere(w.Header())
	if r.Method == http.MethodOptions {
		preflight(w, r)
		return
	}
	err := proxy.CheckHops(r.Header.Get(proxy.HopHeader), s.config.NodeID)
	if err == nil {
		err = s.serve(w, r)
	}
	// net/http takes a body that does not come for a client that has gone.
	if err != nil && (r.Context().Err() == nil || errors.Is(err, errBody)) {
		s.refusals.Note(s.config.Trusted.ClientOf(r), err)
		refuse(w, refusalOf(err))
	}
}

// serve answers a request, or returns why it does not.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) error {
	if hinted(r) {
		return s.serveResource(w, r)
	}
	c, ok := callOf(r.URL.Path)
	switch {
	case !ok:
		return errNoResource
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", "POST, OPTIONS")
		return errMethod
	case c.legacy:
		return s.serveLegacy(w, r, c)
	default:
		return s.serveOffer(w, r, c)
	}
}

const methods = "POST, PATCH, DELETE, OPTIONS"

// allowEverywhere lets pages of any site publish and play: there are no cookies
// here that could be misused, and a token they have to know.
func allowEverywhere(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Location, Link, ETag, Accept-Patch, Content-Length, Date, Retry-After")
}

func preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", methods)
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "86400")
	h.Set("Accept-Post", "application/sdp")
	h.Set("Allow", methods)
	w.WriteHeader(http.StatusNoContent)
}
