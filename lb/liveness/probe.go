package liveness

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"srsx/lb"
)

// ErrNothingToProbe means that an origin has no endpoint that [Probe] could ask:
// neither answers nor refusals can be had of it.
var ErrNothingToProbe = errors.New("no TCP endpoint to probe")

// Probe returns nil when an origin accepts a connection for its media and, if
// it has an HTTP API, answers a request there: a process that hangs still has
// a kernel that accepts.
func Probe(ctx context.Context, o lb.Origin) error {
	media := firstTCP(o.Endpoints.RTMP, o.Endpoints.HTTP, o.Endpoints.RTC)
	api := firstTCP(o.Endpoints.API)
	if media == "" && api == "" {
		return ErrNothingToProbe
	}
	if media != "" {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "tcp", media)
		if err != nil {
			return fmt.Errorf("probe media port: %w", err)
		}
		_ = conn.Close()
	}
	if api != "" {
		return askVersion(ctx, api)
	}
	return nil
}

func firstTCP(lists ...[]string) string {
	for _, endpoints := range lists {
		for _, e := range endpoints {
			if !strings.HasPrefix(e, "udp://") {
				return strings.TrimPrefix(e, "tcp://")
			}
		}
	}
	return ""
}

// askVersion wants any answer of HTTP: other software has other paths.
func askVersion(ctx context.Context, addr string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/api/v1/versions", http.NoBody)
	if err != nil {
		return fmt.Errorf("probe API: %w", err)
	}
	transport := &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("probe API: %w", err)
	}
	return response.Body.Close()
}
