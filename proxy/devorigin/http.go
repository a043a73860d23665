package devorigin

import (
	"context"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"srsx/proxy/edge"
)

// ServeHTTP answers .flv, .ts and .m3u8 of published streams, and the segments.
func (o *Origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ext := path.Ext(r.URL.Path)
	name := strings.Trim(strings.TrimSuffix(r.URL.Path, ext), "/")
	if ext == ".ts" && !o.hub.Published(name) {
		o.segment(w, r, name)
		return
	}
	if !o.hub.Published(name) {
		http.NotFound(w, r)
		return
	}
	switch ext {
	case ".flv":
		w.Header().Set("Content-Type", "video/x-flv")
		o.live(w, r, name, flvHeader(), appendTag)
	case ".ts":
		w.Header().Set("Content-Type", "video/MP2T")
		mux := newMuxer()
		o.live(w, r, name, nil, mux.append)
	case ".m3u8":
		o.playlist(w, r, name)
	default:
		http.NotFound(w, r)
	}
}

// live sends a stream as it comes, each batch in one write.
func (o *Origin) live(w http.ResponseWriter, r *http.Request, name string, head []byte, encode func([]byte, edge.Message) []byte) {
	if r.Method == http.MethodHead {
		return
	}
	v, err := o.hub.Play(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	defer v.Close()
	control := http.NewResponseController(w)
	out := head
	for {
		batch, err := v.Next(r.Context())
		if err != nil {
			return
		}
		for _, m := range batch {
			out = encode(out, m)
		}
		_ = control.SetWriteDeadline(time.Now().Add(o.patience.write))
		if _, err := w.Write(out); err != nil || control.Flush() != nil {
			return
		}
		out = out[:0]
	}
}

// The form of the HLS here.
const (
	segmentTime  = 2 * time.Second
	segmentsKept = 6
	hlsIdle      = 60 * time.Second // without a request, segmenting stops
	firstSegment = 8 * time.Second  // how long the first playlist may wait
)

// playlist waits for the first segment of a stream that nobody has asked for.
func (o *Origin) playlist(w http.ResponseWriter, r *http.Request, name string) {
	s, ok := o.segmenterOf(name)
	if !ok {
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), firstSegment)
	defer cancel()
	select {
	case <-s.first:
	case <-ctx.Done():
		http.Error(w, "no segment yet", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
	w.Header().Set("Cache-Control", "no-cache")
	_, _ = w.Write(s.playlist(path.Base(name))) // or the client has gone
}

func (o *Origin) segment(w http.ResponseWriter, r *http.Request, name string) {
	at := strings.LastIndexByte(name, '-')
	if at < 0 {
		http.NotFound(w, r)
		return
	}
	number, err := strconv.Atoi(name[at+1:])
	o.mu.Lock()
	s := o.hls[name[:at]]
	o.mu.Unlock()
	if err != nil || s == nil {
		http.NotFound(w, r)
		return
	}
	if body, ok := s.part(number); ok {
		w.Header().Set("Content-Type", "video/MP2T")
		http.ServeContent(w, r, "", time.Time{}, body)
		return
	}
	http.NotFound(w, r)
}
