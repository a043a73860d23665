// Package edge fans one stream out to many viewers: one writer, a group of
// pictures kept for those who come late, and no viewer that can hold up
// another.
package edge

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"srsx/proxy"
)

// ErrBusy means that a stream has a publisher already.
var ErrBusy = errors.New("stream is already being published")

// Message is one FLV tag or RTMP media message. Data is shared by all viewers
// and never changed.
type Message struct {
	Type      uint8  // 8 audio, 9 video, 18 data
	Timestamp uint32 // ms
	Data      []byte
}

// The bounds of a stream and of each viewer.
const (
	maxGroup   = 16 << 20 // bytes kept for late viewers
	maxQueue   = 4 << 20  // bytes that a viewer may lag
	maxLag     = 8000     // ms of stream that a viewer may lag
	maxSkips   = 3        // groups lost in a row before a viewer is cut
	maxStreams = 1000
	videoType  = 9
	audioType  = 8
	dataType   = 18
)

// Hub is a set of streams by name. It is safe for concurrent use.
type Hub struct {
	mu      sync.Mutex
	streams map[string]*stream // guarded by mu
}

// New returns an empty hub.
func New() *Hub { return &Hub{streams: make(map[string]*stream)} }

// stream is one name: it exists while it has a publisher or a viewer.
type stream struct {
	hub  *Hub
	name string

	mu        sync.Mutex
	publisher *Publisher // guarded by mu, as all below
	meta      *Message
	video     *Message // sequence header
	audio     *Message
	pictures  bool      // video has come
	group     []Message // from the last key frame on
	groupSize int
	viewers   map[*Viewer]struct{}
}

// Published reports whether a stream has a publisher.
func (h *Hub) Published(name string) bool {
	h.mu.Lock()
	s := h.streams[name]
	h.mu.Unlock()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.publisher != nil
}

// take returns a stream, made now if need be; nil when there are too many. The
// caller holds h.mu.
func (h *Hub) take(name string) *stream {
	s := h.streams[name]
	if s == nil && len(h.streams) < maxStreams {
		s = &stream{hub: h, name: name, viewers: make(map[*Viewer]struct{})}
		h.streams[name] = s
	}
	return s
}

// errFull means that the hub has as many streams as it may.
var errFull = errors.New("too many streams")

// Publish starts publishing a stream. Close ends it.
func (h *Hub) Publish(name string) (*Publisher, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.take(name)
	if s == nil {
		return nil, errFull
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publisher != nil {
		return nil, ErrBusy
	}
	s.publisher = &Publisher{stream: s}
	return s.publisher, nil
}

// Play subscribes to a stream, whether or not it is published yet. Close ends
// it.
func (h *Hub) Play(name string) (*Viewer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.take(name)
	if s == nil {
		return nil, errFull
	}
	v := &Viewer{stream: s, ready: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, head := range []*Message{s.meta, s.video, s.audio} {
		if head != nil {
			v.queue = append(v.queue, *head)
		}
	}
	v.queue = append(v.queue, s.group...)
	v.size, v.skipping = s.groupSize, len(s.group) == 0
	s.viewers[v] = struct{}{}
	v.wake()
	return v, nil
}

// release forgets a stream that nobody uses.
func (h *Hub) release(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publisher == nil && len(s.viewers) == 0 && h.streams[s.name] == s {
		delete(h.streams, s.name)
	}
}

// Publisher writes one stream. Not safe for concurrent use.
type Publisher struct{ stream *stream }

// Write hands a message to every viewer and returns at once. It takes m.Data.
func (p *Publisher) Write(m Message) {
	s := p.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.publisher != p {
		return
	}
	kind := kindOf(m)
	s.pictures = s.pictures || m.Type == videoType
	if kind == frame && m.Type == audioType && !s.pictures {
		kind = keyFrame // audio alone may start anywhere
	}
	s.keep(m, kind)
	for v := range s.viewers {
		v.push(m, kind)
	}
}

// Close ends the stream: viewers get what is queued and then io.EOF.
func (p *Publisher) Close() {
	s := p.stream
	s.mu.Lock()
	if s.publisher == p {
		s.publisher, s.meta, s.video, s.audio, s.group, s.groupSize, s.pictures = nil, nil, nil, nil, nil, 0, false
		for v := range s.viewers {
			v.ended = true
			v.wake()
		}
	}
	s.mu.Unlock()
	s.hub.release(s)
}

// kind is what a message is to a viewer that comes late or lags.
type kind uint8

const (
	frame    kind = iota
	keyFrame      // a viewer may start here
	header        // needed for all that follows: metadata, a codec's configuration
)

// kindOf reads the first bytes of a message (FLV 10.1, annex E.4; enhanced RTMP
// for the fourCC form).
func kindOf(m Message) kind {
	switch {
	case m.Type == dataType && bytes.HasPrefix(m.Data, []byte("\x02\x00\x0aonMetaData")):
		return header
	case m.Type == audioType:
		return kindOfAudio(m.Data)
	case m.Type == videoType:
		return kindOfVideo(m.Data)
	default:
		return frame
	}
}

func kindOfAudio(b []byte) kind {
	const aac, enhanced = 10, 9
	if len(b) > 1 && (b[0]>>4 == aac && b[1] == 0 || b[0]>>4 == enhanced && b[0]&0x0f == 0) {
		return header
	}
	return frame
}

func kindOfVideo(b []byte) kind {
	const (
		avc         = 7
		key         = 1    // of the frame types
		enhanced    = 0x80 // a fourCC follows
		codedFrames = 1    // of the enhanced packet types
		framesX     = 3
	)
	if len(b) < 2 {
		return frame
	}
	isKey, low := b[0]>>4&7 == key, b[0]&0x0f
	switch {
	case b[0]&enhanced != 0 && low == 0, b[0]&enhanced == 0 && low == avc && b[1] == 0:
		return header
	case b[0]&enhanced != 0:
		isKey = isKey && (low == codedFrames || low == framesX)
	case low == avc:
		isKey = isKey && b[1] == 1 // not the end of the sequence
	}
	if isKey {
		return keyFrame
	}
	return frame
}

// keep remembers what a late viewer needs.
func (s *stream) keep(m Message, k kind) {
	switch {
	case k == header && m.Type == dataType:
		s.meta = &m
	case k == header && m.Type == videoType:
		s.video = &m
	case k == header:
		s.audio = &m
	case k == keyFrame:
		s.group, s.groupSize = []Message{m}, len(m.Data)
	case len(s.group) == 0: // nothing to add to: late viewers wait for a key frame
	case s.groupSize+len(m.Data) > maxGroup:
		s.group, s.groupSize = nil, 0 // an endless group
	default:
		s.group = append(s.group, m)
		s.groupSize += len(m.Data)
	}
}

// Viewer reads one stream. One goroutine may call Next.
type Viewer struct {
	stream *stream
	ready  chan struct{}

	// Guarded by stream.mu.
	queue    []Message
	size     int
	skipping bool // until the next key frame
	skips    int  // groups lost since the viewer last caught up
	ended    bool
	cut      bool
}

// push queues a message, unless the viewer lags too far: then it loses all up
// to the next key frame but the headers, and in the end its place.
func (v *Viewer) push(m Message, k kind) {
	if v.cut || v.ended || v.skipping && k == frame {
		return
	}
	if v.size+len(m.Data) > maxQueue || v.lag(m) > maxLag {
		v.drop()
		if v.skips++; v.skips > maxSkips {
			v.cut = true
			v.wake()
			return
		}
		if k == frame {
			return
		}
	}
	if k == keyFrame {
		v.skipping = false
	}
	v.queue = append(v.queue, m)
	v.size += len(m.Data)
	v.wake()
}

// drop empties the queue but for the headers.
func (v *Viewer) drop() {
	v.queue = slices.DeleteFunc(v.queue, func(q Message) bool { return kindOf(q) != header })
	v.size, v.skipping = 0, true
	for _, q := range v.queue {
		v.size += len(q.Data)
	}
}

// lag is how many ms of the stream are in the queue.
func (v *Viewer) lag(m Message) int64 {
	for _, q := range v.queue {
		if kindOf(q) != header {
			return int64(int32(m.Timestamp - q.Timestamp)) // it wraps
		}
	}
	return 0
}

func (v *Viewer) wake() {
	select {
	case v.ready <- struct{}{}:
	default:
	}
}

// Next waits for messages and returns all that are queued, so that they can be
// written at once. The slice is the caller's. Errors: io.EOF after the stream
// ended, proxy.ErrSlow when the viewer was cut, or the cause of ctx.
func (v *Viewer) Next(ctx context.Context) ([]Message, error) {
	for {
		v.stream.mu.Lock()
		batch, ended, cut := v.queue, v.ended, v.cut
		v.queue, v.size = nil, 0
		if len(batch) > 0 && !v.skipping {
			v.skips = 0
		}
		v.stream.mu.Unlock()
		switch {
		case cut:
			return nil, proxy.ErrSlow
		case len(batch) > 0:
			return batch, nil
		case ended:
			return nil, io.EOF
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-v.ready:
		}
	}
}

// Close ends the subscription.
func (v *Viewer) Close() {
	v.stream.mu.Lock()
	delete(v.stream.viewers, v)
	v.stream.mu.Unlock()
	v.stream.hub.release(v.stream)
}
