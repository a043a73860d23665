package origintest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// firstBeat is how long after its start SRS sends the first heartbeat.
const firstBeat = 60 * time.Millisecond

// Heartbeat returns the body that SRS sends, with this origin's values: all of
// them strings or lists of strings.
func (o *Origin) Heartbeat() map[string]any {
	endpoint := func(addr string) []string {
		if o.config.FullAddr {
			return []string{addr}
		}
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			panic(fmt.Sprintf("listener address %q: %v", addr, err))
		}
		return []string{port}
	}
	body := map[string]any{
		"ip":      o.config.IP,
		"server":  o.Server(),
		"service": o.Service(),
		"pid":     o.PID(),
		"rtmp":    endpoint(o.RTMP()),
		"http":    endpoint(o.HTTP()),
		"api":     endpoint(o.API()),
		"srt":     []string{"udp://0.0.0.0:10080"},
		"rtc":     []string{"udp://0.0.0.0:8000", "tcp://0.0.0.0:8000"},
	}
	if o.config.DeviceID != "" {
		body["device_id"] = o.config.DeviceID
	}
	if o.config.Summary != nil {
		body["summaries"] = o.config.Summary
	}
	return body
}

// heartbeat registers until ctx ends. As SRS it looks at neither status nor
// body, but does not go on before there is an answer.
func (o *Origin) heartbeat(ctx context.Context) {
	wait := time.NewTimer(firstBeat)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
		err := o.beat(ctx)
		o.mu.Lock()
		o.beats++
		o.lastErr = err
		o.mu.Unlock()
		wait.Reset(o.config.Interval)
	}
}

// Beat sends one heartbeat now and returns what was wrong with the answer.
func (o *Origin) Beat(ctx context.Context) error { return o.beat(ctx) }

func (o *Origin) beat(ctx context.Context) error {
	body, err := json.Marshal(o.Heartbeat())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, o.config.Register, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := o.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("register: %s: %s", response.Status, answer)
	}
	return nil
}

// Beats returns how many heartbeats were sent, and the last one's error.
func (o *Origin) Beats() (sent int, last error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.beats, o.lastErr
}
