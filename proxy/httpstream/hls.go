package httpstream

import (
	"bufio"
	"bytes"
	"compress/gzip"
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
	// The hint names the stream, since a variant's own name does not; the origin
	// is where the stream is now, which a moved one has left.
	_, stream, ok := s.hinted(r)
	if !ok {
		target, err := s.config.VHosts.IdentifyHTTP(r.Host, r.URL)
		if err != nil {
			refuse(w, proxy.RefusalOf(err))
			return
		}
		stream = target.Stream
	}
	r = r.Clone(r.Context())
	r.Header.Del("Range") // of the bytes before the hints
	r.Header.Del("If-Range")
	key := viewerKey{stream: stream, client: s.client(r).Addr()}
	session, err := s.viewer(key, r)
	if err != nil {
		refuse(w, proxy.RefusalOf(err))
		return
	}
	response, origin, err := s.fetch(r, session, nil)
	if err != nil {
		s.viewers.drop(key, session)
		refuse(w, refusalOf(err))
		return
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || r.Method == http.MethodHead {
		if response.StatusCode >= http.StatusBadRequest {
			s.viewers.drop(key, session) // nothing is there to hold
		}
		if r.Method == http.MethodHead {
			describeRewritten(response.Header)
		}
		s.pass(w, response, session)
		return
	}
	body, err := readPlaylist(response)
	if err != nil {
		refuse(w, refusalOf(err))
		return
	}
	s.viewers.lengthen(key, targetDuration(body))
	edit := s.rewriteFor(r, origin, stream)
	s.sendPlaylist(w, response, edit, body, session)
}

func (s *Server) rewriteFor(r *http.Request, o lb.Origin, stream lb.Stream) *rewrite {
	now := time.Now()
	print := s.prints.of(o.ID, o.Incarnation)
	return &rewrite{
		base: &url.URL{Path: r.URL.Path},
		own:  append([]string{r.Host}, o.Endpoints.HTTP...),
		hint: func(dir string) string { return s.config.HintKey.sign(print, stream, dir, now) },
	}
}

// describeRewritten makes an origin's header fit a playlist with hints in it.
func describeRewritten(h http.Header) {
	for _, name := range []string{"Content-Length", "Content-Md5", "Accept-Ranges"} {
		h.Del(name)
	}
	if tag := h.Get("Etag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		h.Set("Etag", "W/"+tag) // the meaning is the same, the bytes are not
	}
}

// sendPlaylist writes a playlist with its hints as it is made: they make a
// hostile one fifty times longer.
func (s *Server) sendPlaylist(w http.ResponseWriter, response *http.Response, edit *rewrite, body []byte, session proxy.Session) {
	describeRewritten(response.Header)
	passHeader(w.Header(), response.Header, response.Request.URL.Host)
	if !bytes.HasPrefix(bytes.TrimPrefix(body, []byte("\ufeff")), []byte("#EXTM3U")) {
		edit = nil // another page, or one that is compressed in a way we do not read
	}
	out := &playlistWriter{to: w, control: http.NewResponseController(w), timeout: s.config.WriteTimeout}
	buffered := bufio.NewWriterSize(out, playlistBuffer)
	if edit == nil {
		_, _ = buffered.Write(body)
	} else {
		_ = edit.write(buffered, body) // a bufio.Writer keeps its error for Flush
	}
	if out.sent == 0 {
		w.Header().Set("Content-Length", strconv.Itoa(buffered.Buffered()))
	}
	_ = buffered.Flush() // fails when the client left
	session.Count(0, out.sent)
}

const playlistBuffer = 32 << 10 // bytes: most playlists fit and get a Content-Length

// playlistWriter gives each write its deadline and counts what went out.
type playlistWriter struct {
	to      io.Writer
	control *http.ResponseController
	timeout time.Duration
	sent    int64
}

func (p *playlistWriter) Write(b []byte) (int, error) {
	_ = p.control.SetWriteDeadline(time.Now().Add(p.timeout))
	n, err := p.to.Write(b)
	p.sent += int64(n)
	return n, err //nolint:wrapcheck // a Writer
}

// readPlaylist reads a whole playlist. Origins that compress although asked not
// to are undone, with the same bound on what comes out.
func readPlaylist(response *http.Response) ([]byte, error) {
	var from io.Reader = response.Body
	if strings.EqualFold(response.Header.Get("Content-Encoding"), "gzip") {
		plain, err := gzip.NewReader(response.Body)
		if err != nil {
			return nil, fmt.Errorf("%w: read playlist: %w", errAnswer, err)
		}
		from = plain
		response.Header.Del("Content-Encoding")
	}
	body, err := io.ReadAll(io.LimitReader(from, maxPlaylist+1))
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
		stream, ok = s.guessStream(r)
	}
	if !ok {
		refuse(w, proxy.Refusal{Status: http.StatusNotFound, Reason: "no stream has this segment"})
		return
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

// guessStream finds the placed stream of a segment whose request has no hint.
func (s *Server) guessStream(r *http.Request) (lb.Stream, bool) {
	target, err := s.config.VHosts.IdentifyHTTP(r.Host, r.URL)
	if err != nil {
		return lb.Stream{}, false
	}
	if stream, ok := s.streamOfSegment(target.Stream); ok {
		return stream, true
	}
	_, _, placed := s.config.Finder.Lookup(target.Stream)
	return target.Stream, placed
}

// pass sends an origin's answer on as it is.
func (s *Server) pass(w http.ResponseWriter, response *http.Response, session proxy.Session) {
	if response.StatusCode >= http.StatusBadRequest {
		s.passError(w, response)
		return
	}
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
			if _, failed := w.Write(buffer[:n]); failed != nil {
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

// passError sends an origin's refusal on: its status as it is, its page unless
// that tells where the origin is.
func (s *Server) passError(w http.ResponseWriter, response *http.Response) {
	const longest = 64 << 10 // bytes of an error page
	body, err := io.ReadAll(io.LimitReader(response.Body, longest+1))
	if err != nil || len(body) > longest || tells(string(body), response.Request.URL.Host) {
		refuse(w, proxy.Refusal{Status: response.StatusCode, Reason: "the origin refused: " + http.StatusText(response.StatusCode)})
		return
	}
	passHeader(w.Header(), response.Header, response.Request.URL.Host)
	if response.Request.Method != http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.config.WriteTimeout))
	w.WriteHeader(response.StatusCode)
	_, _ = w.Write(body)
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
	if _, o, placed := s.config.Finder.Lookup(stream); placed && s.prints.of(o.ID, o.Incarnation) == print {
		return &o, stream, true // nearly always, and cheaper than to go through all
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
		if err = session.Unreachable(r.Context(), err); err != nil {
			return nil, origin, err //nolint:wrapcheck // the router says what it did
		}
	}
}
