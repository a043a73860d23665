package httpstream

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
		r := newRefusals(slog.New(slog.NewTextHandler(&log, nil)))
		for range 100_000 {
			r.note(netip.AddrPort{}, errNoSegment)
		}
		if n := strings.Count(log.String(), "\n"); n != 100 {
			t.Errorf("%d lines; want the first 100", n)
		}
		log.Reset()
		time.Sleep(time.Second)
		r.note(netip.AddrPort{}, errNoSegment)
		if !strings.Contains(log.String(), "unlogged=99900") {
			t.Errorf("log = %q; want how many it left out", &log)
		}
	})
}
