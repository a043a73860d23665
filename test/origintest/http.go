package origintest

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"srsx/test/mediatest"
)

// The HLS of the origin: segments of one second, the last few listed.
const (
	segmentTime  = time.Second
	segmentsKept = 4
	packetSize   = 188 // bytes: MPEG-TS
)

func (o *Origin) serveHTTP(r *run, ln net.Listener) { serve(r, ln, http.HandlerFunc(o.media)) }
func (o *Origin) serveAPI(r *run, ln net.Listener)  { serve(r, ln, http.HandlerFunc(o.api)) }

func serve(r *run, ln net.Listener, h http.Handler) {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 30 * time.Second,
		ConnState: func(c net.Conn, s http.ConnState) {
			switch s { //nolint:exhaustive // only the ends of a connection's life matter
			case http.StateNew:
				r.mu.Lock()
				r.conns[c] = struct{}{}
				r.mu.Unlock()
			case http.StateClosed, http.StateHijacked:
				r.mu.Lock()
				delete(r.conns, c)
				r.mu.Unlock()
			}
		},
		BaseContext: func(net.Listener) context.Context { return context.Background() },
	}
	_ = server.Serve(ln) // ends when Kill closes the listener
}

// media answers what SRS's HTTP server answers.
func (o *Origin) media(w http.ResponseWriter, r *http.Request) {
	o.saw(Seen{Kind: "http", Remote: r.RemoteAddr, Request: r.Clone(context.WithoutCancel(r.Context()))})
	if script := o.behaviour().HTTP; script != nil && script(w, r) {
		return
	}
	w.Header().Set("Connection", "Close")
	w.Header().Set("Server", "SRS/7.0.18")
	key, ext := splitPath(r.URL.Path)
	switch ext {
	case ".flv":
		o.live(w, r, key, flvType)
	case ".mp3":
		o.live(w, r, key, "audio/mp3")
	case ".aac":
		o.live(w, r, key, "audio/x-aac")
	case ".ts":
		if stream, n, ok := segmentOf(key); ok && o.Publishing(stream) {
			w.Header().Set("Content-Type", "video/MP2T")
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(Segment(stream, n))))
			return
		}
		o.live(w, r, key, "video/MP2T")
	case ".m3u8":
		o.playlist(w, r, key)
	default:
		if r.URL.Path == "/api/v1/versions" {
			o.api(w, r)
			return
		}
		http.NotFound(w, r)
	}
}

// splitPath turns /live/a.flv into live/a and .flv.
func splitPath(p string) (key, ext string) {
	ext = path.Ext(p)
	return strings.Trim(strings.TrimSuffix(p, ext), "/"), ext
}

// segmentOf reads live/a-12 as segment 12 of live/a.
func segmentOf(key string) (stream string, n int, ok bool) {
	i := strings.LastIndexByte(key, '-')
	if i < 0 {
		return "", 0, false
	}
	n, err := strconv.Atoi(key[i+1:])
	return key[:i], n, err == nil
}

const flvType = "video/x-flv"

// live sends a published stream as it comes: FLV, or for every other type the
// packets of [Segment], of which each carries its number. An unpublished one is
// not found.
func (o *Origin) live(w http.ResponseWriter, r *http.Request, key, kind string) {
	if !o.Publishing(key) {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kind)
	if r.Method == http.MethodHead {
		return
	}
	tags, leave := o.hub.play(key)
	defer leave()
	control := http.NewResponseController(w)
	var out []byte
	if kind == flvType {
		out = mediatest.FLVHeader()
	}
	for n := uint32(0); ; n++ {
		select {
		case <-r.Context().Done():
			return
		case t, ok := <-tags:
			if !ok {
				return
			}
			if kind == flvType {
				out = mediatest.AppendTag(out, t)
			} else {
				out = append(out, packet(key, n)...)
			}
		}
		if _, err := w.Write(out); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
		out = out[:0]
	}
}

// packet is one synthetic TS packet of a stream.
func packet(stream string, n uint32) []byte {
	p := make([]byte, packetSize)
	p[0] = 0x47
	binary.BigEndian.PutUint32(p[4:], n)
	copy(p[8:], stream)
	return p
}

// Segment returns the bytes of one HLS segment.
func Segment(stream string, n int) []byte {
	var b []byte
	for i := range 100 {
		b = append(b, packet(stream, uint32(n*100+i))...)
	}
	return b
}

// playlist answers a master without hls_ctx, or with one that this incarnation
// did not give out, and a media playlist otherwise.
func (o *Origin) playlist(w http.ResponseWriter, r *http.Request, key string) {
	if !o.Publishing(key) {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.apple.mpegurl")
	viewer := r.URL.Query().Get("hls_ctx")
	if viewer == "" || !o.hub.knows(viewer) {
		if viewer == "" {
			h := fnv.New32a()
			_, _ = fmt.Fprintf(h, "%s %d", o.Service(), time.Now().UnixNano())
			viewer = fmt.Sprintf("y%07d", h.Sum32()%10000000)
		}
		o.hub.adopt(viewer)
		query := "hls_ctx=" + viewer
		if rest := withoutContext(r.URL.RawQuery); rest != "" {
			query += "&" + rest
		}
		_, _ = fmt.Fprintf(w, "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,AVERAGE-BANDWIDTH=1\n%s?%s\n", r.URL.Path, query)
		return
	}
	now := int(time.Now().Unix() % 1000000)
	first := now - segmentsKept
	_, _ = fmt.Fprintf(w, "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-MEDIA-SEQUENCE:%d\n#EXT-X-TARGETDURATION:2\n", first)
	for n := first; n < now; n++ {
		_, _ = fmt.Fprintf(w, "#EXTINF:%.3f, no desc\n%s-%d.ts?hls_ctx=%s\n", segmentTime.Seconds(), path.Base(key), n, viewer)
	}
}

// withoutContext drops hls_ctx from a query and keeps the rest as it was.
func withoutContext(query string) string {
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		if part != "" && !strings.HasPrefix(part, "hls_ctx=") {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}

func (o *Origin) api(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/api/v1/versions" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"code":0,"server":%q,"service":%q,"pid":%q,"data":{"major":7,"minor":0,"revision":18,"version":"7.0.18"}}`,
		o.Server(), o.Service(), o.PID())
}
