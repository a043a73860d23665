package rtmp

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"sync"

	"srsx/proxy/rtmp/wire"
)

// streams translates the message stream ids of a client to those of its origin
// and back: this peer made the client's first streams before it knew the
// origin, and origins number theirs each in its own way. An id that nobody
// created is the same on both sides. It is safe for concurrent use.
type streams struct {
	told uint32 // the client was given ids up to this one

	mu       sync.Mutex // guards what follows
	toOrigin map[uint32]uint32
	toClient map[uint32]uint32
	creating []float64 // transactions of createStream not answered yet
}

// maxStreams bounds the streams of a client that do not end.
const maxStreams = 64

var errStreams = errors.New("too many streams on one connection")

// newStreams returns the table of one stream; told is the last id that this
// peer gave the client.
func newStreams(client, origin, told uint32) *streams {
	return &streams{
		told:     told,
		toOrigin: map[uint32]uint32{client: origin},
		toClient: map[uint32]uint32{origin: client},
	}
}

func (s *streams) atOrigin(client uint32) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if origin, ok := s.toOrigin[client]; ok {
		return origin
	}
	return client
}

func (s *streams) atClient(origin uint32) uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if client, ok := s.toClient[origin]; ok {
		return client
	}
	return origin
}

// create notes a createStream on its way to the origin.
func (s *streams) create(transaction float64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.creating)+len(s.toOrigin) >= maxStreams {
		return errStreams
	}
	s.creating = append(s.creating, transaction)
	return nil
}

// created returns what the client shall call the stream that the origin
// created; ok is false when the transaction is none of createStream. An origin
// that gives all of them one number gets one for them.
func (s *streams) created(transaction float64, origin uint32) (client uint32, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.answered(transaction) {
		return 0, false
	}
	client, known := s.toClient[origin]
	if now, live := s.toOrigin[client]; !known || live && now != origin {
		client = s.free(origin)
	}
	if len(s.toClient) >= maxStreams {
		maps.DeleteFunc(s.toClient, func(origin, client uint32) bool { return s.toOrigin[client] != origin })
	}
	s.toOrigin[client], s.toClient[origin] = origin, client
	return client, true
}

// free returns the first id from one on that the client knows no stream by.
func (s *streams) free(id uint32) uint32 {
	for id = max(id, s.told+1); ; id++ {
		if _, taken := s.toOrigin[id]; !taken {
			return id
		}
	}
}

// failed forgets a createStream that the origin refused.
func (s *streams) failed(transaction float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered(transaction)
}

// answered takes a transaction off the list and reports whether it was there.
// The lock is held.
func (s *streams) answered(transaction float64) bool {
	i := slices.Index(s.creating, transaction)
	if i >= 0 {
		s.creating = slices.Delete(s.creating, i, i+1)
	}
	return i >= 0
}

// remove forgets a stream that the client deletes. The origin may still have
// something to say on it.
func (s *streams) remove(client uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.toOrigin, client)
}

// translateEvent puts the translated id into a user control message that is
// about a stream (RTMP 1.0 section 7.1.7).
func translateEvent(m *wire.Message, translate func(uint32) uint32) {
	const head = 2 // bytes of the event's type
	if len(m.Body) >= head+4 && binary.BigEndian.Uint16(m.Body) <= wire.EventLastOfStream {
		id := m.Body[head : head+4]
		binary.BigEndian.PutUint32(id, translate(binary.BigEndian.Uint32(id)))
	}
}
