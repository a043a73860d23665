package rtctest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
)

// serve is the API: WHIP and WHEP in SRS's form or by a template, and SRS's
// older calls.
func (o *Origin) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	o.mu.Lock()
	o.seen = append(o.seen, Seen{r.Method, r.URL.RequestURI(), r.Header, string(body)})
	o.mu.Unlock()
	if r.URL.Path == "/api/v1/versions" {
		_, _ = io.WriteString(w, `{"code":0}`)
		return
	}
	if o.config.Bearer != "" && r.Header.Get("Authorization") != "Bearer "+o.config.Bearer {
		http.Error(w, "no such token", http.StatusUnauthorized)
		return
	}
	for _, link := range o.config.Links {
		w.Header().Add("Link", link)
	}
	path := strings.TrimSuffix(r.URL.Path, "/")
	switch {
	case r.Method == http.MethodDelete || r.Method == http.MethodPatch:
		o.resource(w, r, path, string(body))
	case r.Method != http.MethodPost:
		http.Error(w, "", http.StatusMethodNotAllowed)
	case len(o.paths) > 0:
		stream, publish, ok := o.byPath(path)
		if !ok {
			http.NotFound(w, r)
			return
		}
		o.whip(w, r, stream, string(body), publish)
	case path == "/rtc/v1/whip", path == "/rtc/v1/whep", path == "/rtc/v1/whip-play":
		q := r.URL.Query()
		o.whip(w, r, q.Get("app")+"/"+q.Get("stream"), string(body), path == "/rtc/v1/whip")
	case path == "/rtc/v1/publish", path == "/rtc/v1/play":
		o.legacy(w, body, path == "/rtc/v1/publish")
	default:
		http.NotFound(w, r)
	}
}

// pathsOf makes what reads the paths of a config.
func pathsOf(config Config) map[*regexp.Regexp]bool {
	paths := make(map[*regexp.Regexp]bool)
	for template, publish := range map[string]bool{config.WHIP: true, config.WHEP: false} {
		if template != "" {
			read := strings.NewReplacer(`\{app\}`, "(?P<app>.+)", `\{stream\}`, "(?P<stream>[^/]+)")
			paths[regexp.MustCompile("^"+read.Replace(regexp.QuoteMeta(template))+"$")] = publish
		}
	}
	return paths
}

func (o *Origin) byPath(path string) (stream string, publish, ok bool) {
	for read, publishes := range o.paths {
		if found := read.FindStringSubmatch(path); found != nil {
			part := func(name string) string {
				if at := read.SubexpIndex(name); at > 0 {
					return found[at]
				}
				return "live" // of a template that has no app
			}
			return part("app") + "/" + part("stream"), publishes, true
		}
	}
	return "", false, false
}

func (o *Origin) whip(w http.ResponseWriter, r *http.Request, stream, offer string, publish bool) {
	q := r.URL.Query()
	s, answer, err := o.begin(stream, offer, q.Get("ice-ufrag"), q.Get("ice-pwd"), publish)
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/sdp")
	w.Header().Set("ETag", `"`+s.token+`"`)
	if len(o.paths) > 0 {
		w.Header().Set("Location", "http://"+o.API()+strings.TrimSuffix(r.URL.Path, "/")+"/"+url.PathEscape(s.id))
	} else {
		app, name := cutLast(stream, "/")
		w.Header().Set("Location", "/rtc/v1/whip/?action=delete&token="+s.token+"&app="+app+"&stream="+name+"&session="+s.id)
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, answer)
}

// begin begins a session. A stream has one publisher.
func (o *Origin) begin(stream, offer, ufrag, password string, publish bool) (*session, string, error) {
	if ufrag == "" || o.config.OwnCredentials || o.config.Full {
		ufrag, password = secret(4), secret(16)
	}
	s := &session{token: secret(5), stream: stream, publish: publish, origin: o}
	if err := o.hub.join(s); err != nil {
		return nil, "", err
	}
	answer, err := o.engine.answer(s, offer, ufrag, password)
	if err != nil {
		o.hub.leave(s)
		return nil, "", err
	}
	s.id = attribute(answer, "ice-ufrag") + ":" + attribute(offer, "ice-ufrag")
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sessions[s.id] = s
	return s, answer, nil
}

func (o *Origin) resource(w http.ResponseWriter, r *http.Request, path, body string) {
	q := r.URL.Query()
	id := q.Get("session")
	if len(o.paths) > 0 {
		_, id = cutLast(path, "/")
	}
	o.mu.Lock()
	s := o.sessions[id]
	o.mu.Unlock()
	switch {
	case s == nil:
		http.NotFound(w, r)
	case len(o.paths) == 0 && q.Get("token") != s.token:
		http.Error(w, "not yours", http.StatusForbidden)
	case r.Method == http.MethodPatch:
		answer, err := o.engine.restart(s, body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusMethodNotAllowed)
			return
		}
		if answer == "" {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/trickle-ice-sdpfrag")
		_, _ = io.WriteString(w, answer)
	default:
		o.end(s)
	}
}

func (o *Origin) end(s *session) {
	o.mu.Lock()
	delete(o.sessions, s.id)
	o.mu.Unlock()
	o.hub.leave(s)
	o.engine.close(s)
}

func (o *Origin) legacy(w http.ResponseWriter, body []byte, publish bool) {
	var asked struct{ API, StreamURL, SDP, TID, ClientIP string }
	if err := json.Unmarshal(body, &asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	u, err := url.Parse(asked.StreamURL)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	reply := map[string]any{"code": 0, "server": o.config.Server, "service": "s1", "pid": "1"}
	s, answer, err := o.begin(strings.Trim(u.Path, "/"), asked.SDP, "", "", publish)
	if err != nil {
		reply = map[string]any{"code": 1028, "server": o.config.Server}
	} else {
		reply["sdp"], reply["sessionid"] = answer, s.id
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply)
}

func secret(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

func cutLast(text, sep string) (before, after string) {
	at := strings.LastIndex(text, sep)
	if at < 0 {
		return "", text
	}
	return text[:at], text[at+len(sep):]
}

// attribute returns the first value of an attribute of SDP.
func attribute(sdp, name string) string {
	for line := range strings.Lines(sdp) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "a="+name+":"); ok {
			return value
		}
	}
	return ""
}
