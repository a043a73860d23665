package rtctest

import (
	"errors"
	"sync"

	"github.com/pion/rtp"
)

// hub brings what is published to those who play it.
type hub struct {
	mu    sync.Mutex
	rooms map[string]*room // guarded by mu; by app/stream
}

type room struct {
	publisher *session
	players   map[*session]struct{}
}

// viewer is the engine's state of a session that plays, speaker of one that
// publishes.
type (
	viewer interface {
		deliver(kind string, p *rtp.Packet)
	}
	speaker interface{ askForKeyFrame() }
)

var errBusy = errors.New("stream busy")

func (h *hub) join(s *session) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[s.stream]
	if r == nil {
		r = &room{players: make(map[*session]struct{})}
		h.rooms[s.stream] = r
	}
	if !s.publish {
		r.players[s] = struct{}{}
		return nil
	}
	if r.publisher != nil {
		return errBusy
	}
	r.publisher = s
	return nil
}

func (h *hub) leave(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := h.rooms[s.stream]
	if r == nil {
		return
	}
	delete(r.players, s)
	if r.publisher == s {
		r.publisher = nil
	}
}

// spread sends a publisher's packet to the players. It may be changed by them.
func (h *hub) spread(s *session, kind string, p *rtp.Packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rooms[s.stream]; r != nil && r.publisher == s {
		for player := range r.players {
			if v, ok := player.state.(viewer); ok {
				v.deliver(kind, p)
			}
		}
	}
}

// wantKeyFrame tells a stream's publisher that a player cannot decode.
func (h *hub) wantKeyFrame(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if r := h.rooms[s.stream]; r != nil && r.publisher != nil {
		if p, ok := r.publisher.state.(speaker); ok {
			p.askForKeyFrame()
		}
	}
}
