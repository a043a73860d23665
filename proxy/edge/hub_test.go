package edge_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"srsx/proxy"
	"srsx/proxy/edge"
)

const group = 25 // frames

// frame is the n-th video frame of 40 ms, a key frame every group.
func frame(n, size int) edge.Message {
	m := edge.Message{Type: 9, Timestamp: uint32(n * 40), Data: make([]byte, size)}
	m.Data[0], m.Data[1] = 0x27, 1
	if n%group == 0 {
		m.Data[0] = 0x17
	}
	return m
}

func head() []edge.Message {
	return []edge.Message{
		{Type: 18, Data: []byte("\x02\x00\x0aonMetaData\x05")},
		{Type: 9, Data: []byte{0x17, 0, 1}},
		{Type: 8, Data: []byte{0xaf, 0, 1}},
	}
}

func publish(t *testing.T, h *edge.Hub) *edge.Publisher {
	t.Helper()
	p, err := h.Publish("s")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range head() {
		p.Write(m)
	}
	return p
}

func next(t *testing.T, v *edge.Viewer) []edge.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	batch, err := v.Next(ctx)
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	return batch
}

func play(t *testing.T, h *edge.Hub) *edge.Viewer {
	t.Helper()
	v, err := h.Play("s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.Close)
	return v
}

func TestLateViewerStartsWithHeadersAndAKeyFrame(t *testing.T) {
	h := edge.New()
	p := publish(t, h)
	for n := range group + 10 {
		p.Write(frame(n, 100))
	}
	batch := next(t, play(t, h))
	if len(batch) != 3+10 {
		t.Fatalf("%d messages; want 3 headers and 10 frames since the key frame", len(batch))
	}
	if first := batch[3]; first.Timestamp != group*40 || first.Data[0] != 0x17 {
		t.Errorf("first frame is at %d, kind %#x; want the last key frame", first.Timestamp, first.Data[0])
	}
}

func TestSecondPublisherIsRefused(t *testing.T) {
	h := edge.New()
	p := publish(t, h)
	if _, err := h.Publish("s"); !errors.Is(err, edge.ErrBusy) {
		t.Errorf("second Publish = %v; want ErrBusy", err)
	}
	p.Close()
	publish(t, h).Close()
}

func TestSlowViewerLosesGroupsThenItsPlaceAndHurtsNobody(t *testing.T) {
	h := edge.New()
	p := publish(t, h)
	slow, fast := play(t, h), play(t, h)
	got := 0
	for n := range 3000 {
		p.Write(frame(n, 100<<10))
		for _, m := range next(t, fast) {
			if m.Type == 9 && m.Data[1] == 1 {
				got++
			}
		}
	}
	if got != 3000 {
		t.Errorf("the fast viewer got %d of 3000 frames", got)
	}
	if _, err := slow.Next(t.Context()); !errors.Is(err, proxy.ErrSlow) {
		t.Errorf("the viewer that never read got %v; want ErrSlow", err)
	}
}

func TestViewerThatLaggedGoesOnWithAKeyFrame(t *testing.T) {
	h := edge.New()
	p := publish(t, h)
	v := play(t, h)
	next(t, v)
	for n := range 2*group + 5 { // 55 frames of 100 KB: over the queue's bound once
		p.Write(frame(n, 100<<10))
	}
	first := next(t, v)[0]
	if first.Data[0] != 0x17 {
		t.Errorf("after a loss the first frame is of kind %#x; want a key frame", first.Data[0])
	}
}

func TestStreamEndsForItsViewersAndLeavesNothing(t *testing.T) {
	h := edge.New()
	p := publish(t, h)
	v := play(t, h)
	next(t, v)
	p.Close()
	if _, err := v.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("Next after the end = %v; want io.EOF", err)
	}
	if h.Published("s") {
		t.Error("an ended stream is still published")
	}
}

func TestManyViewersComeAndGo(t *testing.T) {
	h := edge.New()
	p := publish(t, h)
	var viewers sync.WaitGroup
	for range 200 {
		viewers.Go(func() {
			v, err := h.Play("s")
			if err != nil {
				t.Error(err)
				return
			}
			defer v.Close()
			for frames := 0; frames < 20; {
				batch, err := v.Next(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				frames += len(batch)
			}
		})
	}
	done := make(chan struct{})
	go func() { viewers.Wait(); close(done) }()
	for n := 0; ; n++ {
		select {
		case <-done:
			return
		default:
			p.Write(frame(n, 50))
			time.Sleep(time.Millisecond)
		}
	}
}

func BenchmarkFanOut(b *testing.B) {
	h := edge.New()
	p, _ := h.Publish("s")
	var viewers sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for range 1000 {
		v, _ := h.Play("s")
		viewers.Go(func() {
			defer v.Close()
			for {
				if _, err := v.Next(ctx); err != nil {
					return
				}
			}
		})
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		p.Write(frame(n, 1000))
		n++
	}
	cancel()
	viewers.Wait()
}
