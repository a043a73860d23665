package webrtc

import (
	"net/http"
	"net/url"
	"strings"

	"srsx/lb"
	"srsx/proxy"
)

// call is what a path asks for.
type call struct {
	publish bool
	legacy  bool   // SRS's JSON API
	general string // the path before /whip or /whep; empty: SRS's form
}

// kind is the session's kind in logs and metrics.
func (c call) kind() string {
	if c.publish {
		return "whip"
	}
	return "whep"
}

// callOf reads a path: SRS's own, or APP/STREAM/whip as of other origins.
func callOf(path string) (call, bool) {
	if own, ok := strings.CutPrefix(path, "/rtc/v1/"); ok {
		switch strings.TrimSuffix(own, "/") {
		case "whip":
			return call{publish: true}, true
		case "whep", "whip-play":
			return call{}, true
		case "publish":
			return call{publish: true, legacy: true}, true
		case "play":
			return call{legacy: true}, true
		default:
			return call{}, false
		}
	}
	path = strings.TrimSuffix(path, "/")
	for suffix, publish := range map[string]bool{"/whip": true, "/whep": false} {
		if stream, ok := strings.CutSuffix(path, suffix); ok && strings.Trim(stream, "/") != "" {
			return call{publish: publish, general: stream}, true
		}
	}
	return call{}, false
}

// streamOf tells which stream a WHIP or WHEP request means.
func (s *Server) streamOf(r *http.Request, c call) (lb.Stream, error) {
	app, name := "", c.general
	if c.general == "" {
		q := r.URL.Query()
		app, name = q.Get("app"), q.Get("stream")
	}
	target, err := s.config.VHosts.IdentifyNames(r.Host, app, name, r.URL.RawQuery)
	return target.Stream, err
}

// streamOfURL tells which stream a URL of SRS's JSON API means, such as
// webrtc://host:1985/live/cam?token=x, and returns its query.
func (s *Server) streamOfURL(text string) (lb.Stream, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return lb.Stream{}, proxy.ErrStreamName
	}
	target, err := s.config.VHosts.IdentifyNames(u.Host, u.Path, "", u.RawQuery)
	return target.Stream, err
}

// targetOf is the path and query at an origin that a client's request becomes,
// without credentials of the client's choice.
func (s *Server) targetOf(r *http.Request, c call, stream lb.Stream, o lb.Origin) (path, query string) {
	query = without(r.URL.RawQuery, "ice-ufrag", "ice-pwd", hintParameter)
	paths := s.config.PathsOf(o)
	template := paths.WHEP
	if c.publish {
		template = paths.WHIP
	}
	switch {
	case template != "":
		return fill(template, stream), query
	case c.general == "":
		return r.URL.EscapedPath(), query
	default:
		own := "app=" + url.QueryEscape(stream.App) + "&stream=" + url.QueryEscape(stream.Name)
		return "/rtc/v1/" + c.kind() + "/", join(own, query)
	}
}

// isSRS reports whether an origin takes SRS's own paths, and with them, as far as
// can be known, credentials of our choice.
func (s *Server) isSRS(o lb.Origin, c call) bool {
	paths := s.config.PathsOf(o)
	return c.publish && paths.WHIP == "" || !c.publish && paths.WHEP == ""
}

// fill puts a stream into a path template. The slashes of an app stay.
func fill(template string, s lb.Stream) string {
	app := strings.ReplaceAll(url.PathEscape(s.App), "%2F", "/")
	return strings.NewReplacer(
		"{vhost}", url.PathEscape(s.VHost), "{app}", app, "{stream}", url.PathEscape(s.Name),
	).Replace(template)
}

// without removes parameters from a query and leaves the rest, order and spelling
// included: it may be signed.
func without(query string, names ...string) string {
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(part, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		drop := false
		for _, other := range names {
			drop = drop || name == other
		}
		if !drop {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}

func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "&" + b
}
