package proxy

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFloodOfRefusalsDoesNotFillTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := NewRefusalLog(slog.New(slog.NewTextHandler(&log, nil)), "http")
		for range 100_000 {
			r.Note(netip.AddrPort{}, ErrStreamName)
		}
		if n := strings.Count(log.String(), "\n"); n != 100 {
			t.Errorf("%d lines; want the first 100", n)
		}
		log.Reset()
		time.Sleep(time.Second)
		r.Note(netip.AddrPort{}, ErrStreamName)
		if !strings.Contains(log.String(), "unlogged=99900") {
			t.Errorf("log = %q; want how many it left out", &log)
		}
	})
}
