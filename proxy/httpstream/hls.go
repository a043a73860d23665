package httpstream

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// servePlaylist fetches a playlist and puts the hints into it.
func (s *Server) servePlaylist(w *reply, r *http.Request) {
	stream, err := s.streamOfPlaylist(r)
	if err != nil {
		s.turnAway(w, r, err)
		return
	}
	r = r.Clone(r.Context())
	r.Header.Del("Range") // of the bytes before the hints
	r.Header.Del("If-Range")
	// The origin is where the stream is now, which a moved one has left: the
	// hint's is only for what it wrote.
	s.serveViewer(w, r, stream, nil, s.passPlaylist)
}

// errNoSegment refuses a segment of which nothing is known.
var errNoSegment = errors.New("no stream has this segment")

// serveSegment serves what a playlist names.
func (s *Server) serveSegment(w *reply, r *http.Request) {
	hinted, stream, ok := s.hinted(r)
	if !ok {
		stream, ok = s.guessStream(r)
	}
	if !ok {
		s.turnAway(w, r, errNoSegment)
		return
	}
	s.serveViewer(w, r, stream, hinted, func(w *reply, a answer) error { return s.passOn(w, a.Response, a.viewer.session) })
}

// answer is an origin's response to a viewer's request.
type answer struct {
	*http.Response
	origin lb.Origin
	viewer *viewer
}

// serveViewer makes one request of an HLS viewer, who holds the stream by it.
// The hinted origin, if any, is asked first; pass sends a good answer on.
func (s *Server) serveViewer(w *reply, r *http.Request, stream lb.Stream, hinted *lb.Origin, pass func(*reply, answer) error) {
	client := s.config.Trusted.ClientOf(r)
	viewer, err := s.viewers.enter(r.Context(), viewerKey{stream: stream, client: client.Addr()},
		func(o lb.Origin) bool { return s.holds(stream, o) },
		func(ctx context.Context) (proxy.Session, error) {
			return s.config.Opener.Open(ctx, proxy.Request{Stream: stream, Protocol: lb.HTTP, Kind: "hls", Client: client})
		})
	if err != nil {
		s.turnAway(w, r, err)
		return
	}
	defer s.viewers.leave(viewer)
	response, origin, err := s.fetch(r, viewer.session, hinted, s.patience(r, viewer))
	if err == nil {
		defer response.Body.Close()
		if response.StatusCode >= http.StatusBadRequest {
			if kindOf(extOf(r)) == playlist {
				s.viewers.drop(viewer, refusedBy(response)) // nothing is there to hold
			}
			s.passError(w, response)
			return
		}
		err = pass(w, answer{Response: response, origin: origin, viewer: viewer})
	}
	if err == nil || r.Context().Err() != nil && !errors.Is(err, proxy.ErrSlow) {
		return // done, or the player left
	}
	s.viewers.drop(viewer, err)
	w.fail(refusalOf(err))
}

// patience is how long an origin may take to answer. It holds a blocking reload
// or a part that it announced for up to three target durations
// (draft-pantos-hls-rfc8216bis section 6.2.5.2), which is how long the viewer's
// session lasts as well.
func (s *Server) patience(r *http.Request, v *viewer) time.Duration {
	if kindOf(extOf(r)) == playlist && !r.URL.Query().Has("_HLS_msn") {
		return s.config.AnswerTimeout
	}
	return max(s.config.AnswerTimeout, s.viewers.holdOf(v))
}

// holds reports whether a stream is still on the origin, and that one alive.
func (s *Server) holds(stream lb.Stream, o lb.Origin) bool {
	p, now, placed := s.config.Finder.Lookup(stream)
	return placed && now.State != lb.Down && p.Origin == o.ID && p.Incarnation == o.Incarnation
}

// errPlaylist refuses a playlist that is longer than any sensible one.
var errPlaylist = errors.New("playlist too long")

// maxPlaylist bounds a playlist: the longest sensible one, a day of two second
// segments, has about two megabytes.
const maxPlaylist = 4 << 20 // bytes

// passPlaylist sends a playlist on with hints in it. Neither it nor what it
// becomes is ever held as a whole: hints make a hostile one many times longer.
func (s *Server) passPlaylist(w *reply, a answer) error {
	if a.StatusCode != http.StatusOK {
		return s.passOn(w, a.Response, a.viewer.session)
	}
	if a.Request.Method == http.MethodHead {
		describeRewritten(a.Header)
		return s.passOn(w, a.Response, a.viewer.session)
	}
	if a.ContentLength > maxPlaylist {
		return errPlaylist
	}
	body, err := uncompressed(a.Response)
	if err != nil {
		return err
	}
	limited := &io.LimitedReader{R: body, N: maxPlaylist + 1}
	lines := s.pools.lines(limited)
	defer s.pools.putLines(lines)
	if !isPlaylist(lines) { // another page, or compressed in a way that we do not read
		limited.N = math.MaxInt64
		a.Body = io.NopCloser(lines)
		return s.passOn(w, a.Response, a.viewer.session)
	}
	err = s.rewrite(w, a, lines)
	switch {
	case limited.N == 0:
		return errPlaylist
	case err == nil, errors.Is(err, errSilent), errors.Is(err, errPlaylist), errors.Is(err, proxy.ErrSlow):
		return err
	default:
		return fmt.Errorf("%w: %w", errCutShort, err)
	}
}

// isPlaylist looks at the first bytes (RFC 8216 section 4).
func isPlaylist(b *bufio.Reader) bool {
	const bom, magic = "\ufeff", "#EXTM3U"
	head, _ := b.Peek(len(bom) + len(magic)) // what there is, if it is less
	return strings.HasPrefix(strings.TrimPrefix(string(head), bom), magic)
}

// uncompressed returns the body of a playlist, undone where the origin
// compressed it although asked not to.
func uncompressed(response *http.Response) (io.Reader, error) {
	if !strings.EqualFold(response.Header.Get("Content-Encoding"), "gzip") {
		return response.Body, nil
	}
	body, err := gzip.NewReader(response.Body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	response.Header.Del("Content-Encoding")
	response.Header.Del("Content-Length")
	return body, nil
}

// rewrite sends a playlist with hints, line by line. The header goes with the
// first piece: until then the playlist may still turn out to be unusable.
func (s *Server) rewrite(w *reply, a answer, lines *bufio.Reader) error {
	describeRewritten(a.Header)
	now, print := time.Now(), proxy.FingerprintOf(a.origin.ID, a.origin.Incarnation)
	stream := a.viewer.key.stream
	edit := &rewrite{
		base: &url.URL{Path: a.Request.URL.Path},
		own:  append([]string{a.Request.Host}, a.origin.Endpoints.HTTP...),
		hint: func(dir string) string { return s.config.HintKey().sign(print, stream, dir, now) },
	}
	out := &playlistWriter{to: w, header: make(http.Header)}
	s.passHeader(out.header, a.Response)
	buffered := s.pools.writer(out)
	defer s.pools.putWriter(buffered)
	err := edit.copy(buffered, lines)
	if err == nil {
		if out.sent == 0 {
			out.header.Set("Content-Length", strconv.Itoa(buffered.Buffered()))
		}
		err = buffered.Flush()
	}
	a.viewer.session.Count(0, out.sent)
	s.viewers.lengthen(a.viewer, edit.target)
	if out.failed != nil {
		return writeFailed(out.failed)
	}
	return err
}

// describeRewritten makes an origin's header fit a playlist with hints in it.
func describeRewritten(h http.Header) {
	for _, name := range []string{"Content-Length", "Content-Md5", "Digest", "Accept-Ranges"} {
		h.Del(name)
	}
	if tag := h.Get("Etag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		h.Set("Etag", "W/"+tag) // the meaning is the same, the bytes are not
	}
	if h.Get("Cache-Control") == "" && h.Get("Expires") == "" {
		// It names the viewer: SRS puts an hls_ctx and the viewer's token into
		// it, which no cache may give to another.
		h.Set("Cache-Control", "private, no-cache")
	}
}

// playlistWriter writes to a client, the header with the first piece. It
// remembers why it failed: what it wraps reports other errors as well.
type playlistWriter struct {
	to     *reply
	header http.Header
	sent   int64 // bytes
	failed error
}

func (p *playlistWriter) Write(b []byte) (int, error) {
	if p.sent == 0 {
		maps.Copy(p.to.Header(), p.header)
	}
	n, err := p.to.Write(b)
	p.sent += int64(n)
	p.failed = err
	return n, err
}
