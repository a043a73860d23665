package main

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"srsx/test/mediatest"
	"srsx/test/origintest"
)

// originAt starts an origin that registers at the peer, often.
func (p *peer) originAt(t *testing.T, c origintest.Config) *origintest.Origin {
	t.Helper()
	c.Register = "http://" + p.system + "/api/v1/srs/register"
	if c.Interval == 0 {
		c.Interval = 100 * time.Millisecond
	}
	o := origintest.Start(t, c)
	eventually(t, "the origin is up", func() bool { return p.state(t, o.Server()) == "up" })
	return o
}

// originView is an origin in the API.
type originView struct {
	ID, State, Service, IP string
	Weight, Streams        int
	Static                 bool
	Endpoints              map[string][]string
}

func (p *peer) origins(t *testing.T) map[string]originView {
	t.Helper()
	var data struct{ Origins []originView }
	p.get(t, "/api/v1/origins", &data)
	byID := make(map[string]originView)
	for _, o := range data.Origins {
		byID[o.ID] = o
	}
	return byID
}

// state returns the state of an origin, empty when it is not known.
func (p *peer) state(t *testing.T, id string) string {
	t.Helper()
	return p.origins(t)[id].State
}

// placementView is a placement in the API.
type placementView struct {
	Stream, Origin string
	Epoch          uint64
	Publishing     bool
	Sessions       int
}

// placements returns the placements by the text of their stream.
func (p *peer) placements(t *testing.T) map[string]placementView {
	t.Helper()
	var data struct{ Placements []placementView }
	p.get(t, "/api/v1/placements", &data)
	byStream := make(map[string]placementView)
	for _, s := range data.Placements {
		byStream[s.Stream] = s
	}
	return byStream
}

// homeOf returns the origin of a stream of the default vhost.
func (p *peer) homeOf(t *testing.T, stream string) string {
	t.Helper()
	return p.placements(t)["__defaultVhost__/"+stream].Origin
}

// connect is a client of app live after connect. The prefix goes first.
func (p *peer) connect(t *testing.T, prefix string) (*mediatest.Client, error) {
	t.Helper()
	return mediatest.Dial(t.Context(), mediatest.Target{
		Addr: p.rtmp, TCURL: "rtmp://media.example/live", Prefix: []byte(prefix),
	})
}

// publisher is an encoder that sends until stopped.
type publisher struct {
	stop  context.CancelFunc
	ended chan struct{}
	err   error // once ended: why
}

// end stops the encoder and waits for it.
func (e *publisher) end() {
	e.stop()
	<-e.ended
}

// tryPublish starts to publish live/name, or returns the refusal.
func (p *peer) tryPublish(t *testing.T, name string) (*publisher, error) {
	t.Helper()
	client, err := p.connect(t, "")
	if err != nil {
		return nil, err
	}
	if err := client.Publish(name); err != nil {
		client.Close()
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	e := &publisher{stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(e.ended)
		e.err = client.Send(ctx, mediatest.NewPattern(name))
	}()
	t.Cleanup(e.end)
	return e, nil
}

// publish is tryPublish that has to succeed.
func (p *peer) publish(t *testing.T, name string) *publisher {
	t.Helper()
	e, err := p.tryPublish(t, name)
	if err != nil {
		t.Fatalf("publish %s: %v", name, err)
	}
	return e
}

// play starts to play live/name, which has to succeed.
func (p *peer) play(t *testing.T, name string) *mediatest.Client {
	t.Helper()
	client, err := p.connect(t, "")
	if err == nil {
		err = client.Play(name)
	}
	if err != nil {
		t.Fatalf("play %s: %v", name, err)
	}
	t.Cleanup(client.Close)
	return client
}

// requireFrames reads some frames of the stream of that name.
func requireFrames(t *testing.T, client *mediatest.Client, name string) {
	t.Helper()
	if err := client.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		got, _, err := client.NextFrame()
		if err != nil || got != name {
			t.Fatalf("frame of %q, %v; want one of %q", got, err, name)
		}
	}
}

// refusal returns the status code of a refusal, empty for another error.
func refusal(err error) string {
	if status, ok := errors.AsType[*mediatest.StatusError](err); ok {
		return status.Code
	}
	return ""
}

// httpStatus asks for a path of the media port and returns the status.
func (p *peer) httpStatus(t *testing.T, path string) int {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	response, err := client.Get("http://" + p.http + path)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}
