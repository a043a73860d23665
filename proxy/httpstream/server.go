// Package httpstream serves players over HTTP: live bodies (FLV, TS, MP3, AAC),
// HLS with all that it uses, and static files for whatever is no stream.
package httpstream

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// Finder is what this package needs from the balancer beside the Opener: to
// look without placing.
type Finder interface {
	Lookup(s lb.Stream) (lb.Placement, lb.Origin, bool)
	Origin(id lb.OriginID) (lb.OriginStatus, bool)
	Origins() []lb.OriginStatus
}

// Config of a [Server]. Zero values mean the defaults.
type Config struct {
	Opener   proxy.Opener // required
	Finder   Finder       // required
	VHosts   proxy.VHosts
	Trusted  proxy.Networks // whose X-Forwarded-For is believed
	NodeID   string         // of this peer, in the hop mark
	HintKey  func() HintKey // required: signs where segments are; may change once the peer is in its cluster
	Static   fs.FS          // default: none
	Versions http.Handler   // answers /api/v1/versions; default: none
	Log      *slog.Logger   // default: none

	// AnswerTimeout is for an origin's response header, and for each 16 KB of a
	// playlist or segment; default 20 s. A blocking reload of LL-HLS may take
	// as long as HoldTime.
	AnswerTimeout time.Duration
	HeaderTimeout time.Duration // for a client's request header; default 10 s
	IdleTimeout   time.Duration // for its next request; default 60 s
	WriteTimeout  time.Duration // for a client to take 32 KB; default 10 s
	HoldTime      time.Duration // of an HLS session after its last request, at least; default 30 s
}

// Server serves HTTP on one listener.
type Server struct {
	config    Config
	transport *http.Transport
	viewers   *viewers
	prints    proxy.Prints
	pools     pools
	refusals  *proxy.RefusalLog
}

// NewServer returns a server.
func NewServer(config Config) *Server {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	for timeout, standard := range map[*time.Duration]time.Duration{
		&config.AnswerTimeout: 20 * time.Second, &config.HeaderTimeout: 10 * time.Second,
		&config.IdleTimeout: 60 * time.Second, &config.WriteTimeout: 10 * time.Second,
		&config.HoldTime: 30 * time.Second,
	} {
		if *timeout <= 0 {
			*timeout = standard
		}
	}
	return &Server{config: config, viewers: newViewers(config.HoldTime), transport: newTransport(), refusals: proxy.NewRefusalLog(config.Log, "http")}
}

// connKey is the context key of a request's *clientConn.
type connKey struct{}

// Serve serves clients until ln is closed, and returns when the last of them
// has gone. When ctx ends their connections are closed.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var conns sync.WaitGroup
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.config.HeaderTimeout,
		IdleTimeout:       s.config.IdleTimeout,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
		ErrorLog: slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				conns.Done()
			case http.StateActive, http.StateIdle:
			}
		},
	}
	var sweeping sync.WaitGroup
	sweep, stop := context.WithCancel(ctx)
	sweeping.Go(func() { s.viewers.sweep(sweep) })
	closing := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer func() {
		server.SetKeepAlivesEnabled(false) // ends the idle ones
		conns.Wait()
		closing()
		stop()
		sweeping.Wait()
		s.viewers.endAll()
		s.transport.CloseIdleConnections()
	}()
	err := server.Serve(clientListener{Listener: ln, writeTimeout: s.config.WriteTimeout, refusals: s.refusals})
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// ServeHTTP routes one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if conn, ok := r.Context().Value(connKey{}).(*clientConn); ok {
		conn.served()
	}
	s.handle(&reply{ResponseWriter: w}, r)
}

func (s *Server) handle(w *reply, r *http.Request) {
	allowEverywhere(w.Header())
	if r.ContentLength != 0 {
		// Nothing here takes a body: an unread one would hide that the client
		// left, and the shapes that smuggle requests all need one.
		w.Header().Set("Connection", "close")
		s.turnAway(w, r, errBody)
		return
	}
	if !r.ProtoAtLeast(1, 1) {
		// An HTTP/1.0 request may announce a body in ways that net/http
		// overlooks, so nothing that follows is another request.
		w.Header().Set("Connection", "close")
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		s.serve(w, r)
	case http.MethodOptions:
		preflight(w, r)
	default:
		w.Header().Set("Allow", methods)
		w.refuse(proxy.Refusal{Status: http.StatusMethodNotAllowed, Reason: "only " + methods + " are served here"})
	}
}

const methods = "GET, HEAD, OPTIONS"

func (s *Server) serve(w *reply, r *http.Request) {
	if r.URL.Path == "/api/v1/versions" && s.config.Versions != nil {
		s.config.Versions.ServeHTTP(w, r)
		return
	}
	k := kindOf(extOf(r))
	if k == other {
		if _, _, ok := s.hinted(r); ok {
			k = segment // whatever its name is, a playlist of ours names it
		}
	}
	if k == other || s.isStatic(r.URL.Path) {
		s.serveStatic(w, r)
		return
	}
	if err := proxy.CheckHops(r.Header.Get(proxy.HopHeader), s.config.NodeID); err != nil {
		s.turnAway(w, r, err)
		return
	}
	if k == liveOrSegment {
		k = live
		if s.isSegment(r) {
			k = segment
		}
	}
	switch k {
	case playlist:
		s.servePlaylist(w, r)
	case segment:
		s.serveSegment(w, r)
	default:
		s.serveLive(w, r)
	}
}

func extOf(r *http.Request) string { return strings.ToLower(path.Ext(r.URL.Path)) }

// errBody refuses a request that announces a body.
var errBody = errors.New("no body is taken here")

// turnAway refuses a request that came to no session, which would log its end.
func (s *Server) turnAway(w *reply, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody is there to hear it
	}
	s.refusals.Note(s.config.Trusted.ClientOf(r), err)
	w.refuse(refusalOf(err))
}

// allowEverywhere lets pages of any site play: there are no cookies here that
// could be misused.
func allowEverywhere(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Content-Length, Content-Range, Accept-Ranges, Date, Age")
}

func preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", methods)
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "86400")
	h.Set("Allow", methods)
	w.WriteHeader(http.StatusNoContent)
}
