package origintest

import (
	"sync"

	"srsx/test/mediatest"
)

// hub hands the tags of publishers to players. A player may come first.
type hub struct {
	mu      sync.Mutex
	streams map[string]*stream // guarded by mu
	viewers map[string]bool    // guarded by mu; the hls_ctx given out
}

// stream is one published or awaited name. All fields are guarded by hub.mu.
type stream struct {
	publisher bool
	head      []mediatest.Tag // metadata and sequence headers
	group     []mediatest.Tag // since the last keyframe, as SRS's GOP cache
	players   map[chan mediatest.Tag]struct{}
}

// playerQueue is how many tags a player may lag; one that lags more is ended.
const playerQueue = 4096

func (h *hub) stream(key string) *stream {
	if h.streams == nil {
		h.streams = make(map[string]*stream)
	}
	s := h.streams[key]
	if s == nil {
		s = &stream{players: make(map[chan mediatest.Tag]struct{})}
		h.streams[key] = s
	}
	return s
}

// publish reserves key, or reports that it is taken.
func (h *hub) publish(key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stream(key)
	if s.publisher {
		return false
	}
	s.publisher = true
	return true
}

func (h *hub) unpublish(key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.streams[key]; s != nil {
		s.publisher, s.head, s.group = false, nil, nil
	}
}

func (h *hub) send(key string, t mediatest.Tag) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.streams[key]
	if s == nil || !s.publisher {
		return
	}
	switch {
	case t.Type == mediatest.TypeData || t.Header():
		s.head = append(s.head, t)
	case t.Keyframe():
		s.group = append(s.group[:0:0], t)
	default:
		s.group = append(s.group, t)
	}
	for p := range s.players {
		select {
		case p <- t:
		default:
			delete(s.players, p)
			close(p)
		}
	}
}

// play subscribes to key; leave must be called.
func (h *hub) play(key string) (tags <-chan mediatest.Tag, leave func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.stream(key)
	p := make(chan mediatest.Tag, playerQueue)
	for _, cached := range [][]mediatest.Tag{s.head, s.group} {
		for _, t := range cached {
			if len(p) < cap(p) {
				p <- t
			}
		}
	}
	s.players[p] = struct{}{}
	return p, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(s.players, p)
	}
}

func (h *hub) publishing(key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.streams[key]
	return s != nil && s.publisher
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, s := range h.streams {
		if s.publisher {
			n++
		}
	}
	return n
}

func (h *hub) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams, h.viewers = nil, nil
}

// knows reports whether an hls_ctx was given out or adopted by this run.
func (h *hub) knows(viewer string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.viewers[viewer]
}

func (h *hub) adopt(viewer string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.viewers == nil {
		h.viewers = make(map[string]bool)
	}
	h.viewers[viewer] = true
}
