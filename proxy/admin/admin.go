// Package admin is the system API: origins register here, operators look and
// steer, monitoring reads. It has the Go client of the same API.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path"
	"reflect"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/time/rate"

	"srsx/lb"
	"srsx/proxy"
)

// Sessions is what this package needs of the router.
type Sessions interface {
	Sessions() []proxy.SessionInfo
	StreamSessions(s lb.Stream) int
	Counts() (total int, byOrigin map[lb.OriginID]int)
	Kick(id uint64) bool
	Ejected() []lb.OriginID
}

// Member is one peer of the cluster.
type Member struct {
	Name     string `json:"name"`
	Addr     string `json:"addr"`
	State    string `json:"state"` // alive, failed, left
	Role     string `json:"role"`  // leader, voter, non-voter
	Version  string `json:"version"`
	Leader   bool   `json:"leader"`
	Streams  int    `json:"streams"`
	Sessions int    `json:"sessions"`
	Insecure bool   `json:"insecure"` // reachable from elsewhere without tokens
}

// Config of a [Server]. Zero values mean the defaults.
type Config struct {
	Balancer lb.Balancer         // required
	Sessions Sessions            // required
	Members  func() []Member     // required
	Cluster  Cluster             // nil: this peer is alone
	Gatherer prometheus.Gatherer // behind /metrics; required
	Access   Access
	Origins  OriginRules
	Version  string
	Log      *slog.Logger // default: none

	// ReadyGrace is how long the backend may be unable to decide before
	// /readyz says so; 0: it never does.
	ReadyGrace time.Duration
}

// Server serves the system API on one listener.
type Server struct {
	config   Config
	mux      *http.ServeMux
	rates    *rates
	refusals *rate.Limiter // of log lines about refused registrations
	callers  callers
	draining atomic.Bool
	unsure   atomic.Int64 // unix ns since when the backend cannot decide; 0: it can
}

// NewServer returns a server.
func NewServer(config Config) *Server {
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: config, mux: http.NewServeMux(), rates: newRates(), refusals: rate.NewLimiter(1, refusalBurst)}
	s.routes()
	return s
}

// routes is the whole API. The guard stands beside each path.
func (s *Server) routes() {
	open, guarded := s.open, s.guarded
	s.mux.Handle("POST /api/v1/srs/register", open(s.registerOrSay))
	s.mux.Handle("POST /api/v1/srs/register/{token}", open(s.registerOrSay))
	s.mux.Handle("GET /api/v1/versions", s.Versions())
	s.mux.Handle("GET /livez", open(s.livez))
	s.mux.Handle("GET /readyz", open(s.readyz))
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(s.config.Gatherer, promhttp.HandlerOpts{}))

	s.mux.Handle("GET /api/v1/origins", guarded(s.orConsistent(s.origins)))
	s.mux.Handle("GET /api/v1/origins/{id}", guarded(s.orConsistent(s.origin)))
	s.mux.Handle("PUT /api/v1/origins/{id}/{verb}", guarded(s.changeOrigin))
	s.mux.Handle("DELETE /api/v1/origins/{id}", guarded(s.removeOrigin))
	s.mux.Handle("GET /api/v1/placements", guarded(s.orConsistent(s.placements)))
	s.mux.Handle("GET /api/v1/placements/{vhost}/{app}/{name}", guarded(s.orConsistent(s.placement)))
	s.mux.Handle("GET /api/v1/placements/{vhost}/{app}/{name}/explain", guarded(s.explain))
	s.mux.Handle("GET /api/v1/placements/{vhost}/{app}/{name}/history", guarded(s.history))
	s.mux.Handle("DELETE /api/v1/placements/{vhost}/{app}/{name}", guarded(s.forget))
	s.mux.Handle("PUT /api/v1/placements/{vhost}/{app}/{name}", guarded(s.move))
	s.mux.Handle("GET /api/v1/sessions", guarded(s.sessions))
	s.mux.Handle("DELETE /api/v1/sessions/{id}", guarded(s.kick))
	s.mux.Handle("GET /api/v1/members", guarded(s.members))
	s.mux.Handle("GET /api/v1/status/leader", guarded(s.leader))
	s.mux.Handle("GET /api/v1/events", s.guard(s.events))
	s.clusterRoutes()
}

// Serve serves until ln is closed or ctx ends, which closes the connections.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       15 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    64 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
		ErrorLog:          slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	err := server.Serve(ln)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// ServeHTTP serves one request, unknown paths and methods included: they get
// JSON as everything does.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	escaped := r.URL.EscapedPath()
	_, pattern := s.mux.Handler(r)
	switch {
	case path.Clean(escaped) != escaped: // the mux would redirect
		reply(w, nil, &apiError{http.StatusNotFound, "no such path"})
	case pattern != "":
		s.mux.ServeHTTP(w, r)
	default:
		allowed := s.methods(r)
		if len(allowed) == 0 {
			reply(w, nil, &apiError{http.StatusNotFound, "no such path"})
			return
		}
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		reply(w, nil, &apiError{http.StatusMethodNotAllowed, "no such method here: " + strings.Join(allowed, ", ")})
	}
}

// methods lists those that the path of a request has.
func (s *Server) methods(r *http.Request) (allowed []string) {
	probe := r.Clone(r.Context())
	for _, probe.Method = range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete} {
		if _, pattern := s.mux.Handler(probe); pattern != "" {
			allowed = append(allowed, probe.Method)
		}
	}
	return allowed
}

// Drain makes /readyz fail from now on.
func (s *Server) Drain() { s.draining.Store(true) }

// apiError is a refusal with its HTTP status.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

// statusOf finds the status that fits an error.
func statusOf(err error) int {
	var api *apiError
	switch {
	case errors.As(err, &api):
		return api.status
	case errors.Is(err, lb.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, lb.ErrDuplicateOrigin), errors.Is(err, lb.ErrConflict):
		return http.StatusConflict
	case errors.Is(err, lb.ErrLimit):
		return http.StatusTooManyRequests
	case errors.Is(err, lb.ErrNoOrigin), errors.Is(err, lb.ErrUndecided), errors.Is(err, lb.ErrClosed):
		return http.StatusServiceUnavailable
	default:
		return http.StatusBadRequest
	}
}

// reply sends the one answer of a request: {"code":0, ...body} or an error.
func reply(w http.ResponseWriter, body map[string]any, err error) {
	status := http.StatusOK
	if err != nil {
		status = statusOf(err)
		body = map[string]any{"code": status, "error": err.Error()}
	} else {
		if body == nil {
			body = map[string]any{}
		}
		body["code"] = 0
	}
	text, err := json.Marshal(body)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"code":500,"error":"answer cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n'))
}

// action is one API call: it returns the body of the answer or the error.
type action func(r *http.Request) (map[string]any, error)

func (s *Server) open(do action) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := do(r)
		reply(w, body, err)
	})
}

func (s *Server) guarded(do action) http.Handler {
	return s.guard(func(w http.ResponseWriter, r *http.Request) {
		body, err := do(r)
		if r.Method != http.MethodGet {
			s.config.Log.InfoContext(r.Context(), "changed by API", "method", r.Method, "path", r.URL.Path, "client", r.RemoteAddr, "err", err)
		}
		reply(w, body, err)
	})
}

// guard lets in who may use the guarded part of the API.
func (s *Server) guard(handle http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.config.Access.admit(r); err != nil {
			reply(w, nil, err)
			return
		}
		handle(w, r)
	})
}

const maxBody = 64 << 10 // bytes: SRS sends one or two kilobytes

// decode reads a JSON body.
func decode(r *http.Request, into any) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return &apiError{http.StatusUnsupportedMediaType, "Content-Type must be application/json"}
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil {
		return &apiError{http.StatusBadRequest, "body cannot be read"}
	}
	if len(body) > maxBody {
		return &apiError{http.StatusRequestEntityTooLarge, "body is larger than 64 KB"}
	}
	err = json.Unmarshal(body, into)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && wrong.Field != "" {
		return badField(wrong.Field, "is a "+wrong.Value+"; want a "+jsonName(wrong.Type.Kind()))
	}
	if err != nil {
		return &apiError{http.StatusBadRequest, "body: " + err.Error()}
	}
	return nil
}

// jsonName is what JSON calls the values of a kind.
func jsonName(kind reflect.Kind) string {
	switch kind {
	case reflect.String:
		return "string"
	case reflect.Slice:
		return "list of strings"
	case reflect.Struct:
		return "object"
	default:
		return "number"
	}
}

// Versions answers GET /api/v1/versions, on any port.
func (s *Server) Versions() http.Handler {
	return s.open(func(*http.Request) (map[string]any, error) {
		return map[string]any{
			"server": "srsx", "pid": strconv.Itoa(os.Getpid()),
			"data": map[string]any{"name": "srsx", "version": s.config.Version},
		}, nil
	})
}

func (s *Server) livez(*http.Request) (map[string]any, error) { return nil, nil }

func (s *Server) readyz(*http.Request) (map[string]any, error) {
	if s.draining.Load() {
		return nil, &apiError{http.StatusServiceUnavailable, "peer is draining"}
	}
	err := s.config.Balancer.Decisive()
	if err == nil {
		s.unsure.Store(0)
		return map[string]any{"ready": true}, nil
	}
	now := time.Now()
	s.unsure.CompareAndSwap(0, now.UnixNano())
	grace := s.config.ReadyGrace
	if !errors.Is(err, lb.ErrClosed) && (grace == 0 || now.Sub(time.Unix(0, s.unsure.Load())) < grace) {
		return map[string]any{"ready": true}, nil // an election is not an outage
	}
	return nil, &apiError{http.StatusServiceUnavailable, err.Error()}
}

// addrOf returns the address a request came from.
func addrOf(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return peer.Addr().Unmap()
}
