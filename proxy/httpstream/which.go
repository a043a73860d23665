package httpstream

import (
	"net/http"
	"path"
	"strings"
	"time"

	"srsx/lb"
	"srsx/proxy"
)

// kind is what a request is for.
type kind int

const (
	other kind = iota
	live
	playlist
	segment
	liveOrSegment
)

// kindOf tells the kind from a path's extension in lower case.
func kindOf(ext string) kind {
	switch ext {
	case ".flv":
		return live
	case ".ts", ".aac", ".mp3":
		return liveOrSegment
	case ".m3u8", ".mpd":
		return playlist
	case ".m4s", ".mp4", ".m4a", ".m4v", ".cmfv", ".cmfa", ".ac3", ".ec3", ".key", ".vtt", ".webvtt":
		return segment
	default:
		return other
	}
}

// hinted returns what the request's hint says, and the origin it names while
// that is registered and the hint has not expired; ok is false without a valid
// hint.
func (s *Server) hinted(r *http.Request) (origin *lb.Origin, stream lb.Stream, ok bool) {
	hint := r.URL.Query().Get(hintParameter)
	if hint == "" {
		return nil, lb.Stream{}, false
	}
	now := time.Now()
	said, ok := s.config.HintKey().verify(hint, path.Dir(r.URL.Path), now)
	if !ok || !said.fresh {
		return nil, said.stream, ok
	}
	if _, o, placed := s.config.Finder.Lookup(said.stream); placed && proxy.FingerprintOf(o.ID, o.Incarnation) == said.origin {
		return &o, said.stream, true // nearly always
	}
	if o, found := s.prints.Find(said.origin, s.config.Finder, now); found {
		return &o, said.stream, true
	}
	return nil, said.stream, true
}

// streamOfPlaylist tells which stream a playlist is of. A hint says it, since a
// variant's own name does not.
func (s *Server) streamOfPlaylist(r *http.Request) (lb.Stream, error) {
	if _, stream, ok := s.hinted(r); ok {
		return stream, nil
	}
	target, err := s.config.VHosts.IdentifyHTTP(r.Host, r.URL)
	if err != nil {
		return lb.Stream{}, err
	}
	if s.placed(target.Stream) {
		return target.Stream, nil
	}
	if stream, ok := folderOf(target.Stream); ok && isFixedName(target.Stream.Name) {
		return stream, nil
	}
	return target.Stream, nil
}

// isFixedName reports whether a playlist has a name that origins give to those
// of all streams: then the folder is called as the stream.
func isFixedName(name string) bool {
	return name == "index" || name == "playlist" || name == "master"
}

// folderOf is the stream that the folder of another is called as.
func folderOf(named lb.Stream) (lb.Stream, bool) {
	at := strings.LastIndexByte(named.App, '/')
	if at <= 0 {
		return lb.Stream{}, false
	}
	return lb.Stream{VHost: named.VHost, App: named.App[:at], Name: named.App[at+1:]}, true
}

// isSegment tells an HLS segment from a live body of the same extension: by the
// hint or hls_ctx that its playlist gave it, else by whether a stream of the
// segment's name without its number is placed and one of the whole name is not.
func (s *Server) isSegment(r *http.Request) bool {
	if _, _, ok := s.hinted(r); ok || r.URL.Query().Has("hls_ctx") {
		return true
	}
	target, err := s.config.VHosts.IdentifyHTTP(r.Host, r.URL)
	if err != nil || s.placed(target.Stream) {
		return false
	}
	_, ok := s.streamOfSegment(target.Stream)
	return ok
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
	return target.Stream, s.placed(target.Stream)
}

// streamOfSegment finds the placed stream that a segment's name starts with:
// origins append a number behind a dash, dot or underscore, or put the segments
// into a folder of the stream's name.
func (s *Server) streamOfSegment(named lb.Stream) (lb.Stream, bool) {
	const tries = 6
	stream := named
	for range tries {
		at := strings.LastIndexAny(stream.Name, "-_.")
		if at <= 0 {
			break
		}
		stream.Name = stream.Name[:at]
		if s.placed(stream) {
			return stream, true
		}
	}
	stream, ok := folderOf(named)
	return stream, ok && s.placed(stream)
}

func (s *Server) placed(stream lb.Stream) bool {
	_, _, placed := s.config.Finder.Lookup(stream)
	return placed
}
