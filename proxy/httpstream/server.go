// Package httpstream serves players over HTTP: live bodies (FLV, TS, MP3, AAC),
// HLS with all that it uses, and static files for whatever is no stream.
package httpstream

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path"
	"slices"
	"strconv"
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
	Origins() []lb.OriginStatus
}

// Config of a [Server]. Zero values mean the defaults.
type Config struct {
	Opener   proxy.Opener // required
	Finder   Finder       // required
	VHosts   proxy.VHosts
	Trusted  proxy.Networks // whose X-Forwarded-For is believed
	NodeID   string         // of this peer, in the hop mark
	HintKey  HintKey        // required: signs where segments are
	Static   fs.FS          // default: none
	Versions http.Handler   // answers /api/v1/versions; default: none
	Log      *slog.Logger   // default: none

	AnswerTimeout time.Duration // for an origin's response header; default 20 s: LL-HLS holds requests
	WriteTimeout  time.Duration // for a client that does not read; default 10 s
	HoldTime      time.Duration // of an HLS session after its last request, at least; default 30 s
}

// Server serves HTTP on one listener.
type Server struct {
	config    Config
	transport *http.Transport
	viewers   *viewers
	prints    prints
}

// NewServer returns a server.
func NewServer(config Config) *Server {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.AnswerTimeout <= 0 {
		config.AnswerTimeout = 20 * time.Second
	}
	if config.WriteTimeout <= 0 {
		config.WriteTimeout = 10 * time.Second
	}
	if config.HoldTime <= 0 {
		config.HoldTime = 30 * time.Second
	}
	return &Server{
		config:    config,
		viewers:   newViewers(config.HoldTime),
		transport: newTransport(config.AnswerTimeout),
	}
}

// Serve serves clients until ln is closed, and returns when the last of them
// has gone. When ctx ends their connections are closed.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var conns sync.WaitGroup
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
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
	err := server.Serve(strictListener{ln})
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err //nolint:wrapcheck // the listener names itself
}

// kind is what a path's extension makes of a request.
type kind int

const (
	other kind = iota
	live
	playlist
	segment
	liveOrSegment
)

func kindOf(ext string) kind {
	switch ext {
	case ".flv", ".mp3":
		return live
	case ".ts", ".aac":
		return liveOrSegment
	case ".m3u8":
		return playlist
	case ".m4s", ".mp4", ".m4a", ".m4v", ".cmfv", ".cmfa", ".key", ".vtt", ".webvtt", ".mpd":
		return segment
	default:
		return other
	}
}

// ServeHTTP routes one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	allowEverywhere(w.Header())
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodOptions:
		preflight(w, r)
		return
	default:
		w.Header().Set("Allow", "GET, HEAD, OPTIONS")
		refuse(w, proxy.Refusal{Status: http.StatusMethodNotAllowed, Reason: "only GET, HEAD and OPTIONS are served here"})
		return
	}
	if r.ContentLength != 0 {
		// Nothing here takes a body: an unread one would hide that the client
		// left, and the shapes that smuggle requests all need one.
		w.Header().Set("Connection", "close")
		refuse(w, proxy.Refusal{Status: http.StatusBadRequest, Reason: "no body is taken here"})
		return
	}
	if r.URL.Path == "/api/v1/versions" && s.config.Versions != nil {
		s.config.Versions.ServeHTTP(w, r)
		return
	}
	k := kindOf(strings.ToLower(path.Ext(r.URL.Path)))
	if k == other || s.isStatic(r.URL.Path) {
		s.serveStatic(w, r)
		return
	}
	if err := proxy.CheckHops(r.Header.Get(proxy.HopHeader), s.config.NodeID); err != nil {
		refuse(w, proxy.RefusalOf(err))
		return
	}
	switch k {
	case playlist:
		s.servePlaylist(w, r)
	case segment:
		s.serveSegment(w, r)
	case liveOrSegment:
		if s.isSegment(r) {
			s.serveSegment(w, r)
			return
		}
		s.serveLive(w, r)
	default:
		s.serveLive(w, r)
	}
}

// isSegment tells an HLS segment from a live body of the same extension: by the
// hint or hls_ctx that its playlist gave it, else by whether a stream of the
// segment's name without its number is placed and one of the whole name is not.
func (s *Server) isSegment(r *http.Request) bool {
	if _, _, ok := s.hinted(r); ok || r.URL.Query().Has("hls_ctx") {
		return true
	}
	target, err := s.config.VHosts.IdentifyHTTP(r.Host, r.URL)
	if err != nil {
		return true // the name of no stream
	}
	if _, _, placed := s.config.Finder.Lookup(target.Stream); placed {
		return false
	}
	_, placed := s.streamOfSegment(target.Stream)
	return placed
}

// streamOfSegment finds the placed stream that a segment's name starts with:
// origins append a number behind a dash, dot or underscore.
func (s *Server) streamOfSegment(named lb.Stream) (lb.Stream, bool) {
	const tries = 6
	stream := named
	for range tries {
		at := strings.LastIndexAny(stream.Name, "-_.")
		if at <= 0 {
			break
		}
		stream.Name = stream.Name[:at]
		if _, _, placed := s.config.Finder.Lookup(stream); placed {
			return stream, true
		}
	}
	// Others put the segments into a folder of the stream's name.
	if at := strings.LastIndexByte(named.App, '/'); at > 0 {
		stream = lb.Stream{VHost: named.VHost, App: named.App[:at], Name: named.App[at+1:]}
		if _, _, placed := s.config.Finder.Lookup(stream); placed {
			return stream, true
		}
	}
	return lb.Stream{}, false
}

// client returns the address that limits and logs count: behind a trusted proxy
// the first entry of X-Forwarded-For, as SRS reads it.
func (s *Server) client(r *http.Request) netip.AddrPort {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	if s.config.Trusted.Contains(peer.Addr()) {
		first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ",")
		if addr, err := netip.ParseAddr(strings.TrimSpace(first)); err == nil {
			return netip.AddrPortFrom(addr.Unmap(), 0)
		}
	}
	return netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
}

// allowEverywhere lets pages of any site play: there are no cookies here that
// could be misused.
func allowEverywhere(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Expose-Headers", "Content-Length, Content-Range, Accept-Ranges, Date, Age")
}

func preflight(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "86400")
	h.Set("Allow", "GET, HEAD, OPTIONS")
	w.WriteHeader(http.StatusNoContent)
}

// refuse answers with a reason, and when to try again where that may help.
func refuse(w http.ResponseWriter, r proxy.Refusal) {
	body, err := json.Marshal(map[string]any{"code": r.Status, "error": r.Reason})
	if err != nil {
		body = nil // two plain values always marshal
	}
	h := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Etag", "Last-Modified", "Cache-Control"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Retryable {
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(body)
}

// isStatic reports whether a path names a file of the static folder: it wins
// over a stream of that name.
func (s *Server) isStatic(name string) bool {
	if s.config.Static == nil {
		return false
	}
	name = strings.TrimPrefix(name, "/")
	info, err := fs.Stat(s.config.Static, name)
	return fs.ValidPath(name) && err == nil && info.Mode().IsRegular()
}

func (s *Server) serveStatic(w http.ResponseWriter, r *http.Request) {
	if s.config.Static == nil || strings.ContainsRune(r.URL.Path, 0) || slices.Contains(strings.Split(r.URL.Path, "/"), "..") {
		refuse(w, proxy.Refusal{Status: http.StatusNotFound, Reason: "no such stream or file"})
		return
	}
	// A folder is its index page and never a listing.
	folder := path.Clean("./" + r.URL.Path)
	if info, err := fs.Stat(s.config.Static, folder); err == nil && info.IsDir() {
		if _, err := fs.Stat(s.config.Static, path.Join(folder, "index.html")); err != nil {
			refuse(w, proxy.Refusal{Status: http.StatusNotFound, Reason: "no such stream or file"})
			return
		}
	}
	http.FileServerFS(s.config.Static).ServeHTTP(w, r)
}
