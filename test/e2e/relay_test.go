package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"srsx/proxy"
	"srsx/test/mediatest"
	"srsx/test/peertest"
)

// tap stands between a client and a peer and keeps what the client says.
type tap struct {
	addr string

	mu    sync.Mutex
	heard bytes.Buffer // guarded by mu
	ended chan struct{}
}

// startTap relays the first client that comes to addr.
func startTap(t *testing.T, addr string) *tap {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tap := &tap{addr: ln.Addr().String(), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(tap.ended)
		client, err := ln.Accept()
		if err != nil {
			return
		}
		defer client.Close()
		server, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer server.Close()
		defer context.AfterFunc(ctx, func() { _, _ = client.Close(), server.Close() })()
		var back sync.WaitGroup
		back.Go(func() { _, _ = io.Copy(client, server) })
		_, _ = io.Copy(io.MultiWriter(server, tap), client)
		_ = server.(*net.TCPConn).CloseWrite() //nolint:errcheck // it is what was dialed
		back.Wait()
	}()
	t.Cleanup(func() { cancel(); _ = ln.Close(); <-tap.ended })
	return tap
}

// Write keeps p.
func (tap *tap) Write(p []byte) (int, error) {
	tap.mu.Lock()
	defer tap.mu.Unlock()
	return tap.heard.Write(p)
}

// messages returns what the client has said in whole messages so far.
func (tap *tap) messages() []mediatest.Message {
	tap.mu.Lock()
	b := bytes.Clone(tap.heard.Bytes())
	tap.mu.Unlock()
	const handshake = 1 + 2*1536 // C0, C1, C2
	if len(b) < handshake {
		return nil
	}
	reader := mediatest.NewChunkReader(bytes.NewReader(b[handshake:]))
	var all []mediatest.Message
	for {
		m, err := reader.Next()
		if err != nil {
			return mediatest.Relayed(all)
		}
		all = append(all, m)
	}
}

// What a real encoder says to a peer is what its origin hears, message for
// message.
func TestEncodersAreRelayedMessageForMessage(t *testing.T) {
	const enough = 150 // messages: some seconds
	for name, publish := range map[string]func(t *testing.T, url string) *peertest.Process{
		"ffmpeg":                encode,
		"GStreamer's rtmpsink":  func(t *testing.T, url string) *peertest.Process { return gstreamer(t, "rtmpsink", url) },
		"GStreamer's rtmp2sink": func(t *testing.T, url string) *peertest.Process { return gstreamer(t, "rtmp2sink", url) },
		"OBS Studio":            func(t *testing.T, url string) *peertest.Process { return obs(t, url, "cam?token=t0psecret") },
	} {
		t.Run(name, func(t *testing.T) {
			origin := mediatest.Record(t, nil)
			peer := peertest.Start(t, peertest.Options{Config: fmt.Sprintf("origins:\n  - {id: recorder, rtmp: [%q]}\n", origin.Addr)})
			tap := startTap(t, peer.RTMP)
			url := "rtmp://" + tap.addr + "/live"
			if name != "OBS Studio" {
				url += "/cam"
			}
			encoder := publish(t, url)
			peertest.Eventually(t, 60*time.Second, "some seconds of media", func() bool { return len(tap.messages()) >= enough })
			encoder.Kill()
			<-tap.ended
			if err := mediatest.Compare(tap.messages(), origin.Next(t), proxy.HopProperty); err != nil {
				t.Error(err)
			}
		})
	}
}

// An encoder that goes on after a break need not connect anew, where its origin
// allows that; lal does not: it ends the whole process, straight or through a
// peer.
func TestStreamIsPublishedAgainOnItsConnection(t *testing.T) {
	nginx := startNginx(t, "nginx1")
	peer := startPeer(t, nginx)
	for path, addr := range map[string]string{"straight": nginx.rtmp, "through a peer": peer.RTMP} {
		t.Run(path, func(t *testing.T) {
			target := mediatest.Target{Addr: addr, App: "nginx"}
			c, err := mediatest.Dial(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for round := range 3 {
				name := "again"
				if err := c.Publish(name); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
				requirePlayed(t, c, target, name)
				for _, end := range [][]any{{"FCUnpublish", 6.0, nil, name}, {"deleteStream", 7.0, nil, float64(c.Stream)}} {
					if err := c.WriteCommand(false, end...); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

// requirePlayed sends a pattern until a viewer has seen a frame of it.
func requirePlayed(t *testing.T, publisher *mediatest.Client, target mediatest.Target, name string) {
	t.Helper()
	viewer, err := mediatest.Dial(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	defer viewer.Close()
	if err := viewer.Play(name); err != nil {
		t.Fatal(err)
	}
	pattern := mediatest.NewPattern(name)
	for _, tag := range pattern.Head() {
		if err := publisher.WriteTag(tag); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(chan error, 1)
	go func() {
		_, _, err := viewer.NextFrame()
		seen <- err
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if err := publisher.WriteTag(pattern.Next()); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-seen:
			if err != nil {
				t.Errorf("the viewer: %v", err)
			}
			return
		case <-tick.C:
		}
	}
}
