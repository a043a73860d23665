package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"srsx/lb"
)

// originView is an origin as the API shows it. Times are RFC 3339.
type originView struct {
	ID         lb.OriginID  `json:"id"`
	DeviceID   string       `json:"device_id"`
	IP         string       `json:"ip"`
	Server     string       `json:"server"`
	Service    string       `json:"service"`
	PID        string       `json:"pid"`
	State      string       `json:"state"`
	Weight     uint32       `json:"weight"`
	MaxStreams uint32       `json:"max_streams,omitempty"`
	Labels     []string     `json:"labels,omitempty"`
	Static     bool         `json:"static"`
	Streams    int          `json:"streams"`
	Endpoints  lb.Endpoints `json:"endpoints"`
	LastSeen   *time.Time   `json:"last_seen"` // null: it sends no heartbeat
	UpSince    time.Time    `json:"up_since"`
	DrainUntil *time.Time   `json:"drain_until,omitempty"`
	Load       *lb.Load     `json:"load,omitempty"`
}

func viewOrigin(o lb.OriginStatus) originView {
	v := originView{
		ID: o.ID, DeviceID: o.DeviceID, IP: o.IP, Server: o.Incarnation.Server, Service: o.Incarnation.Service,
		PID: o.Incarnation.PID, State: o.State.String(), Weight: o.Weight, MaxStreams: o.MaxStreams, Labels: o.Labels,
		Static: o.Static, Streams: o.Streams, Endpoints: o.Endpoints, UpSince: o.UpSince, Load: o.Load,
	}
	if !o.LastSeen.IsZero() {
		v.LastSeen = &o.LastSeen
	}
	if !o.DrainUntil.IsZero() && time.Until(o.DrainUntil) < 100*365*24*time.Hour { // later: no deadline
		v.DrainUntil = &o.DrainUntil
	}
	return v
}

func (s *Server) origins(*http.Request) (map[string]any, error) {
	all := s.config.Balancer.Origins()
	views, alive := make([]originView, 0, len(all)), 0
	for _, o := range all {
		views = append(views, viewOrigin(o))
		if o.State != lb.Down {
			alive++
		}
	}
	return data(s.withFreshness(map[string]any{"total": len(all), "alive": alive, "origins": views})), nil
}

func data(v any) map[string]any { return map[string]any{"data": v} }

func (s *Server) origin(r *http.Request) (map[string]any, error) {
	o, ok := s.config.Balancer.Origin(lb.OriginID(r.PathValue("id")))
	if !ok {
		return nil, fmt.Errorf("origin %q: %w", r.PathValue("id"), lb.ErrNotFound)
	}
	return data(viewOrigin(o)), nil
}

// MaxWeight is the highest weight of an origin.
const MaxWeight = 10000

// changeOrigin is PUT .../drain {"deadline":"10m"}, .../ready {}, .../weight
// {"weight":N}.
func (s *Server) changeOrigin(r *http.Request) (map[string]any, error) {
	id := lb.OriginID(r.PathValue("id"))
	var body struct {
		Deadline string  `json:"deadline"` // duration; empty: none
		Weight   *uint32 `json:"weight"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	var err error
	switch r.PathValue("verb") {
	case "drain":
		err = s.drain(r, id, body.Deadline)
	case "ready":
		err = s.config.Balancer.Ready(r.Context(), id)
	case "weight":
		if body.Weight == nil || *body.Weight > MaxWeight {
			return nil, badField("weight", fmt.Sprintf("is not a number from 0 to %d", MaxWeight))
		}
		err = s.config.Balancer.SetWeight(r.Context(), id, *body.Weight)
	default:
		return nil, &apiError{http.StatusNotFound, "no such path: drain, ready and weight are"}
	}
	if err != nil {
		return nil, fmt.Errorf("origin %q: %w", id, err)
	}
	return nil, nil
}

// drain ends what is left on the origin after a time, if one is given.
func (s *Server) drain(r *http.Request, id lb.OriginID, after string) error {
	var deadline time.Time
	if after != "" {
		d, err := time.ParseDuration(after)
		if err != nil || d < 0 {
			return badField("deadline", "is not a duration such as 10m")
		}
		deadline = time.Now().Add(d)
	}
	return s.config.Balancer.Drain(r.Context(), id, deadline)
}

func (s *Server) removeOrigin(r *http.Request) (map[string]any, error) {
	if err := s.config.Balancer.Remove(r.Context(), lb.OriginID(r.PathValue("id"))); err != nil {
		return nil, fmt.Errorf("origin %q: %w", r.PathValue("id"), err)
	}
	return nil, nil
}

// placementView is a placement as the API shows it.
type placementView struct {
	Stream     string      `json:"stream"`
	VHost      string      `json:"vhost"`
	App        string      `json:"app"`
	Name       string      `json:"name"`
	Origin     lb.OriginID `json:"origin"`
	Epoch      uint64      `json:"epoch"`
	PlacedAt   time.Time   `json:"placed_at"`
	Publishing bool        `json:"publishing"`
	Sessions   int         `json:"sessions"`
}

func viewPlacement(p lb.Placement, sessions int) placementView {
	return placementView{
		Stream: p.Stream.String(), VHost: p.Stream.VHost, App: p.Stream.App, Name: p.Stream.Name,
		Origin: p.Origin, Epoch: p.Generation, PlacedAt: p.PlacedAt, Publishing: p.Publishing, Sessions: sessions,
	}
}

// placements lists, filtered by prefix (of the stream's text, with or without
// its vhost) and origin, from start, count of them (default: all).
func (s *Server) placements(r *http.Request) (map[string]any, error) {
	query := r.URL.Query()
	start, err := number(query.Get("start"), 0)
	if err != nil {
		return nil, badField("start", err.Error())
	}
	count, err := number(query.Get("count"), 1<<31)
	if err != nil {
		return nil, badField("count", err.Error())
	}
	prefix, origin := query.Get("prefix"), lb.OriginID(query.Get("origin"))
	views, total := []placementView{}, 0
	for p := range s.config.Balancer.Placements() {
		name := p.Stream.String()
		if origin != "" && p.Origin != origin ||
			!strings.HasPrefix(name, prefix) && !strings.HasPrefix(strings.TrimPrefix(name, lb.DefaultVHost+"/"), prefix) {
			continue
		}
		if total++; total > start && len(views) < count {
			views = append(views, viewPlacement(p.Placement, p.Sessions))
		}
	}
	return data(s.withFreshness(map[string]any{"total": total, "placements": views})), nil
}

var errNumber = errors.New("is not a number")

func number(text string, missing int) (int, error) {
	if text == "" {
		return missing, nil
	}
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, errNumber
	}
	return int(n), nil
}

// stream returns the stream of the path. The mux has decoded the escapes.
func stream(r *http.Request) lb.Stream {
	return lb.Stream{VHost: r.PathValue("vhost"), App: r.PathValue("app"), Name: r.PathValue("name")}
}

func unplaced(s lb.Stream) error { return fmt.Errorf("placement of %s: %w", s, lb.ErrNotFound) }

func (s *Server) placement(r *http.Request) (map[string]any, error) {
	p, _, ok := s.config.Balancer.Lookup(stream(r))
	if !ok {
		return nil, unplaced(stream(r))
	}
	return data(viewPlacement(p, s.config.Sessions.StreamSessions(p.Stream))), nil
}

// explain is for the protocol in ?protocol= (default rtmp), from this peer: an
// origin that it cannot connect to is passed over.
func (s *Server) explain(r *http.Request) (map[string]any, error) {
	want := lb.Want{Stream: stream(r), Avoid: s.config.Sessions.Ejected()}
	switch p := r.URL.Query().Get("protocol"); p {
	case "", "rtmp":
		want.Protocol = lb.RTMP
	case "http":
		want.Protocol = lb.HTTP
	case "api":
		want.Protocol = lb.API
	case "srt":
		want.Protocol = lb.SRT
	case "rtc":
		want.Protocol = lb.RTC
	default:
		return nil, badField("protocol", "is none of rtmp, http, api, srt, rtc")
	}
	e, err := s.config.Balancer.Explain(r.Context(), want)
	if err != nil {
		return nil, fmt.Errorf("explain %s: %w", want.Stream, err)
	}
	body := map[string]any{
		"stream": e.Stream.String(), "protocol": want.Protocol.String(), "rule": e.Rule, "pool": e.Pool,
		"candidates": e.Candidates, "placed": nil,
	}
	if e.Placed != nil {
		body["placed"] = viewPlacement(*e.Placed, s.config.Sessions.StreamSessions(e.Stream))
	}
	return data(body), nil
}

// eventView is an event as the API shows it.
type eventView struct {
	At     time.Time   `json:"at"`
	Kind   string      `json:"kind"`
	Stream string      `json:"stream,omitempty"`
	Origin lb.OriginID `json:"origin,omitempty"`
	From   lb.OriginID `json:"from,omitempty"`
	Epoch  uint64      `json:"epoch,omitempty"`
	Reason string      `json:"reason,omitempty"`
}

func viewEvent(e lb.Event) eventView {
	v := eventView{At: e.At, Kind: string(e.Kind), Origin: e.Origin, From: e.From, Epoch: e.Generation, Reason: e.Reason}
	if !e.Stream.IsZero() {
		v.Stream = e.Stream.String()
	}
	return v
}

func (s *Server) history(r *http.Request) (map[string]any, error) {
	views := []eventView{}
	for _, e := range s.config.Balancer.History(stream(r)) {
		views = append(views, viewEvent(e))
	}
	return data(map[string]any{"stream": stream(r).String(), "events": views}), nil
}

func (s *Server) forget(r *http.Request) (map[string]any, error) {
	if err := s.config.Balancer.Forget(r.Context(), stream(r)); err != nil {
		return nil, fmt.Errorf("placement of %s: %w", stream(r), err)
	}
	return nil, nil
}

func (s *Server) move(r *http.Request) (map[string]any, error) {
	var body struct {
		Origin lb.OriginID `json:"origin"`
	}
	if err := decode(r, &body); err != nil {
		return nil, err
	}
	if body.Origin == "" {
		return nil, badField("origin", "is missing")
	}
	if err := s.config.Balancer.Move(r.Context(), stream(r), body.Origin); err != nil {
		return nil, fmt.Errorf("move %s: %w", stream(r), err)
	}
	return nil, nil
}

func (s *Server) sessions(*http.Request) (map[string]any, error) {
	views := []map[string]any{}
	for _, i := range s.config.Sessions.Sessions() {
		views = append(views, map[string]any{
			"id": strconv.FormatUint(i.ID, 10), "stream": i.Stream.String(), "origin": i.Origin, "kind": i.Kind, "publish": i.Publish,
			"client": i.Client.String(), "started": i.Started, "bytes_in": i.BytesIn, "bytes_out": i.BytesOut,
		})
	}
	return data(map[string]any{"total": len(views), "sessions": views}), nil
}

func (s *Server) kick(r *http.Request) (map[string]any, error) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil || !s.config.Sessions.Kick(id) {
		return nil, fmt.Errorf("session %q: %w", r.PathValue("id"), lb.ErrNotFound)
	}
	return nil, nil
}

func (s *Server) members(*http.Request) (map[string]any, error) {
	return data(map[string]any{"members": s.config.Members()}), nil
}

func (s *Server) leader(*http.Request) (map[string]any, error) {
	name := ""
	for _, m := range s.config.Members() {
		if m.Leader {
			name = m.Name
		}
	}
	return data(map[string]any{"leader": name}), nil
}

// events streams what happens as server-sent events, one JSON object each,
// until the client leaves. A client too slow to follow is cut: it has to read
// the state again anyway.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	events, cancel := s.config.Balancer.Events()
	defer cancel()
	const quiet, slow = 15 * time.Second, 10 * time.Second
	beat := time.NewTicker(quiet)
	defer beat.Stop()
	for text := []byte(": events\n\n"); ; {
		_ = control.SetWriteDeadline(time.Now().Add(slow))
		if _, err := w.Write(text); err != nil || control.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			text = []byte(": quiet\n\n")
		case e, ok := <-events:
			if !ok {
				return
			}
			body, err := json.Marshal(viewEvent(e))
			if err != nil {
				return
			}
			text = fmt.Appendf(nil, "data: %s\n\n", body)
		}
	}
}
