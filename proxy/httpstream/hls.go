package httpstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// maxPlaylist bounds a playlist: the longest sensible one, a day of two second
// segments, has about two megabytes.
const maxPlaylist = 4 << 20 // bytes

var errPlaylist = errors.New("playlist too long")

// servePlaylist fetches a playlist and puts the hints into it.
func (s *Server) servePlaylist(w http.ResponseWriter, r *http.Request) {
	hinted, stream, ok := s.hinted(r)
	if !ok {
		target, err := s.config.VHosts.IdentifyHTTP(r.Host, r.URL)
		if err != nil {
			refuse(w, proxy.RefusalOf(err))
			return
		}
		stream = target.Stream
	}
	key := viewerKey{stream: stream, client: s.client(r).Addr()}
	session, err := s.viewer(key, r)
	if err != nil {
		refuse(w, proxy.RefusalOf(err))
		return
	}
	response, origin, err := s.fetch(r, session, hinted)
	if err != nil {
		s.viewers.drop(key, session)
		refuse(w, refusalOf(err))
		return
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		s.viewers.drop(key, session) // nothing is there to hold
		s.pass(w, response, session)
		return
	}
	body, err := readPlaylist(response.Body)
	if err != nil {
		refuse(w, refusalOf(err))
		return
	}
	s.viewers.lengthen(key, targetDuration(body))
	s.sendPlaylist(w, r, response.Header, origin, stream, body, session)
}

func (s *Server) sendPlaylist(w http.ResponseWriter, r *http.Request, header http.Header, o lb.Origin, stream lb.Stream, body []byte, session proxy.Session) {
	now := time.Now()
	print := s.prints.of(o.ID, o.Incarnation)
	edit := rewrite{
		base: &url.URL{Path: r.URL.Path},
		own:  append([]string{r.Host}, o.Endpoints.HTTP...),
		hint: func(dir string) string { return s.config.HintKey.sign(print, stream, dir, now) },
	}
	body = edit.apply(body)
	passHeader(w.Header(), header, o.Endpoints.HTTP[0])
	for _, name := range []string{"Etag", "Content-Md5", "Accept-Ranges"} {
		w.Header().Del(name) // they describe the bytes before the hints
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Now().Add(s.config.WriteTimeout))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		n, _ := w.Write(body)
		session.Count(0, int64(n))
	}
}

func readPlaylist(r io.Reader) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxPlaylist+1))
	if err != nil {
		return nil, fmt.Errorf("%w: read playlist: %w", errAnswer, err)
	}
	if len(body) > maxPlaylist {
		return nil, errPlaylist
	}
	return body, nil
}

// targetDuration reads EXT-X-TARGETDURATION; 0 when there is none.
func targetDuration(playlist []byte) time.Duration {
	_, rest, ok := bytes.Cut(playlist, []byte("#EXT-X-TARGETDURATION:"))
	if !ok {
		return 0
	}
	line, _, _ := bytes.Cut(rest[:min(len(rest), 32)], []byte("\n"))
	seconds, err := strconv.ParseUint(strings.TrimSpace(string(line)), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second //nolint:gosec // 16 bits
}

// serveSegment serves what a playlist names.
func (s *Server) serveSegment(w http.ResponseWriter, r *http.Request) {
	hinted, stream, ok := s.hinted(r)
	if !ok {
		target, err := s.config.VHosts.IdentifyHTTP(r.Host, r.URL)
		if err == nil {
			if stream, ok = s.streamOfSegment(target.Stream); !ok {
				if _, _, ok = s.config.Finder.Lookup(target.Stream); ok {
					stream = target.Stream
				}
			}
		}
		if !ok {
			refuse(w, proxy.Refusal{Status: http.StatusNotFound, Reason: "no stream has this segment"})
			return
		}
	}
	key := viewerKey{stream: stream, client: s.client(r).Addr()}
	session, err := s.viewer(key, r)
	if err != nil {
		refuse(w, proxy.RefusalOf(err))
		return
	}
	response, _, err := s.fetch(r, session, hinted)
	if err != nil {
		refuse(w, refusalOf(err))
		return
	}
	defer response.Body.Close()
	s.pass(w, response, session)
}

// pass sends an origin's answer on as it is.
func (s *Server) pass(w http.ResponseWriter, response *http.Response, session proxy.Session) {
	passHeader(w.Header(), response.Header, response.Request.URL.Host)
	w.WriteHeader(response.StatusCode)
	if response.Request.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	buffer := make([]byte, 32<<10)
	for {
		n, err := response.Body.Read(buffer)
		if n > 0 {
			_ = control.SetWriteDeadline(time.Now().Add(s.config.WriteTimeout))
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
			session.Count(0, int64(n))
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // the client has to see that the body is not whole
		}
	}
}

// hinted returns the origin and stream that the request's hint names; ok is
// false without a valid one. The origin is nil when it is no longer registered.
func (s *Server) hinted(r *http.Request) (origin *lb.Origin, stream lb.Stream, ok bool) {
	hint := r.URL.Query().Get(hintParameter)
	if hint == "" {
		return nil, lb.Stream{}, false
	}
	print, stream, ok := s.config.HintKey.verify(hint, path.Dir(r.URL.Path), time.Now())
	if !ok {
		return nil, lb.Stream{}, false
	}
	for _, o := range s.config.Finder.Origins() {
		if s.prints.of(o.ID, o.Incarnation) == print {
			return &o.Origin, stream, true
		}
	}
	return nil, stream, true
}

// viewer returns the session that a request belongs to, opened now if need be.
func (s *Server) viewer(key viewerKey, r *http.Request) (proxy.Session, error) {
	if session := s.viewers.take(key, func(o lb.Origin) bool { return s.holds(key.stream, o) }); session != nil {
		return session, nil
	}
	// It outlives the request, so it ends with the server and not with this.
	ctx, end := context.WithCancel(context.WithoutCancel(r.Context()))
	session, err := s.config.Opener.Open(ctx, proxy.Request{
		Stream: key.stream, Protocol: lb.HTTP, Kind: "hls", Client: s.client(r),
	})
	if err != nil {
		end()
		return nil, err //nolint:wrapcheck // the router says what it did
	}
	s.viewers.put(key, session, end)
	return session, nil
}

// holds reports whether a stream is still on the origin, and that one alive.
func (s *Server) holds(stream lb.Stream, o lb.Origin) bool {
	p, now, placed := s.config.Finder.Lookup(stream)
	return placed && now.State != lb.Down && p.Origin == o.ID && p.Incarnation == o.Incarnation
}

// fetch asks the hinted origin, else that of the session. A refused connection
// is tried again where the session says: a GET may be repeated.
func (s *Server) fetch(r *http.Request, session proxy.Session, hinted *lb.Origin) (*http.Response, lb.Origin, error) {
	const tries = 3
	for try := 1; ; try++ {
		origin := session.Origin()
		if hinted != nil {
			origin = *hinted
		}
		request, err := s.ask(r.Context(), r, origin)
		if err != nil {
			return nil, origin, err
		}
		response, err := s.transport.RoundTrip(request)
		if err == nil {
			return response, origin, nil
		}
		if !isDialError(err) || try == tries || r.Context().Err() != nil {
			return nil, origin, fmt.Errorf("%w: %w", errAnswer, err)
		}
		if hinted != nil {
			hinted = nil // it is gone: the stream may be elsewhere
			continue
		}
		if err := session.Unreachable(r.Context(), err); err != nil {
			return nil, origin, err //nolint:wrapcheck // the router says what it did
		}
	}
}
