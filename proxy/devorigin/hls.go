package devorigin

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"srsx/proxy/edge"
)

// segmenter cuts one stream into HLS segments while anybody asks for them.
type segmenter struct {
	first chan struct{} // closed with the first segment

	mu    sync.Mutex
	parts []part // guarded by mu
	asked time.Time
}

// part is one finished segment.
type part struct {
	number int
	length time.Duration
	body   []byte
}

// segmenterOf returns the segmenter of a stream, started now if need be; ok is
// false when the origin is stopping.
func (o *Origin) segmenterOf(name string) (s *segmenter, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil, false
	}
	s = o.hls[name]
	if s == nil {
		s = &segmenter{first: make(chan struct{})}
		o.hls[name] = s
		o.busy.Go(func() {
			s.run(o.stop, o.hub, name)
			o.mu.Lock()
			delete(o.hls, name)
			o.mu.Unlock()
		})
	}
	s.mu.Lock()
	s.asked = time.Now()
	s.mu.Unlock()
	return s, true
}

// run cuts the stream until it ends or nobody has asked for hlsIdle.
func (s *segmenter) run(ctx context.Context, hub *edge.Hub, name string) {
	v, err := hub.Play(name)
	if err != nil {
		return
	}
	defer v.Close()
	c := newCutter(s.add)
	for {
		batch, err := v.Next(ctx)
		if err != nil || s.forgotten() {
			return
		}
		for _, m := range batch {
			c.take(m)
		}
	}
}

// maxSegment bounds a segment of a stream that has no key frames.
const maxSegment = 32 << 20 // bytes

// cutter cuts messages into segments, each where a player can start.
type cutter struct {
	mux   *muxer
	open  part
	began uint32 // ms: timestamp of its first message
	done  func(part)
}

func newCutter(done func(part)) *cutter {
	// The number grows also over a restart.
	return &cutter{mux: newMuxer(), open: part{number: int(time.Now().Unix())}, done: done}
}

func (c *cutter) take(m edge.Message) {
	length := time.Duration(int32(m.Timestamp-c.began)) * time.Millisecond
	back := length < 0 // the publisher's clock was set
	due := len(c.open.body) == 0 || back || length >= segmentTime
	if due && c.mux.starts(m) || len(c.open.body) > maxSegment {
		if len(c.open.body) > 0 { // it is not the nothing before the first
			c.open.length = length
			if back {
				c.open.length = segmentTime
			}
			c.done(c.open)
			c.open.number++
		}
		c.open.body, c.began = c.mux.tables(), m.Timestamp
	}
	if added := c.mux.append(c.open.body, m); len(c.open.body) > 0 {
		c.open.body = added
	}
}

func (s *segmenter) forgotten() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.asked) > hlsIdle
}

// add keeps a finished segment.
func (s *segmenter) add(p part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.parts) == 0 {
		close(s.first)
	}
	s.parts = append(s.parts, p)
	if len(s.parts) > segmentsKept {
		s.parts = s.parts[1:]
	}
}

// playlist lists the segments, of which there is one at least.
func (s *segmenter) playlist(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest := segmentTime
	for _, part := range s.parts {
		longest = max(longest, part.length)
	}
	b := fmt.Appendf(nil, "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:%d\n#EXT-X-MEDIA-SEQUENCE:%d\n",
		int((longest+time.Second-1)/time.Second), s.parts[0].number)
	for _, part := range s.parts {
		b = fmt.Appendf(b, "#EXTINF:%.3f,\n%s-%d.ts\n", part.length.Seconds(), name, part.number)
	}
	return b
}

func (s *segmenter) part(number int) (io.ReadSeeker, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = time.Now()
	for _, p := range s.parts {
		if p.number == number {
			return bytes.NewReader(p.body), true
		}
	}
	return nil, false
}
