// Package devorigin is a small origin in the same process, so that a newcomer
// sees a stream through the proxy with no other software: RTMP in, RTMP,
// HTTP-FLV, HTTP-TS and HLS out, and a clip that loops at live/demo. H.264 and
// AAC only for TS and HLS.
package devorigin

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"srsx/proxy/edge"
)

//go:embed clip/demo.flv
var clip []byte

// clipName is where the clip is published.
const clipName = "live/demo"

// Origin is the small origin.
type Origin struct {
	hub      *edge.Hub
	log      *slog.Logger
	patience patience

	mu     sync.Mutex            // guards what follows
	hls    map[string]*segmenter // by stream
	stop   context.Context       //nolint:containedctx // of the segmenters, which outlive the requests that start them
	closed bool                  // none starts any more
	busy   sync.WaitGroup        // the segmenters
}

// patience is how long clients may take.
type patience struct {
	step  time.Duration // for the handshake, and for each command
	idle  time.Duration // for a publisher's next message
	write time.Duration // for one write
}

// New returns an origin.
func New(log *slog.Logger) *Origin {
	return &Origin{
		hub: edge.New(), log: log, hls: make(map[string]*segmenter),
		patience: patience{step: 10 * time.Second, idle: 60 * time.Second, write: 10 * time.Second},
	}
}

// Serve serves both listeners until ctx ends, and closes them.
func (o *Origin) Serve(ctx context.Context, rtmpListener, httpListener net.Listener) error {
	tags, err := readFLV(clip)
	if err != nil {
		return err
	}
	demo, err := o.hub.Publish(clipName) // before anybody else can take the name
	if err != nil {
		return fmt.Errorf("publish the clip: %w", err)
	}
	defer demo.Close()
	serving, ctx := errgroup.WithContext(ctx)
	o.mu.Lock()
	o.stop = ctx
	o.mu.Unlock()
	defer context.AfterFunc(ctx, func() { _ = rtmpListener.Close() })()
	server := &http.Server{
		Handler: o, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	serving.Go(func() error { return o.serveRTMP(ctx, rtmpListener) })
	serving.Go(func() error {
		defer context.AfterFunc(ctx, func() { _ = server.Close() })()
		if serveErr := server.Serve(httpListener); !errors.Is(serveErr, http.ErrServerClosed) {
			return fmt.Errorf("dev origin: %w", serveErr)
		}
		return nil
	})
	serving.Go(func() error { loop(ctx, demo, tags); return nil })
	err = serving.Wait()
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.busy.Wait()
	return err
}

// loop publishes the clip again and again, its timestamps running on.
func loop(ctx context.Context, p *edge.Publisher, tags []edge.Message) {
	const pause = 50 // ms: one frame of the clip, from its last to the next first
	length := tags[len(tags)-1].Timestamp + pause
	timer := time.NewTimer(0)
	defer timer.Stop()
	start := time.Now()
	for round := uint32(0); ; round++ {
		for _, tag := range tags {
			tag.Timestamp += round * length
			timer.Reset(time.Until(start.Add(time.Duration(tag.Timestamp) * time.Millisecond)))
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			p.Write(tag)
		}
	}
}

var errClip = errors.New("clip is no FLV")

// readFLV reads the tags of an FLV file (FLV 10.1, annex E).
func readFLV(b []byte) ([]edge.Message, error) {
	const header, tagHeader, trailer = 13, 11, 4
	if len(b) < header || !bytes.HasPrefix(b, []byte("FLV")) {
		return nil, errClip
	}
	var tags []edge.Message
	for b = b[header:]; len(b) > tagHeader; {
		size := int(b[1])<<16 | int(b[2])<<8 | int(b[3])
		if len(b) < tagHeader+size+trailer {
			break
		}
		stamp := uint32(b[7])<<24 | uint32(b[4])<<16 | uint32(b[5])<<8 | uint32(b[6])
		tags = append(tags, edge.Message{Type: b[0] & 0x1f, Timestamp: stamp, Data: b[tagHeader : tagHeader+size]})
		b = b[tagHeader+size+trailer:]
	}
	if len(tags) == 0 {
		return nil, errClip
	}
	return tags, nil
}

// flvHeader says that audio and video follow.
func flvHeader() []byte { return []byte{'F', 'L', 'V', 1, 5, 0, 0, 0, 9, 0, 0, 0, 0} }

// appendTag appends a message as FLV tag.
func appendTag(b []byte, m edge.Message) []byte {
	n := len(m.Data)
	b = append(b, m.Type, byte(n>>16), byte(n>>8), byte(n))
	b = append(b, byte(m.Timestamp>>16), byte(m.Timestamp>>8), byte(m.Timestamp), byte(m.Timestamp>>24), 0, 0, 0)
	b = append(b, m.Data...)
	return binary.BigEndian.AppendUint32(b, uint32(n+11))
}
