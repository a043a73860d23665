package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"

	"srsx/lb"
)

// ErrStreamName is the error of every Identify function for input that names
// no stream; its text says why.
var ErrStreamName = errors.New("not a stream name")

const (
	maxStreamName = 512  // bytes of app/name: far above real use, small enough to replicate a million times
	maxIdentify   = 8192 // bytes of a whole URL, as for a line of HTTP
	defaultApp    = "live"
	instanceApp   = "_definst_" // Flash Media Server's name of an application's only instance
)

// Target is what a client asked for, in terms of the cluster.
type Target struct {
	Stream lb.Stream
	// Host is the host the client used, without port or brackets; empty when
	// it named none. The origin is to see it; it is no part of the key unless
	// it is a configured vhost.
	Host string
	// Query holds the raw parameters, without a leading question mark. For
	// RTMP those of the name come before those of the tcUrl. It may hold
	// secrets, so it is never logged.
	Query string
	// Ext is the media extension of an HTTP path in lower case with its dot,
	// or empty.
	Ext string
}

// VHosts is the set of virtual hosts that are their own. Any other host
// belongs to the default one, as in SRS. The zero value has none.
type VHosts struct {
	byHost map[string]string // canonical host to the configured spelling
}

// NewVHosts builds the set from the configured names.
func NewVHosts(names ...string) (VHosts, error) {
	v := VHosts{byHost: make(map[string]string, len(names))}
	for _, name := range names {
		if name == "" || strings.ContainsAny(name, "/?#%@ ") || hasControl(name) {
			return VHosts{}, fmt.Errorf("vhost %q: not a host name", name)
		}
		if name != lb.DefaultVHost {
			v.byHost[canonicalHost(name)] = name
		}
	}
	return v, nil
}

// Of returns the vhost that a host, with or without port, belongs to.
func (v VHosts) Of(host string) string {
	if name, ok := v.byHost[canonicalHost(host)]; ok {
		return name
	}
	return lb.DefaultVHost
}

// IdentifyRTMP tells which stream the tcUrl and app of a connect command and
// the name of its publish or play mean. Like SRS it joins tcUrl and name and
// takes what follows the last slash for the name, so that app/a plus b is app
// plus a/b; it finds parameters behind the app and behind the name
// (rtmp://host/app?k=v/name), the vhost in ?vhost=, ?domain=, app...vhost...V
// or the host, and drops /_definst_. A flash prefix as in mp4:name and an
// extension stay part of the name, as they do in SRS. app is used when tcURL
// names none. Errors are [ErrStreamName].
func (v VHosts) IdentifyRTMP(tcURL, app, name string) (Target, error) {
	if len(tcURL)+len(app)+len(name) > maxIdentify {
		return Target{}, fmt.Errorf("%w: longer than %d bytes", ErrStreamName, maxIdentify)
	}
	host, rest := splitTcURL(tcURL)
	if strings.Trim(rest, "/") == "" {
		rest = app
	}
	rest = strings.ReplaceAll(rest, "...vhost...", "?vhost=")
	appPath, appQuery := splitQuery(rest)
	namePath, nameQuery := splitQuery(name)
	if strings.Trim(namePath, "/ ") == "" {
		// A whole URL may arrive as the tcUrl, its name behind the parameters
		// of the app.
		query, last, found := cutLast(appQuery, "/")
		if !found {
			return Target{}, fmt.Errorf("%w: no name after the app", ErrStreamName)
		}
		appQuery, namePath = query, last
	}
	// rtmp://host/app?k=v/more with a name: a part of the path behind the
	// parameters can only be part of the app, unless it belongs to a value.
	query := joinQuery(nameQuery, strings.TrimRight(appQuery, "/"))
	app, name, err := splitStream(unescape(appPath) + "/" + unescape(namePath))
	if err != nil {
		return Target{}, err
	}
	if app == "" {
		app = defaultApp
	}
	return v.target(host, query, app, name, "")
}

// IdentifyHTTP tells which stream an HTTP request means: host as in the Host
// header, u its path and query. /app/name.flv has the extension .flv; an
// extension that is not one of live media stays part of the name and leaves
// Ext empty. A path without an app names no stream. Errors are
// [ErrStreamName].
func (v VHosts) IdentifyHTTP(host string, u *url.URL) (Target, error) {
	if len(host)+len(u.Path)+len(u.RawQuery) > maxIdentify {
		return Target{}, fmt.Errorf("%w: longer than %d bytes", ErrStreamName, maxIdentify)
	}
	plain := strings.ReplaceAll(u.Path, " ", "")
	ext := strings.ToLower(path.Ext(plain))
	if !isMediaExt(ext) {
		ext = ""
	}
	plain = plain[:len(plain)-len(ext)]
	if ext != "" && strings.HasSuffix(plain, "/") {
		return Target{}, fmt.Errorf("%w: no name before %s", ErrStreamName, ext)
	}
	app, name, err := splitStream(plain)
	if err != nil {
		return Target{}, err
	}
	if app == "" {
		return Target{}, fmt.Errorf("%w: want /app/name", ErrStreamName)
	}
	return v.target(host, u.RawQuery, app, name, ext)
}

// IdentifyNames makes the key from parts that a protocol carries apart: SRT's
// streamid (h, r) and the app and stream parameters of WHIP and WHEP. host is
// what the protocol takes the vhost from, query may override it.
func (v VHosts) IdentifyNames(host, app, name, query string) (Target, error) {
	if len(host)+len(app)+len(name)+len(query) > maxIdentify {
		return Target{}, fmt.Errorf("%w: longer than %d bytes", ErrStreamName, maxIdentify)
	}
	app, name, err := splitStream(app + "/" + name)
	if err != nil {
		return Target{}, err
	}
	if app == "" {
		app = defaultApp
	}
	return v.target(host, query, app, name, "")
}

// target completes a Target: the vhost is what the query says, else the host.
func (v VHosts) target(host, query, app, name, ext string) (Target, error) {
	host = bareHost(host)
	if hasControl(host) || hasControl(query) {
		return Target{}, fmt.Errorf("%w: control byte", ErrStreamName)
	}
	vhost := queryVHost(query)
	if vhost == "" {
		vhost = host
	}
	return Target{
		Stream: lb.Stream{VHost: v.Of(vhost), App: app, Name: name},
		Host:   host,
		Query:  query,
		Ext:    ext,
	}, nil
}

// splitStream splits an unescaped path at its last slash. Empty parts,
// _definst_ and spaces go, as SRS removes them; app may come out empty.
func splitStream(text string) (app, name string, err error) {
	text = strings.ReplaceAll(text, " ", "")
	if hasControl(text) {
		return "", "", fmt.Errorf("%w: control byte", ErrStreamName)
	}
	parts := strings.Split(text, "/")
	parts = slices.DeleteFunc(parts, func(part string) bool { return part == "" || part == instanceApp })
	if len(parts) == 0 {
		return "", "", fmt.Errorf("%w: empty", ErrStreamName)
	}
	if slices.Contains(parts, "..") || slices.Contains(parts, ".") {
		return "", "", fmt.Errorf("%w: dots for a part of it", ErrStreamName)
	}
	last := len(parts) - 1
	app, name = strings.Join(parts[:last], "/"), parts[last]
	if len(app)+len(name) > maxStreamName {
		return "", "", fmt.Errorf("%w: longer than %d bytes", ErrStreamName, maxStreamName)
	}
	return app, name, nil
}

// splitTcURL splits rtmp://user@host:port/rest. Text without a scheme is all
// rest.
func splitTcURL(tcURL string) (host, rest string) {
	_, after, found := strings.Cut(tcURL, "://")
	if !found {
		return "", tcURL
	}
	end := strings.IndexAny(after, "/?#")
	if end < 0 {
		end = len(after)
	}
	host, rest = after[:end], after[end:]
	if _, behind, ok := cutLast(host, "@"); ok {
		host = behind
	}
	return host, rest
}

// splitQuery splits at the first ? or #, which SRS treats alike.
func splitQuery(text string) (before, query string) {
	if i := strings.IndexAny(text, "?#"); i >= 0 {
		return text[:i], text[i+1:]
	}
	return text, ""
}

func joinQuery(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "&" + b
}

// queryVHost returns the first vhost or else domain parameter. A second
// question mark separates as well: that is how joined URLs look.
func queryVHost(query string) string {
	domain := ""
	for pair := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' || r == '?' || r == '#' }) {
		key, value, _ := strings.Cut(pair, "=")
		if plain, err := url.QueryUnescape(value); err == nil {
			value = plain
		}
		value = strings.TrimRight(value, "/")
		if key == "vhost" && value != "" {
			return value
		}
		if key == "domain" && domain == "" {
			domain = value
		}
	}
	return domain
}

// unescape decodes percent escapes where they are valid: RTMP does not demand
// that a name is escaped, so a bare percent sign is one.
func unescape(text string) string {
	if plain, err := url.PathUnescape(text); err == nil {
		return plain
	}
	return text
}

// bareHost removes port and brackets.
func bareHost(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
}

// canonicalHost is how hosts compare: DNS ignores case and a final dot.
func canonicalHost(host string) string {
	return strings.ToLower(strings.TrimSuffix(bareHost(host), "."))
}

func cutLast(text, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(text, sep); i >= 0 {
		return text[:i], text[i+len(sep):], true
	}
	return text, "", false
}

func hasControl(text string) bool {
	return strings.ContainsFunc(text, func(r rune) bool { return r < 0x20 || r == 0x7f })
}

// isMediaExt reports whether ext, in lower case, is one that an origin serves
// live media or its playlists and keys under.
func isMediaExt(ext string) bool {
	switch ext {
	case ".flv", ".ts", ".mp3", ".aac", ".m3u8", ".m4s", ".mp4", ".m4a", ".m4v", ".key", ".mpd", ".vtt":
		return true
	default:
		return false
	}
}
